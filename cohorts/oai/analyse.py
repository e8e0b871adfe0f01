"""Analysis of the Osteoarthritis Initiative: released tables in, the paper's numbers out.

python cohorts/oai/analyse.py TABLES --out results [--run image=runs/image fused=runs/fused]
"""

from collections.abc import Mapping
from pathlib import Path

from kneeoa_mm.analysis.survival import survive
from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.records import Outcome
from kneeoa_mm.tables import COHORT, read_table
from kneeoa_mm.workflows.cohort_analysis import analyse_cohort, arguments, told
from kneeoa_mm.workflows.compared_runs import parse_runs


def analyse(tables: Path, out: Path, runs: Mapping[str, Path]) -> None:
    """Make the cohort's analysis, and replacement by clinic and on the scale of age.

    Args:
        tables: Folder with the unpacked release; README.md lists the files.
        out: New folder.
        runs: Name to run folder of ``train-jsl``.
    """
    told(analyse_cohort(tables, out, spec=read_cohort_spec("oai"), runs=runs))
    cohort = read_table(out / "cohort" / "cohort.parquet", COHORT)
    if cohort["tkr_event_observed"].eq(1).any():
        # site is the five clinics' letter: one curve a clinic shows whether one stands apart
        if cohort["site"].notna().any():
            survive(
                out / "cohort", out / "survival" / "tkr_by_site", outcome=Outcome.TKR, group="site"
            )
        # surgeons heed age: is what goes with replacement the same among people as old?
        survive(
            out / "cohort", out / "survival" / "tkr_by_age", outcome=Outcome.TKR, time_scale="age"
        )


if __name__ == "__main__":
    asked = arguments(__doc__)
    analyse(asked.tables, asked.out, parse_runs(asked.run))
