"""Clinical factors as numbers: what training subjects taught, applied to anyone.

Continuous factors are standardised, and a missing one becomes the training mean with an indicator;
categorical factors become one column a category that training saw, and a missing or unknown
category becomes zeros with an indicator. Nothing is learnt from validation or test subjects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.errors import InputError

CATEGORICAL = {"sex", "race", "kl_grade", "contralateral_kl_grade", "site"}


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
            found=f"{len(strange)} other cells, such as {strange.iloc[0]!r}",
        )
    return found.to_numpy(np.float64, na_value=np.nan)


def _texts(values: pd.Series) -> pd.Series:
    """Categories as texts: a grade is ``2``, whether a table holds it as 2, 2.0 or a text."""
    if pd.api.types.is_numeric_dtype(values):
        return values.map(lambda value: f"{value:g}", na_action="ignore").astype("string")
    return values.astype("string")


def read_clinical(source: Path) -> pd.DataFrame:
    """Read clinical factors, indexed by ``knee_id``.

    Args:
        source: Output folder of ``cohort``, or a ``.csv`` or ``.parquet`` with ``knee_id``.

    Raises:
        InputError: There is no such table, or it has no usable ``knee_id``.
    """
    path = source / "cohort.parquet" if source.is_dir() else source
    if not path.is_file():
        raise InputError("The clinical table is not there.", where=path)
    read = pd.read_csv if path.suffix == ".csv" else pd.read_parquet
    try:
        table = read(path)
    except (ValueError, OSError) as error:
        raise InputError(
            "The clinical table cannot be read.", found=str(error), where=path
        ) from error
    if "knee_id" not in table:
        raise InputError("The clinical table lacks a column.", expected="knee_id", where=path)
    twice = table["knee_id"][table["knee_id"].duplicated()]
    if len(twice):
        raise InputError(
            "A knee stands twice in the clinical table.", found=str(twice.iloc[0]), where=path
        )
    return table.set_index("knee_id")


def untold(wanted: set[str], clinical: pd.DataFrame | None, knee_ids: pd.Series) -> tuple[str, ...]:
    """What a person must know of factors and knees that a clinical table does not tell.

    Args:
        wanted: The factors that a model wants.
        clinical: Factors by ``knee_id``; None without a table.
        knee_ids: The knees that are asked for.

    Raises:
        InputError: The table has none of the knees.
    """
    notes = []
    absent = sorted(wanted - set(() if clinical is None else clinical.columns))
    if absent:
        notes.append(
            f"No values for {', '.join(absent)}: imputed by the rule that the model learnt."
        )
    if clinical is None:
        return tuple(notes)
    strangers = knee_ids[~knee_ids.isin(clinical.index)]
    if len(strangers) == len(knee_ids):
        raise InputError(
            "The clinical table has none of the knees.",
            expected=f"such as {clinical.index[0]}" if len(clinical) else "rows",
            found=f"{len(strangers)} others, such as {strangers.iloc[0]}",
            fix="the same --cohort name and the same --ids make the same knee_id",
        )
    if len(strangers):
        imputed = ": all factors are imputed" if wanted else ""
        notes.append(
            f"{len(strangers)} knees are not in the clinical table{imputed}, such as "
            f"{strangers.iloc[0]}."
        )
    return tuple(notes)
