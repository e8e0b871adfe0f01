"""The attrition table as a drawing: who was enrolled, who was left out and why, who is left."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kneeoa_mm.atomic_files import atomic_path
from kneeoa_mm.cohort.audit import COHORT_FLOW
from kneeoa_mm.records import Outcome

_ROW_INCHES = 0.62
_WIDTH_INCHES = 8.0
_MAIN_X, _SIDE_X = 0.28, 0.6
_ARROW_GAP = 0.02
_FONT_POINTS = 9


def write_flow_diagram(attrition: pd.DataFrame, outcome: Outcome, path: Path) -> Path:
    """Draw the flow of the cohort and of one outcome.

    Args:
        attrition: ``flow``, ``kind``, ``step``, ``knees`` and ``subjects``.
        outcome: Which outcome's knees follow those of the cohort.
        path: File to write; its suffix (``.svg``, ``.png``) is the format.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cohort = attrition[attrition["flow"] == COHORT_FLOW]
    of_outcome = attrition[(attrition["flow"] == outcome) & (attrition["kind"] != "start")]
    rows = pd.concat([cohort, of_outcome]).to_dict("records")
    # text as text and a fixed salt: the drawing can be searched, and is the same each time
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "kneeoa-mm"}):
        figure = Figure(figsize=(_WIDTH_INCHES, _ROW_INCHES * (len(rows) + 0.5)))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 1), ylim=(len(rows), -0.6))
        axes.axis("off")
        last = 0
        for y, row in enumerate(rows):
            is_removed = row["kind"] == "removed"
            x = _SIDE_X if is_removed else _MAIN_X
            axes.text(
                x,
                y,
                _label(row, outcome),
                ha="left" if is_removed else "center",
                va="center",
                bbox=_box(row["kind"]),
                fontsize=_FONT_POINTS,
            )
            if is_removed:
                axes.annotate("", (_SIDE_X - _ARROW_GAP, y), (_MAIN_X, y), arrowprops=_ARROW)
            elif y:
                axes.annotate("", (_MAIN_X, y - 0.3), (_MAIN_X, last + 0.3), arrowprops=_ARROW)
            last = last if is_removed else y
        with atomic_path(path) as temporary:
            metadata = {"Date": None} if path.suffix == ".svg" else {}
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
    return path


_ARROW = {"arrowstyle": "-|>", "color": "0.35", "shrinkA": 0, "shrinkB": 0}


def _box(kind: str) -> dict[str, object]:
    face = {"removed": "white", "event": "#f6e3d3"}.get(kind, "#e4ecf4")
    return {"boxstyle": "round,pad=0.45", "facecolor": face, "edgecolor": "0.35"}


def _label(row: dict[str, object], outcome: Outcome) -> str:
    step = str(row["step"]).replace("_", " ")
    if row["flow"] == outcome and row["kind"] == "left":
        step = f"{outcome} {step}"
    if row["kind"] == "event":
        step = f"{outcome} is 1"
    return f"{step}\n{row['knees']:,} knees, {row['subjects']:,} people"
