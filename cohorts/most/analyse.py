"""Analysis of the Multicenter Osteoarthritis Study: released tables in, the paper's numbers out.

python cohorts/most/analyse.py TABLES --out results [--run image=runs/image fused=runs/fused]
"""

from collections.abc import Mapping
from pathlib import Path

from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.workflows.cohort_analysis import analyse_cohort, arguments, told
from kneeoa_mm.workflows.compared_runs import parse_runs


def analyse(tables: Path, out: Path, runs: Mapping[str, Path], *, folds: int = 5) -> None:
    """Make the cohort's analysis; there is no joint-space width, so structure is the KL grade.

    Args:
        tables: Folder with the release; README.md lists the files.
        out: New folder.
        runs: Name to run folder of ``train-jsl``.
        folds: Folds of the cohort.
    """
    told(analyse_cohort(tables, out, spec=read_cohort_spec("most"), runs=runs, folds=folds))


if __name__ == "__main__":
    asked = arguments(__doc__)
    analyse(asked.tables, asked.out, parse_runs(asked.run))
