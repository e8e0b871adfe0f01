"""The flow diagram: who entered, who left and why, who is left (CONSORT's form)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from kneeoa_mm.analysis.figure_style import INK, MUTED, styled
from kneeoa_mm.analysis.report.shown import plain
from kneeoa_mm.analysis.report.words import title_of

_LINE_INCHES, _GAP_INCHES, _PAD_INCHES = 0.17, 0.3, 0.11
_WIDTH_INCHES, _MAIN_X, _SIDE_X = 7.0, 1.6, 3.4
_MAX_CHARACTERS = 70
_FACES = {"main": "#e6eff3", "side": "#ffffff", "event": "#fbf1e2"}


@dataclass(frozen=True)
class Box:
    """A box of the diagram; ``side`` ones list those who left."""

    place: str
    lines: tuple[str, ...]

    @property
    def height(self) -> float:
        """Inches."""
        return len(self.lines) * _LINE_INCHES + 2 * _PAD_INCHES


def boxes_of(attrition: pd.DataFrame, flow: str, outcome: str | None) -> list[Box]:
    """The boxes of the cohort's flow and, where named, of the knees with one outcome.

    Args:
        attrition: Texts ``flow``, ``kind``, ``step``, ``knees`` and ``subjects``, in order.
        flow: The name of the cohort's own flow.
        outcome: The outcome whose knees follow.
    """
    rows = attrition[attrition["flow"] == flow].to_dict("records")
    if outcome is not None:
        of_outcome = attrition[attrition["flow"] == outcome]
        rows += of_outcome[of_outcome["kind"] != "start"].to_dict("records")
    boxes: list[Box] = []
    left: list[str] = []
    for row in rows:
        counts = f"{_number(row['knees'])} knees, {_number(row['subjects'])} persons"
        step = str(plain(row["step"]))[:_MAX_CHARACTERS]
        if row["kind"] == "removed":
            if row["knees"] != "0":
                left.append(f"{_number(row['knees'])}  {step}")
            continue
        if left:
            boxes.append(Box("side", ("Left out, knees:", *left)))
            left = []
        if row["flow"] == outcome:
            title = title_of(str(outcome))
            step = f"{title}: has it" if row["kind"] == "event" else f"{title}: known"
        boxes.append(
            Box(
                "event" if row["kind"] == "event" else "main", (step[:1].upper() + step[1:], counts)
            )
        )
    return boxes


def _number(text: str) -> str:
    return f"{int(text):,}" if text.isdecimal() else text


@styled
def flow_diagram(boxes: Sequence[Box]) -> Figure:
    """Draw boxes from the top down, those who left at the right of the arrow."""
    height = sum(box.height + _GAP_INCHES for box in boxes)
    figure = Figure(figsize=(_WIDTH_INCHES, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH_INCHES), ylim=(height, 0))
    axes.axis("off")
    y, last = _GAP_INCHES / 2, None
    for box in boxes:
        middle = y + box.height / 2
        is_side = box.place == "side"
        axes.text(
            _SIDE_X if is_side else _MAIN_X,
            middle,
            "\n".join(box.lines),
            ha="left" if is_side else "center",
            va="center",
            fontsize=9,
            color=INK,
            linespacing=1.3,
            bbox={
                "boxstyle": "square,pad=0.6",
                "facecolor": _FACES[box.place],
                "edgecolor": MUTED,
                "linewidth": 0.8,
            },
        )
        if is_side:
            _arrow(axes, (_MAIN_X, middle), (_SIDE_X - 0.08, middle))
        else:
            if last is not None:
                _arrow(axes, (_MAIN_X, last), (_MAIN_X, y))
            last = y + box.height
        y += box.height + _GAP_INCHES
    return figure


def _arrow(axes: object, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": MUTED, "shrinkA": 0, "shrinkB": 0, "linewidth": 1}
    axes.annotate("", end, start, arrowprops=style)  # type: ignore[attr-defined]
