"""Who is in the cohort and who is not, step by step; and refusal of what would leak."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import pandas as pd

from kneeoa_mm.cohort.columns import FACTORS, OPTIONAL_FACTORS
from kneeoa_mm.cohort.history import Reason
from kneeoa_mm.cohort_spec import CohortSpec, visit_digits
from kneeoa_mm.errors import LeakError
from kneeoa_mm.records import Outcome

COHORT_FLOW = "cohort"


_PROJECT_NAMES = ("readprj", "reading_project", "readproject", "read_project")
_ALL_FACTORS = (*FACTORS, *OPTIONAL_FACTORS)


def late_factors(spec: CohortSpec) -> list[str]:
    """Clinical factors that are measured after baseline, each with its column and file.

    What is known only later cannot predict, and may be the outcome itself. The visit shows in the
    name of the column (V06BMI, V99ERKDAYS) or of the file (AllClinical06); in a table that holds
    all visits, ``rows`` must choose those of the baseline.
    """
    letters = re.sub(r"\d", "", spec.baseline_visit)
    later = {visit_digits(code) for code, months in spec.visits.items() if months > 0}
    faults = []
    for table in spec.tables.values():
        chosen = {name.casefold(): codes for name, codes in table.rows.items()}.get("visit")
        ending = re.search(r"(?<!\d)\d+$", PurePath(table.file).stem)
        is_late_file = (
            "{visit}" in table.file
            or table.has_visits_in_rows
            or (ending is not None and ending.group() in later)
        )
        if chosen is not None:
            is_late_file = any(code != spec.baseline_visit for code in chosen)
        for name in _ALL_FACTORS:
            column = table.columns[name].column if name in table.columns else ""
            visit = re.match(rf"{letters}(\d+|{{visit}})", column, re.IGNORECASE)
            is_late = visit and visit.group(0).casefold() != spec.baseline_visit.casefold()
            if column and (is_late or is_late_file):
                faults.append(f"{name} from {column} of {table.file}")
    return faults


def refuse_late_factors(spec: CohortSpec) -> None:
    """Raise where a clinical factor is measured after baseline.

    Raises:
        LeakError: With every such column.
    """
    faults = late_factors(spec)
    if faults:
        raise LeakError(
            "Clinical factors must be measured at baseline.",
            expected=f"columns of visit {spec.baseline_visit}",
            found="; ".join(faults),
            where=f"cohort {spec.name}",
            fix="leave them out; or, for a landmark analysis such as with hka_deg at 12 months, "
            "give that visit 0 months in `visits` and count all others from there",
        )


def refuse_projects(spec: CohortSpec) -> None:
    """Raise where a clinical factor is the reading project, which tells who was selected.

    Raises:
        LeakError: With every such column.
    """
    faults = [
        f"{name} from {column.column} of {table.file}"
        for table in spec.tables.values()
        for name, column in table.columns.items()
        if name in _ALL_FACTORS and column.column.casefold() in _PROJECT_NAMES
    ]
    if faults:
        raise LeakError(
            "The reading project is no clinical factor.",
            expected="columns that were measured on the person",
            found="; ".join(faults),
            where=f"cohort {spec.name}",
            fix="map it to reading_project, which stays out of the cohort table",
        )


class Attrition:
    """The steps from everybody enrolled to the knees that have a value.

    Each row counts a set of knees and their subjects: ``start`` and ``left`` the whole at that
    point, ``removed`` what a step took away, ``event`` the cases among those left. Within a flow,
    start less all removed is left.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def count(self, flow: str, kind: str, step: str, knees: pd.DataFrame) -> None:
        """Add one row.

        Args:
            flow: ``cohort``, or the outcome whose knees are counted.
            kind: ``start``, ``removed``, ``left`` or ``event``.
            step: What the set is.
            knees: Its rows.
        """
        self._rows.append(
            {
                "flow": flow,
                "kind": kind,
                "step": step,
                "knees": len(knees),
                "subjects": knees["subject_id"].nunique(),
            }
        )

    def select(
        self, knees: pd.DataFrame, steps: Sequence[tuple[str, pd.Series]], *, name: str
    ) -> pd.DataFrame:
        """Remove knees step by step, counting each.

        Args:
            knees: Everybody.
            steps: Name of a step, and which rows of ``knees`` it removes.
            name: What the knees left are called.

        Returns:
            The knees left.
        """
        self.count(COHORT_FLOW, "start", "enrolled", knees)
        left = knees
        for step, removed in steps:
            gone = removed.reindex(left.index)
            self.count(COHORT_FLOW, "removed", step, left[gone])
            left = left[~gone]
        self.count(COHORT_FLOW, "left", name, left)
        return left

    def outcome(self, cohort: pd.DataFrame, outcome: Outcome) -> None:
        """Count who has a value of ``outcome``, who has none and why, and the cases."""
        self.count(outcome, "start", "in the cohort", cohort)
        reasons = cohort[f"{outcome}_reason"]
        for reason in Reason:
            if reasons.eq(reason).any():
                self.count(outcome, "removed", reason, cohort[reasons.eq(reason)])
        labelled = cohort[cohort[outcome].notna()]
        self.count(outcome, "left", "has a value", labelled)
        self.count(outcome, "event", "value is 1", labelled[labelled[outcome].eq(1)])

    def table(self) -> pd.DataFrame:
        """All rows counted so far."""
        return pd.DataFrame(self._rows, columns=["flow", "kind", "step", "knees", "subjects"])
