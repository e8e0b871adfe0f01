"""Figures of times to events: pure functions from data to a figure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from kneeoa_mm.analysis.figure_style import CATEGORICAL, MUTED, colours_of, styled
from kneeoa_mm.analysis.figures import draw_forest
from kneeoa_mm.analysis.nonparametric import IncidenceCurve
from kneeoa_mm.analysis.turnbull import IntervalCurve
from kneeoa_mm.records import Estimate

Curve = IncidenceCurve | IntervalCurve
_MONTHS_BETWEEN_TICKS = 12
_PART_BETWEEN_LIMITS = 0.007
"""Of the width of the figure, so that limits of groups at one visit stand beside each other."""


@styled
def incidence(
    curves: Mapping[str, Curve], *, title: str, ylabel: str, group: str, ordered: bool
) -> Figure:
    """Cumulative incidence of groups with 95 % limits and the numbers at risk.

    A dashed line joins two visits between which it is only known to rise.

    Incidence is drawn upwards from 0 (Pocock et al. 2002, Lancet 359:1686): with rare events the
    usual survival curves either waste the plot or need a cut axis.
    """
    months = max(float(curve.follow_up_months[-1]) for curve in curves.values())
    step = _MONTHS_BETWEEN_TICKS * max(1, round(months / _MONTHS_BETWEEN_TICKS / 8))
    ticks = np.arange(0, months + 1, step).tolist()
    rows = len(curves)
    figure = Figure(figsize=(6.4, 3.6 + 0.2 * rows), layout="constrained")
    axes, table = figure.subplots(2, sharex=True, height_ratios=[3.1, 0.2 * rows + 0.25])
    top = 0.0
    colours = colours_of(list(curves), ordered=ordered)
    for place, ((name, curve), colour) in enumerate(zip(curves.items(), colours, strict=True)):
        if isinstance(curve, IncidenceCurve):
            top = max(top, _draw_steps(axes, curve, name, colour))
        else:
            aside = _PART_BETWEEN_LIMITS * months * (place - (rows - 1) / 2)
            top = max(top, _draw_intervals(axes, curve, name, colour, aside))
    axes.set(title=title, ylabel=ylabel, xlim=(0, months * 1.02), ylim=(0, min(1, top * 1.08)))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.tick_params(labelbottom=True)
    axes.set_xlabel("Months since baseline")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.legend(loc="upper left", title=group, alignment="left")
    _draw_numbers_at_risk(table, curves, colours, ticks)
    return figure


def _draw_steps(axes: Any, curve: IncidenceCurve, name: str, colour: Any) -> float:
    """Draw one curve and return how high it reaches."""
    end = float(curve.follow_up_months[-1])
    months = np.concatenate([[0], curve.months, [end]])
    value = np.concatenate([[0], curve.incidence, curve.incidence[-1:]])[: len(months)]
    if not len(curve.months):
        months, value = np.array([0, end]), np.zeros(2)
    axes.step(months, value, where="post", color=colour, label=name)
    # a step at the last visit would otherwise hide in the frame
    axes.plot([end], value[-1:], color=colour, marker="o", markersize=3.5, clip_on=False, zorder=4)
    if not len(curve.months):
        return 0.01
    low = np.concatenate([[np.nan], curve.ci_low, curve.ci_low[-1:]])
    high = np.concatenate([[np.nan], curve.ci_high, curve.ci_high[-1:]])
    axes.fill_between(months, low, high, step="post", color=colour, alpha=0.14, linewidth=0)
    return float(np.nanmax([value[-1], *high[~np.isnan(high)]]))


def _draw_intervals(
    axes: Any, curve: IntervalCurve, name: str, colour: Any, aside_months: float
) -> float:
    """Draw one estimate of intervals, its limits a little aside; return how high it reaches."""
    end = float(curve.follow_up_months[-1])
    # flat from the end of each interval to the start of the next
    starts = np.concatenate([[0], curve.upper_months])
    stops = np.concatenate([curve.lower_months, [max(end, starts[-1])]])
    levels = np.concatenate([[0], curve.incidence])
    axes.hlines(levels, starts, stops, color=colour, linewidth=1.8)
    rises = zip(curve.lower_months, curve.upper_months, itertools.pairwise(levels), strict=True)
    for lower, upper, rise in rises:
        axes.plot([lower, upper], rise, color=colour, linewidth=1.2, linestyle=(0, (3, 2)))
    known = ~np.isnan(curve.ci_low)
    at = curve.upper_months[known] + aside_months
    axes.vlines(at, curve.ci_low[known], curve.ci_high[known], color=colour, linewidth=1)
    axes.plot(starts, levels, color=colour, linestyle="", marker="o", markersize=3.5, label=name)
    return float(max([0.01, *curve.incidence, *curve.ci_high[known]]))


def _draw_numbers_at_risk(
    axes: Any, curves: Mapping[str, Curve], colours: Sequence[Any], ticks: Sequence[float]
) -> None:
    axes.set(ylim=(len(curves) - 0.4, -0.9))
    for row, curve in enumerate(curves.values()):
        for tick in ticks:
            number = curve.at_risk_at(tick)
            axes.text(tick, row, f"{number:,}", ha="center", va="center", fontsize=7.5)
    axes.set_yticks(range(len(curves)), list(curves))
    for label, colour in zip(axes.get_yticklabels(), colours, strict=True):
        label.set_color(colour)
        label.set_fontweight("bold")
    axes.text(0, -0.85, "Knees at risk", fontsize=8, color=MUTED, va="center", ha="left")
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    axes.tick_params(length=0, labelbottom=False)
    axes.tick_params(axis="y", pad=18)


@styled
def ratios(
    estimates: Mapping[str, Estimate], *, title: str, xlabel: str = "Hazard ratio"
) -> Figure:
    """Forest of ratios on a logarithmic axis; those without a value are left out."""
    shown = {name: ratio for name, ratio in estimates.items() if ratio.value is not None}
    figure = Figure(figsize=(6.4, 1.1 + 0.3 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    draw_forest(axes, shown, CATEGORICAL[0])
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    rungs = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
    axes.xaxis.set_major_locator(FixedLocator([r for r in rungs if low <= r <= high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(title=title, xlabel=f"{xlabel} (95 % CI, logarithmic axis)")
    return figure


@styled
def over_time(models: Mapping[str, Sequence[tuple[float, Estimate]]], *, title: str) -> Figure:
    """AUROC of each model by each horizon; points are moved apart so that intervals show."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0.5, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    colours = colours_of(list(models), ordered=False)
    for place, ((name, points), colour) in enumerate(zip(models.items(), colours, strict=True)):
        known = [(at, estimate) for at, estimate in points if estimate.value is not None]
        months = np.array([at for at, _ in known]) + 0.8 * (place - (len(models) - 1) / 2)
        value, low, high = (
            np.array([getattr(estimate, part) for _, estimate in known], dtype=float)
            for part in ("value", "ci_low", "ci_high")
        )
        axes.plot(months, value, color=colour, marker="o", markersize=4, label=name)
        axes.vlines(months, low, high, color=colour, linewidth=1)
    axes.xaxis.set_major_locator(FixedLocator(sorted({at for p in models.values() for at, _ in p})))
    axes.set(title=title, xlabel="Months since baseline", ylabel="AUROC")
    axes.legend(loc="best")
    return figure
