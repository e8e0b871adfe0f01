"""Analysis of the Multicenter Osteoarthritis Study: released tables in, the paper's numbers out.

python cohorts/most/analyse.py TABLES --out results [--run image=runs/image fused=runs/fused]
"""

from collections.abc import Mapping
from pathlib import Path

from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.workflows.cohort_analysis import analyse_cohort, run_script, told


def analyse(tables: Path, out: Path, runs: Mapping[str, Path], **options: int) -> None:
    """Make the cohort's analysis; there is no joint-space width, so structure is the KL grade.

    Args:
        tables: Folder with the release; README.md lists the files.
        out: New folder.
        runs: Name to run folder of ``train-jsl``.
        options: Of ``analyse_cohort``: ``folds``, ``n_boot`` and ``seed``.
    """
    told(analyse_cohort(tables, out, spec=read_cohort_spec("most"), runs=runs, **options))


if __name__ == "__main__":
    run_script(analyse, __doc__)
