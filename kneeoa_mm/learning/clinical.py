"""Clinical factors as numbers: what training subjects taught, applied to anyone.

Continuous factors are standardised; categorical ones become one column a category that training
saw, and an unknown category is missing. What is missing is imputed from the knee's other factors by
a model of the training knees, and has an indicator. Nothing is learnt from validation or test
subjects, nor from outcomes. A reading is imputed from nothing and foretells nothing: a grade that
is missing often says that there is a prosthesis, and a model that shall not see readings must not
see them in another factor's place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.errors import InputError
from kneeoa_mm.learning.imputation import fit_normal, impute

_WIDTH = "mjsw_medial_mm"
READINGS = {
    "kl_grade",
    "contralateral_kl_grade",
    "oarsi_jsn_medial",
    "oarsi_jsn_lateral",
    "lateral_predominant",
    _WIDTH,
}
"""What a person made of a film: of these, the joint-space width alone is no category."""
CATEGORICAL = {"sex", "race", "site", *READINGS} - {_WIDTH}
_MAX_SHOWN = 20


@dataclass(frozen=True)
class ClinicalEncoding:
    """A fitted encoding; plain values, so that a model card can carry it.

    Attributes:
        continuous: Factor to (mean, standard deviation) of the training knees.
        categorical: Factor to the categories of the training knees.
        imputed_mean: Mean of the imputed columns in the training knees: the continuous factors,
            then each category, readings aside. Models of before have none: there a missing factor
            is the mean, or no category.
        imputed_covariance: Their covariance, from which missing ones are foretold.
    """

    continuous: Mapping[str, Sequence[float]]
    categorical: Mapping[str, Sequence[str]]
    imputed_mean: Sequence[float] = ()
    imputed_covariance: Sequence[Sequence[float]] = ()

    @classmethod
    def fit(cls, factors: pd.DataFrame) -> ClinicalEncoding:
        """Learn means, scales, categories and how factors go together from training knees.

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
        plain = cls(continuous, categorical)
        columns = plain._imputable(factors)
        if not columns.shape[1]:
            return plain
        mean, covariance = fit_normal(columns)
        return cls(continuous, categorical, mean.tolist(), covariance.tolist())

    @property
    def factors(self) -> list[str]:
        """Names of the factors."""
        return [*self.continuous, *self.categorical]

    @property
    def n_features(self) -> int:
        """Columns of the encoded factors."""
        return 2 * len(self.continuous) + sum(1 + len(c) for c in self.categorical.values())

    @property
    def columns(self) -> dict[str, list[int]]:
        """The encoded columns of each factor, its indicator of missing values among them."""
        widths = dict.fromkeys(self.continuous, 2)
        widths |= {name: len(known) + 1 for name, known in self.categorical.items()}
        ends = np.cumsum(list(widths.values()))
        starts = ends - list(widths.values())
        return {
            name: list(range(start, end))
            for name, start, end in zip(widths, starts.tolist(), ends.tolist(), strict=True)
        }

    @property
    def reading_columns(self) -> list[int]:
        """The encoded columns of readings: grades of either knee, and the joint-space width."""
        return [place for name, own in self.columns.items() if name in READINGS for place in own]

    def transform(self, factors: pd.DataFrame) -> NDArray[np.float32]:
        """Encode knees; a factor that the table lacks is missing for all of them.

        A missing value is what the knee's other factors lead to expect, the same each time.

        Args:
            factors: One row a knee.

        Returns:
            Shape (n, n_features), without NaN.

        Raises:
            InputError: A continuous factor has a cell that is no number.
        """
        found = self._imputable(factors)
        known = zip(self._filled(found).T, np.isnan(found).T, strict=True)
        columns: list[NDArray[Any]] = []
        for name in self.continuous:
            columns += [*self._reading(factors, name).T] if name in READINGS else next(known)
        for name, categories in self.categorical.items():
            if name in READINGS:
                columns += [*self._reading(factors, name).T]
                continue
            own = [next(known) for _ in categories]
            columns += [*(values for values, _ in own), own[0][1]]
        return np.stack(columns, axis=1).astype(np.float32)

    def draw(self, factors: pd.DataFrame, draws: np.random.Generator) -> NDArray[np.float64]:
        """Encode knees with each missing value drawn from what their other factors leave open.

        Beside draws there are no indicators, but those of readings, which are not imputed.

        Args:
            factors: As for :meth:`transform`.
            draws: Where from.

        Returns:
            Shape (n, columns), without NaN.
        """
        readings = [self._reading(factors, name) for name in self.factors if name in READINGS]
        return np.concatenate([self._filled(self._imputable(factors), draws), *readings], axis=1)

    def _filled(
        self, found: NDArray[np.float64], draws: np.random.Generator | None = None
    ) -> NDArray[np.float64]:
        if not self.imputed_mean:
            return np.nan_to_num(found)
        return impute(found, np.array(self.imputed_mean), np.array(self.imputed_covariance), draws)

    def _imputable(self, factors: pd.DataFrame) -> NDArray[np.float64]:
        """Standardised factors and categories that are no reading, NaN where missing, (n, p)."""
        columns = [
            self._standardised(factors, name) for name in self.continuous if name not in READINGS
        ]
        for name in self.categorical:
            if name not in READINGS:
                columns += [*self._matches(factors, name).T]
        return np.stack(columns, axis=1) if columns else np.zeros((len(factors), 0))

    def _standardised(self, factors: pd.DataFrame, name: str) -> NDArray[np.float64]:
        mean, scale = self.continuous[name]
        return (numbers(self._column(factors, name)) - mean) / scale

    def _matches(self, factors: pd.DataFrame, name: str) -> NDArray[np.float64]:
        """One column a category of a factor; NaN in all where it is missing or unknown."""
        texts = _texts(self._column(factors, name))
        categories = self.categorical[name]
        matches = [(texts == category).fillna(False).to_numpy(bool) for category in categories]
        found = np.stack(matches, axis=1).astype(np.float64)
        return np.where(found.any(axis=1, keepdims=True), found, np.nan)

    def _reading(self, factors: pd.DataFrame, name: str) -> NDArray[np.float64]:
        """A column a grade, or that of a width; zero where it is missing, and the indicator."""
        if name in self.continuous:
            known = self._standardised(factors, name)[:, None]
        else:
            known = self._matches(factors, name)
        return np.column_stack([np.nan_to_num(known), np.isnan(known[:, 0])])

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
