"""Analysis of the synthetic cohort, and a check of it against the truth.

kneeoa-mm synthesize data --subjects 400 --seed 0
python cohorts/synthetic/analyse.py data --out results [--run image=runs/image]
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.schemas import COHORT
from kneeoa_mm.tables import read_table
from kneeoa_mm.workflows.cohort_analysis import analyse_cohort, run_script, told


def analyse(data: Path, out: Path, runs: Mapping[str, Path], **options: int) -> None:
    """Make the cohort's analysis, and say in how many knees ``jsl_48m`` is the truth.

    Args:
        data: Output of ``kneeoa-mm synthesize``.
        out: New folder.
        runs: Name to run folder of ``train-jsl``.
        options: Of ``analyse_cohort``: ``folds``, ``n_boot`` and ``seed``.
    """
    spec = read_cohort_spec("synthetic")
    told(analyse_cohort(data / "tables", out, spec=spec, runs=runs, **options))
    cohort = read_table(out / "cohort" / "cohort.parquet", COHORT)
    truth = pd.read_parquet(data / "truth" / "knees.parquet")
    known = cohort.merge(truth, on="knee_id", suffixes=("", "_true")).dropna(subset="jsl_48m")
    agree = known["jsl_48m"].eq(known["jsl_48m_true"]).sum()
    print(f"\njsl_48m equals the truth in {agree} of {len(known)} knees that have a value")


if __name__ == "__main__":
    run_script(analyse, __doc__)
