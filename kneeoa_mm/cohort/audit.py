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
from kneeoa_mm.errors import ConfigError, LeakError
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
            is_late_file = any(_from_baseline(code, spec) > 0 for code in chosen)
        for name in _ALL_FACTORS:
            column = table.columns[name].column if name in table.columns else ""
            visit = _visit_of(column, spec)
            is_late = visit is not None and _from_baseline(visit, spec) > 0
            if column and (is_late or is_late_file):
                faults.append(f"{name} from {column} of {table.file}")
    return faults


def _visit_of(column: str, spec: CohortSpec) -> str | None:
    """Code of the visit with which the name of a column begins."""
    letters = re.sub(r"\d", "", spec.baseline_visit)
    found = re.match(rf"{letters}(\d+|{{visit}})", column, re.IGNORECASE)
    return found.group(0) if found else None


def _from_baseline(code: str, spec: CohortSpec) -> int:
    """Below 0 for a visit before the baseline's, above 0 for one after it.

    Codes count up with time, also those that `visits` leaves out; whatever has no number is taken
    to be later.
    """
    if code.casefold() == spec.baseline_visit.casefold():
        return 0
    digits, own = visit_digits(code), visit_digits(spec.baseline_visit)
    return int(digits) - int(own) if digits and own else 1


def refuse_unsaid_landmark(spec: CohortSpec) -> None:
    """Raise where the baseline is no visit of enrolment, and nobody says how long after it is.

    Raises:
        ConfigError: Columns or rows are of earlier visits, but ``landmark_months`` is 0.
    """
    named = {
        visit
        for table in spec.tables.values()
        for column in table.columns.values()
        if (visit := _visit_of(column.column, spec)) is not None
    }
    chosen = {
        code
        for table in spec.tables.values()
        for name, codes in table.rows.items()
        if name.casefold() == "visit"
        for code in codes
    }
    earlier = sorted(code for code in named | chosen if _from_baseline(code, spec) < 0)
    if earlier and not spec.landmark_months:
        raise ConfigError(
            "The baseline is not the visit of enrolment.",
            expected="landmark_months, the months from enrolment to the baseline visit: days and "
            "last contacts of the sources count from enrolment",
            found=f"{spec.baseline_visit} at 0 months, and columns of {', '.join(earlier)}",
            where=f"cohort {spec.name}",
        )


def refuse_late_factors(spec: CohortSpec) -> None:
    """Raise where a clinical factor is measured after baseline.

    Raises:
        LeakError: With every such column.
    """
    faults = late_factors(spec)
    if faults:
        raise LeakError(
            "Clinical factors must be measured at baseline.",
            expected=f"columns of visit {spec.baseline_visit} or earlier",
            found="; ".join(faults),
            where=f"cohort {spec.name}",
            fix="leave them out; or, for a landmark analysis such as with hka_deg at 12 months, "
            "say landmark_months: 12 and count `visits` from there (docs/how-to/oai.md)",
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
