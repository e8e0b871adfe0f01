"""Clinical factors as numbers: what training subjects taught, applied to anyone.

Continuous factors are standardised, and a missing one becomes the training mean with an indicator;
categorical factors become one column a category that training saw, and a missing or unknown
category becomes zeros with an indicator. Nothing is learnt from validation or test subjects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.errors import InputError

CATEGORICAL = {"sex", "race", "kl_grade", "contralateral_kl_grade", "site"}
_MAX_SHOWN = 20


@dataclass(frozen=True)
class ClinicalEncoding:
    """A fitted encoding; plain values, so that a model card can carry it.

    Attributes:
        continuous: Factor to (mean, standard deviation) of the training knees.
        categorical: Factor to the categories of the training knees.
    """

    continuous: Mapping[str, Sequence[float]]
    categorical: Mapping[str, Sequence[str]]

    @classmethod
    def fit(cls, factors: pd.DataFrame) -> ClinicalEncoding:
        """Learn means, scales and categories from training knees.

        Args:
            factors: One column a factor, one row a training knee.

        Raises:
            InputError: A factor has no value at all, or a continuous one has a cell that is no
                number.
        """
        empty = [str(name) for name in factors if factors[name].isna().all()]
        if empty:
            raise InputError(
                "A clinical factor has no value in the training part.",
                found=", ".join(empty),
                fix="leave it out with --set clinical_factors=[...]",
            )
        continuous, categorical = {}, {}
        for name in map(str, factors):
            known = factors[name].dropna()
            if name in CATEGORICAL:
                categorical[name] = sorted(set(_texts(known)))
            else:
                values = pd.Series(numbers(known))
                # a constant factor carries nothing and must not divide by zero
                continuous[name] = (float(values.mean()), float(values.std(ddof=0)) or 1.0)
        return cls(continuous, categorical)

    @property
    def factors(self) -> list[str]:
        """Names of the factors."""
        return [*self.continuous, *self.categorical]

    @property
    def n_features(self) -> int:
        """Columns of the encoded factors."""
        return 2 * len(self.continuous) + sum(1 + len(c) for c in self.categorical.values())

    def transform(self, factors: pd.DataFrame) -> NDArray[np.float32]:
        """Encode knees; a factor that the table lacks is missing for all of them.

        Args:
            factors: One row a knee.

        Returns:
            Shape (n, n_features), without NaN.

        Raises:
            InputError: A continuous factor has a cell that is no number.
        """
        columns = []
        for name, (mean, scale) in self.continuous.items():
            values = numbers(self._column(factors, name))
            missing = np.isnan(values)
            columns += [np.where(missing, 0.0, (values - mean) / scale), missing]
        for name, categories in self.categorical.items():
            texts = _texts(self._column(factors, name))
            matches = [(texts == category).fillna(False).to_numpy(bool) for category in categories]
            columns += [*matches, ~np.any(matches, axis=0)]
        return np.stack(columns, axis=1).astype(np.float32)

    def unknown_categories(self, factors: pd.DataFrame) -> dict[str, pd.Series]:
        """Categories that training never saw, which count as missing.

        Args:
            factors: One row a knee.

        Returns:
            Name of a factor to its unknown texts, with the index of ``factors``.
        """
        found = {}
        for name, categories in self.categorical.items():
            texts = _texts(self._column(factors, name)).dropna()
            strange = texts[~texts.isin(list(categories))]
            if len(strange):
                found[name] = strange
        return found

    @staticmethod
    def _column(factors: pd.DataFrame, name: str) -> pd.Series:
        return factors.get(name, pd.Series(pd.NA, index=factors.index, dtype="object"))

    def to_card(self) -> dict[str, Any]:
        """Plain values for a model card."""
        return asdict(self)


def numbers(values: pd.Series) -> NDArray[np.float64]:
    """A column as numbers, NaN where missing.

    Raises:
        InputError: A cell is no number, such as ``31,5``.
    """
    found = pd.to_numeric(values, errors="coerce")
    strange = values[found.isna() & values.notna()]
    if len(strange):
        raise InputError(
            f"The column {values.name} must hold numbers.",
            expected="a point for the decimal sign, and empty cells for what is missing",
            found=", ".join(map(repr, strange.unique()[:_MAX_SHOWN])) + f" in {len(strange)} cells",
        )
    return found.to_numpy(np.float64, na_value=np.nan)


def _texts(values: pd.Series) -> pd.Series:
    """Categories as texts: a grade is ``2``, whether a table holds it as 2, 2.0 or a text."""
    if pd.api.types.is_numeric_dtype(values):
        return values.map(lambda value: f"{value:g}", na_action="ignore").astype("string")
    return values.astype("string")
