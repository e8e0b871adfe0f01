"""Analysis of the graded collection with times to KL progression.

python cohorts/mendeley/analyse.py COLLECTION --out results [--run image=runs/image]
"""

from collections.abc import Mapping
from pathlib import Path

from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.workflows.cohort_analysis import analyse_cohort, run_script, told


def analyse(tables: Path, out: Path, runs: Mapping[str, Path], **options: int) -> None:
    """Make the collection's analysis: KL progression by grade, the only factor that it has.

    Args:
        tables: Folder with the table and the images; README.md shows the lay-out.
        out: New folder.
        runs: Name to run folder of ``train-jsl``.
        options: Of ``analyse_cohort``: ``folds``, ``n_boot`` and ``seed``.
    """
    told(analyse_cohort(tables, out, spec=read_cohort_spec("mendeley"), runs=runs, **options))


if __name__ == "__main__":
    run_script(analyse, __doc__)
