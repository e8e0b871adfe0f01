"""Analysis of the synthetic cohort: tables in, Table 1, a check against the truth and survival out.

kneeoa-mm synthesize data --subjects 400 --seed 0
python cohorts/synthetic/analyse.py data --out results
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from kneeoa_mm.analysis.survival import survive
from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort.summary import baseline_table
from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.records import Outcome
from kneeoa_mm.tables import COHORT, read_table


def analyse(data: Path, out: Path) -> None:
    """Build the cohort of ``data``, describe it, check it and estimate when its outcomes happen.

    Args:
        data: Output of ``kneeoa-mm synthesize``.
        out: New folder; gets ``cohort/``, ``table_1.csv`` and ``survival/<outcome>/``.
    """
    result = build_cohort(data / "tables", out / "cohort", spec=read_cohort_spec("synthetic"))
    for note in result.notes:
        print(note)
    print(pd.read_csv(result.outputs["attrition"]).to_string(index=False), end="\n\n")

    cohort = read_table(result.outputs["cohort"], COHORT)
    table_1 = baseline_table(cohort, by=Outcome.JSL_48M)
    table_1.to_csv(out / "table_1.csv")
    print(table_1.to_string(), end="\n\n")

    truth = pd.read_parquet(data / "truth" / "knees.parquet")
    joined = cohort.merge(truth, on="knee_id", suffixes=("", "_true"))
    known = joined[joined["jsl_48m"].notna()]
    agree = known["jsl_48m"].eq(known["jsl_48m_true"]).sum()
    print(f"jsl_48m equals the truth in {agree} of {len(known)} knees that have a value\n")

    for outcome in Outcome:
        survival = survive(cohort=out / "cohort", out=out / "survival" / outcome, outcome=outcome)
        print(f"{outcome}: {survival.out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="output of kneeoa-mm synthesize")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the results")
    arguments = parser.parse_args()
    analyse(arguments.data, arguments.out)
