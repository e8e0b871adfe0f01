"""The tables of progression models in docs/results.md, out of ``compare`` and ``survival``.

    python benchmarks/progression_table.py docs/results/progression-mendeley/compare.json
    python benchmarks/progression_table.py docs/results/progression-mendeley/survival.json

One row a model, and one a difference. A test holds the tables in the docs to these.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

COLUMNS = {
    "auroc": "AUROC",
    "auroc_kl_1_to_3": "AUROC, KL 1 to 3",
    "auroc_within_kl_1_to_3": "AUROC among knees of one grade, KL 1 to 3",
    "auprc": "average precision",
    "brier": "Brier score",
}


OVER_TIME = {"uno_c": "Uno's C", "integrated_brier": "integrated Brier score"}


def table(file: Path) -> str:
    """Markdown: a row a model, then a row a difference, each figure with its interval."""
    document = json.loads(file.read_text("utf-8"))
    return _over_time(document["prognosis"]) if "prognosis" in document else _compared(document)


def _over_time(document: dict[str, Any]) -> str:
    models = {name: each for name, each in document["models"].items() if each["reason"] is None}
    looks = [f"AUROC at {months:g} months" for months in document["horizons"]]
    lines = [["", *OVER_TIME.values(), *looks], ["---"] * (1 + len(OVER_TIME) + len(looks))]
    for name, figures in models.items():
        by_months = figures.get("auroc_by_months", [])
        cells = [_cell(figure, ".3f") for figure in by_months] or [""] * len(looks)
        lines.append([f"`{name}`", *_cells(figures, list(OVER_TIME), ".3f"), *cells])
    for pair, figures in document["differences"].items():
        first, second = pair.split("-")
        cells = _cells(figures, list(OVER_TIME), "+.3f")
        lines.append([f"`{first}` less `{second}`", *cells, *[""] * len(looks)])
    return _markdown(lines)


def _compared(document: dict[str, Any]) -> str:
    models, differences = document["models"], document["differences"]
    columns = [name for name in COLUMNS if any(name in figures for figures in models.values())]
    lines = [["", *(COLUMNS[name] for name in columns)], ["---"] * (len(columns) + 1)]
    for name, figures in models.items():
        lines.append([f"`{name}`: {document['inputs'][name]}", *_cells(figures, columns, ".3f")])
    for pair, figures in differences.items():
        first, second = pair.split("-")
        lines.append([f"`{first}` less `{second}`", *_cells(figures, columns, "+.3f")])
    return _markdown(lines)


def _markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(figures: dict[str, Any], columns: list[str], style: str) -> list[str]:
    return [_cell(figures[name], style) if name in figures else "" for name in columns]


def _cell(figure: dict[str, Any], style: str) -> str:
    low, high = figure["ci_low"], figure["ci_high"]
    interval = "" if low is None else f"<br>{low:{style}} to {high:{style}}"
    return f"{figure['value']:{style}}{interval}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("compared", nargs="+", type=Path, help="compare.json or survival.json.")
    print("\n\n".join(table(path) for path in parser.parse_args().compared))
