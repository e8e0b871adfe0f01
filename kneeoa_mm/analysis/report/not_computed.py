"""The section on stages of a whole analysis that the data did not allow."""

from __future__ import annotations

from kneeoa_mm.analysis.report.parts import Section, Table
from kneeoa_mm.analysis.report.runs import Run, read_document
from kneeoa_mm.analysis.report.shown import counted
from kneeoa_mm.analysis.results import NOT_COMPUTED_FILE


def not_computed_section(run: Run) -> Section:
    """What could not be computed, and why."""
    rows = read_document(run.path / NOT_COMPUTED_FILE)["not_computed"]
    return Section(
        "not_computed",
        "What could not be computed",
        run.name,
        summary=f"The data did not allow {counted(len(rows), 'stage')}.",
        tables=[
            Table(
                "Stages without a result.",
                ["Stage", "Why"],
                [[str(row["stage"]), str(row["reason"])] for row in rows],
            )
        ],
    )
