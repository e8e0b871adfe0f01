"""Covariates of a cohort table to the columns of a regression, with what could not be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.errors import InputError, rows_named

CATEGORIES = frozenset(
    {"kl_grade", "contralateral_kl_grade", "oarsi_jsn_medial", "oarsi_jsn_lateral"}
)
"""Grades are categories: progression does not rise evenly with them."""

_LABELS = {
    "age_years": ("Age", "year"),
    "bmi_kg_m2": ("BMI", "kg/m²"),
    "contralateral_kl_grade": ("KL grade of the other knee", "grade"),
    "fta_deg": ("Femorotibial angle", "degree"),
    "kl_grade": ("KL grade", "grade"),
    "knee_injury": ("Knee injury", ""),
    "mjsw_medial_mm": ("Medial joint-space width", "mm"),
    "oarsi_jsn_lateral": ("Lateral joint-space narrowing", "grade"),
    "oarsi_jsn_medial": ("Medial joint-space narrowing", "grade"),
    "race": ("Race", ""),
    "sex": ("Sex", ""),
    "site": ("Site", ""),
    "sub_cohort": ("Sub-cohort", ""),
    "womac_total": ("WOMAC total", "point"),
}
_MAX_LEVELS = 12
_COLLINEAR = 1e-6


def label_of(column: str) -> str:
    """A column of the cohort in words; other columns are called by their name."""
    return _LABELS.get(column, (column, ""))[0]


def unit_of(column: str) -> str:
    """The unit of a column of the cohort in the singular; empty where it has none."""
    return _LABELS.get(column, ("", ""))[1]


@dataclass(frozen=True)
class Term:
    """One coefficient: a number per unit, or a level against the reference level."""

    covariate: str
    level: str | None = None
    reference: str | None = None

    @property
    def name(self) -> str:
        """How tables call it.

        Example:
            >>> Term("sex", "M", "F").name, Term("age_years").name
            ('sex M vs F', 'age_years')
        """
        return self.covariate + self._contrast

    @property
    def label(self) -> str:
        """How figures call it.

        Example:
            >>> Term("sex", "M", "F").label, Term("age_years").label
            ('Sex M vs F', 'Age, per year')
        """
        if self.level is None:
            return f"{label_of(self.covariate)}, per {unit_of(self.covariate) or 'unit'}"
        return label_of(self.covariate) + self._contrast

    @property
    def _contrast(self) -> str:
        return "" if self.level is None else f" {self.level} vs {self.reference}"


@dataclass(frozen=True)
class Design:
    """Columns of a regression.

    Attributes:
        terms: One a column.
        columns: Values, shape (m, p).
        kept: Which of the rows given are the m used, shape (n,).
        not_estimable: Terms without a coefficient, and why.
        notes: What was left out.
    """

    terms: tuple[Term, ...]
    columns: NDArray[np.float64]
    kept: NDArray[np.bool_]
    not_estimable: dict[Term, str]
    notes: tuple[str, ...]


def design(
    rows: pd.DataFrame,
    covariates: Sequence[str],
    event: NDArray[np.int64] | None,
    *,
    where: object,
) -> Design:
    """Make the columns of a time-to-event regression.

    Rows with a missing covariate are left out. A level without any event has a hazard ratio of 0,
    which no fit reaches; its rows are left out, which leaves the other coefficients exactly what
    they would be in that limit. Constant columns, and columns that are sums of others, are dropped.

    Args:
        rows: One row a knee.
        covariates: Columns; texts, 0/1 and grades become levels against the first that is left.
        event: 1 event, 0 censored, shape (n,). None keeps levels without events, for a model whose
            ridge keeps their ratio finite.
        where: Named in errors.

    Raises:
        InputError: A covariate is no column, or has too many levels.
    """
    values, notes = _values(rows, covariates, where)
    complete = values.notna().all(axis=1).to_numpy(bool)
    if lacking := int((~complete).sum()):
        notes.append(f"{lacking} knees lack a covariate and are not in the model.")
    kept, not_estimable = _drop_levels_without_events(values, complete, event)
    # of no knee no column is constant, or anything else
    candidates = _columns(values[kept]) if kept.any() else {}
    chosen, dropped = _independent(candidates)
    notes += [f"{term.label}: {reason}." for term, reason in (not_estimable | dropped).items()]
    columns = [candidates[term] for term in chosen]
    return Design(
        tuple(chosen),
        np.column_stack(columns) if columns else np.empty((int(kept.sum()), 0)),
        kept,
        not_estimable | dropped,
        tuple(notes),
    )


def _values(
    rows: pd.DataFrame, covariates: Sequence[str], where: object
) -> tuple[pd.DataFrame, list[str]]:
    """Numbers as floats, categories as texts; columns without any value are dropped and noted."""
    absent = [name for name in covariates if name not in rows]
    if absent:
        raise InputError(
            "A covariate is no column of the cohort.",
            expected="columns among " + ", ".join(rows.columns),
            found=", ".join(absent),
            where=where,
        )
    values: dict[str, pd.Series] = {}
    notes = []
    for name in dict.fromkeys(covariates):
        column = rows[name]
        if len(rows) and column.isna().all():
            notes.append(f"{name} has no values and is not in the model.")
        elif _is_category(column):
            values[name] = column.map(_label, na_action="ignore").astype(object)
            if values[name].nunique() > _MAX_LEVELS:
                raise InputError(
                    "A covariate has too many levels.",
                    expected=f"at most {_MAX_LEVELS}, or numbers",
                    found=f"{values[name].nunique()} different texts",
                    where=f"{where}, column {name}",
                )
        else:
            values[name] = column.astype(float)
    return pd.DataFrame(values, index=rows.index), notes


def _is_category(column: pd.Series) -> bool:
    if column.name in CATEGORIES or not pd.api.types.is_numeric_dtype(column):
        return True
    return set(column.dropna().unique()) <= {0, 1}


def _label(value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{value:g}"


def _drop_levels_without_events(
    values: pd.DataFrame, complete: NDArray[np.bool_], event: NDArray[np.int64] | None
) -> tuple[NDArray[np.bool_], dict[Term, str]]:
    kept, reasons = complete.copy(), dict[Term, str]()
    if event is None:
        return kept, reasons
    for name in values.select_dtypes(object):
        labels = values[name].to_numpy(object)
        for level in sorted(set(labels[complete])):
            of_level = complete & (labels == level)
            if not event[of_level].any():
                kept &= ~of_level
                knees = int(of_level.sum())
                named = rows_named(list(values.index[of_level]))
                reasons[Term(name, level, "the rest")] = (
                    f"none of its {knees} knees has the event, so they are not in the model "
                    f"({named})"
                )
    return kept, reasons


def _columns(values: pd.DataFrame) -> dict[Term, NDArray[np.float64]]:
    columns = {}
    for name in values:
        if values[name].dtype != object:
            columns[Term(name)] = values[name].to_numpy(np.float64)
            continue
        reference, *others = sorted(values[name].unique()) or [""]
        for level in others:
            indicator = (values[name] == level).to_numpy(np.float64)
            columns[Term(name, level, reference)] = indicator
    return columns


def _independent(
    columns: Mapping[Term, NDArray[np.float64]],
) -> tuple[list[Term], dict[Term, str]]:
    """Terms whose columns vary and are no linear combination of earlier ones; the others, why."""
    chosen: list[Term] = []
    dropped: dict[Term, str] = {}
    basis = np.empty((len(next(iter(columns.values()), [])), 0))
    for term, column in columns.items():
        spread = np.std(column) if len(column) else 0.0
        if spread == 0:
            dropped[term] = "constant, so it is not in the model"
            continue
        standardised = (column - column.mean()) / spread
        rest = standardised - basis @ (basis.T @ standardised)
        if np.sqrt(np.mean(rest**2)) < _COLLINEAR:
            dropped[term] = "follows from the other covariates, so it is not in the model"
            continue
        basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
        chosen.append(term)
    return chosen, dropped
