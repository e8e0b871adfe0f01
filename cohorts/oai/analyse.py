"""Analysis of the Osteoarthritis Initiative: released tables in, Table 1 and survival out.

python cohorts/oai/analyse.py TABLES --out results
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


def analyse(tables: Path, out: Path) -> None:
    """Build the cohort, describe it by outcome and estimate when its outcomes happen.

    Args:
        tables: Folder with the unpacked release; README.md lists the files.
        out: New folder; gets ``cohort/``, ``table_1_<outcome>.csv`` and ``survival/<outcome>/``.
    """
    result = build_cohort(tables, out / "cohort", spec=read_cohort_spec("oai"))
    for note in result.notes:
        print(note)
    print(pd.read_csv(result.outputs["attrition"]).to_string(index=False), end="\n\n")

    cohort = read_table(result.outputs["cohort"], COHORT)
    for outcome in Outcome:
        table_1 = baseline_table(cohort, by=outcome)
        table_1.to_csv(out / f"table_1_{outcome}.csv")
        print(f"{outcome}\n{table_1.to_string()}", end="\n\n")
        survive(cohort=out / "cohort", out=out / "survival" / outcome, outcome=outcome)

    # Site is the five clinics' letter: one curve a clinic shows whether one of them stands apart
    if cohort["site"].notna().any():
        survive(
            cohort=out / "cohort",
            out=out / "survival" / "tkr_by_site",
            outcome=Outcome.TKR,
            group="site",
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path, help="folder with the unpacked release")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the results")
    arguments = parser.parse_args()
    analyse(arguments.tables, arguments.out)
