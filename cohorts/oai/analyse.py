"""Analysis of the Osteoarthritis Initiative: released tables in, the paper's numbers out.

python cohorts/oai/analyse.py TABLES --out results [--run image=runs/image fused=runs/fused]
"""

from collections.abc import Mapping
from pathlib import Path

from kneeoa_mm.analysis.survival import survive
from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.records import Outcome
from kneeoa_mm.schemas import COHORT
from kneeoa_mm.tables import read_table
from kneeoa_mm.workflows.cohort_analysis import analyse_cohort, run_script, told


def analyse(tables: Path, out: Path, runs: Mapping[str, Path], **options: int) -> None:
    """Make the cohort's analysis, and replacement by clinic and on the scale of age.

    Args:
        tables: Folder with the unpacked release; README.md lists the files.
        out: New folder.
        runs: Name to run folder of ``train-jsl``.
        options: Of ``analyse_cohort``: ``folds``, ``n_boot`` and ``seed``.
    """
    told(analyse_cohort(tables, out, spec=read_cohort_spec("oai"), runs=runs, **options))
    cohort = read_table(out / "cohort" / "cohort.parquet", COHORT)
    if not cohort["tkr_event_observed"].eq(1).any():
        return
    drawn = {name: options[name] for name in ("n_boot", "seed") if name in options}
    source, folder = out / "cohort", out / "survival"
    # site is the five clinics' letter: one curve a clinic shows whether one stands apart
    if cohort["site"].notna().any():
        survive(source, folder / "tkr_by_site", outcome=Outcome.TKR, group="site", **drawn)
    # surgeons heed age: is what goes with replacement the same among people as old?
    survive(source, folder / "tkr_by_age", outcome=Outcome.TKR, time_scale="age", **drawn)


if __name__ == "__main__":
    run_script(analyse, __doc__)
