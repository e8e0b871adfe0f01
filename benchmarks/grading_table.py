"""The table of graders in docs/results.md, out of what ``evaluate`` wrote of each run.

    python benchmarks/grading_table.py docs/results/kl-*/metrics.json

One row a run, named by its folder. A test holds the table in the docs to this one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COLUMNS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy (mean recall)",
    "precision": "precision, macro",
    "macro_f1": "macro F1",
    "qwk": "quadratic weighted kappa",
    "mae": "mean absolute error, grades",
    "auroc_kl2": "AUROC, KL 2 or more",
    "ece": "expected calibration error",
}


def table(files: Iterable[Path]) -> str:
    """Markdown: a row a file, each figure with its interval."""
    lines = [["run", "knees (persons)", *COLUMNS.values()], ["---"] * (len(COLUMNS) + 2)]
    lines += [_row(path.parent.name, json.loads(path.read_text("utf-8"))) for path in files]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _row(name: str, document: dict[str, Any]) -> list[str]:
    counts = document["counts"]["kl"]
    figures = (document["kl"][column] for column in COLUMNS)
    cells = [f"{f['value']:.3f}<br>{f['ci_low']:.3f} to {f['ci_high']:.3f}" for f in figures]
    calibration = document["provenance"]["source_provenance"].get("calibration", "none")
    if calibration == "none":
        # the last column compares with no calibrated run's
        cells[-1] += "<br>uncalibrated"
    return [
        f"`{name.removeprefix('kl-')}`",
        f"{counts['knees']:,} ({counts['persons']:,})",
        *cells,
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", nargs="+", type=Path, help="metrics.json of each run.")
    print(table(parser.parse_args().metrics))
