"""The one style of all figures, and how a figure becomes a file.

Colours are Okabe and Ito's for categories and viridis for grades, so that they survive colour
blindness and a black-and-white printer. Nothing here touches pyplot's global state.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from kneeoa_mm.atomic_files import atomic_path

INK, MUTED, RULE = "#1c2733", "#66727f", "#dde3e8"
CATEGORICAL = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DPI = 200

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    # labels come from tables, in which a dollar is a dollar
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    # the same input gives the same file
    "svg.hashsalt": "kneeoa-mm",
}

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the one style."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


def save(figure: Figure, folder: Path, name: str) -> dict[str, Path]:
    """Write ``folder/name.png`` (200 dpi) and ``folder/name.svg``, and return role to path."""
    written = {}
    for suffix, content in rendered(figure).items():
        path = folder / f"{name}.{suffix}"
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        written[f"{name}_{suffix}"] = path
    return written


def rendered(figure: Figure) -> dict[str, bytes]:
    """The figure as ``png`` (200 dpi) and ``svg``, neither with a date."""
    contents = {}
    with matplotlib.rc_context(_STYLE):
        # lay out once, not for each format
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            stream = io.BytesIO()
            figure.savefig(stream, format=suffix, dpi=_DPI, metadata=metadata)
            contents[suffix] = stream.getvalue()
    return contents


def colours_of(labels: Sequence[str], *, ordered: bool) -> list[Any]:
    """One colour a label: along viridis where the labels have an order."""
    if not ordered:
        return [CATEGORICAL[i % len(CATEGORICAL)] for i in range(len(labels))]
    ramp = matplotlib.colormaps["viridis"]
    return [ramp(x) for x in np.linspace(0.85, 0.08, max(len(labels), 2))][: len(labels)]
