"""Figures of models beside each other: ranking, calibration, what deciding by them gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kneeoa_mm.analysis.figure_style import CATEGORICAL, INK, MUTED, styled

Array = NDArray[np.float64]
_DASHES = (0, (4, 1.5))
_PANELS_ABREAST = 4


class Curve(NamedTuple):
    """What is drawn of one model.

    Attributes:
        false_positive: Grid of the ROC curve.
        sensitivity: On that grid.
        area: Under it.
        net_benefit: At the thresholds of the decision curve; None where it has no meaning.
        is_simple: Drawn with dashes.
    """

    false_positive: Array
    sensitivity: Array
    area: float | None
    net_benefit: Sequence[float] | None
    is_simple: bool


@styled
def comparison_curves(
    curves: Mapping[str, Curve],
    *,
    title: str,
    thresholds: Sequence[float] = (),
    treat_all: Sequence[float] = (),
) -> Figure:
    """ROC curves of all models, and beside them their decision curves.

    Args:
        curves: Name to what is drawn.
        title: The outcome in words.
        thresholds: Of the decision curves; none leaves that panel out.
        treat_all: Net benefit of treating everybody, at the thresholds.
    """
    panels = 2 if len(thresholds) else 1
    figure = Figure(figsize=(4.4 * panels + 1.9, 4.1), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, panels))
    axes[0].plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    handles = []
    for (name, curve), colour in zip(curves.items(), cycle(CATEGORICAL), strict=False):
        style = {"color": colour, "linestyle": _DASHES if curve.is_simple else "-"}
        (line,) = axes[0].plot(curve.false_positive, curve.sensitivity, **style)
        area = "" if curve.area is None else f"   {curve.area:.3f}"
        line.set_label(f"{name}{area}")
        handles.append(line)
        if panels == 2 and curve.net_benefit is not None:
            axes[1].plot(thresholds, curve.net_benefit, **style)
    axes[0].set(title=f"{title}: ROC", xlabel="1 - specificity", ylabel="Sensitivity")
    axes[0].set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    if panels == 2:
        _finish_decisions(axes[1], thresholds, treat_all)
    figure.legend(
        handles=handles, loc="outside right upper", title="Model   AUROC", alignment="left"
    )
    return figure


@styled
def calibration_panels(bins: Mapping[str, Mapping[str, Sequence[float]]], *, title: str) -> Figure:
    """Calibration curves, one panel a model, all on the same axes.

    Args:
        bins: Name to its bins, as ``figures.reliability_bins`` has them.
        title: The outcome in words.
    """
    rows = -(-len(bins) // _PANELS_ABREAST)
    abreast = min(len(bins), _PANELS_ABREAST)
    figure = Figure(figsize=(2.5 * abreast + 0.3, 2.6 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, abreast, sharex=True, sharey=True, squeeze=False)
    top = 1.05 * max(max(*each["high"], *each["mean_probability"]) for each in bins.values())
    for axes, (name, each) in zip(grid.flat, bins.items(), strict=False):
        axes.plot([0, top], [0, top], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        observed = np.asarray(each["observed"])
        axes.errorbar(
            each["mean_probability"],
            observed,
            yerr=[observed - each["low"], each["high"] - observed],
            color=CATEGORICAL[0],
            marker="o",
            markersize=3,
            linewidth=1.2,
            elinewidth=0.9,
        )
        axes.set_title(name, fontsize=8)
        axes.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    # the panel above an empty place is the last of its column, and tells the numbers of the axis
    for axes, above in zip(grid.flat[len(bins) :], grid.flat[len(bins) - abreast :], strict=False):
        axes.set_visible(False)
        above.tick_params(labelbottom=True)
    figure.suptitle(f"{title}: calibration", fontsize=10, fontweight="bold", x=0.01, ha="left")
    figure.supxlabel("Predicted risk", fontsize=9)
    figure.supylabel("Observed share (95 % CI)", fontsize=9)
    return figure


@styled
def decision_curve(
    net_benefit: Sequence[float],
    treat_all: Sequence[float],
    *,
    thresholds: Sequence[float],
    title: str,
) -> Figure:
    """Net benefit of one model at each threshold, beside that of treating all and none."""
    figure = Figure(figsize=(4.6, 4.1), layout="constrained")
    axes = figure.subplots()
    axes.plot(thresholds, net_benefit, color=CATEGORICAL[0], label="by the model")
    _finish_decisions(axes, thresholds, treat_all)
    axes.set_title(title)
    return figure


def _finish_decisions(axes: Any, thresholds: Sequence[float], treat_all: Sequence[float]) -> None:
    axes.plot(thresholds, treat_all, color=MUTED, linewidth=1.1, label="treat all")
    axes.axhline(0, color=INK, linewidth=1.1, label="treat none")
    # of a rare event a good model gains far more than treating all
    top = max(0.01, *(float(np.max(line.get_ydata())) for line in axes.lines))
    # treating all costs more than the axis is worth soon after the prevalence
    axes.set(title="Decision curve", xlabel="Risk at which to treat", ylabel="Net benefit")
    axes.set(xlim=(0, max(thresholds)), ylim=(-0.25 * top, 1.08 * top))
    axes.legend(loc="upper right")
