"""Figures: pure functions from data to a figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from sklearn import metrics as sk

from kneeoa_mm.analysis.figure_style import CATEGORICAL, INK, MUTED, colours_of, styled
from kneeoa_mm.metrics import Z_95, auprc, auprc_within, auroc_within, mean_roc
from kneeoa_mm.records import Estimate


class Scored(NamedTuple):
    """Events coded 0 and 1 and the probability that was given to each, both (n,).

    ``blocks`` names the fold of each, within which knees are ranked; None ranks all together.
    """

    event: NDArray[np.int64]
    probability: NDArray[np.float64]
    blocks: NDArray[np.int64] | None = None


@styled
def confusion_matrix(counts: NDArray[np.int64], labels: Sequence[str], *, title: str) -> Figure:
    """Counts with their share of the row.

    Args:
        counts: Row is the truth, column the prediction, shape (k, k).
        labels: Name of each class.
        title: What was classified.
    """
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    size = 1.6 + 0.62 * len(labels)
    figure = Figure(figsize=(size + 0.5, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        text = f"{counts[row, column]}"
        if totals[row]:
            text += f"\n{share[row, column]:.0%}"
        colour = "white" if share[row, column] > 0.55 else INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(labels))
    axes.set(title=title, xlabel="Predicted", ylabel="Truth", xticks=ticks, yticks=ticks)
    axes.set_xticklabels(labels)
    axes.set_yticklabels(labels)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, shrink=0.75, pad=0.02, format=PercentFormatter(1))
    bar.set_label("Share of the true class")
    bar.outline.set_visible(False)
    return figure


@styled
def roc(curves: Mapping[str, Scored], *, title: str) -> Figure:
    """Receiver operating characteristic of each curve; each has events and non-events.

    Within folds it is the mean of their curves, weighted by pairs.
    """
    figure, axes = _unit_square(title, "1 - specificity", "Sensitivity")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    for (name, scored), colour in _coloured(curves):
        blocks = np.zeros(len(scored.event), int) if scored.blocks is None else scored.blocks
        false_positive, true_positive = mean_roc(scored.event, scored.probability, blocks)
        area = auroc_within(blocks)(scored.event, scored.probability)
        axes.plot(false_positive, true_positive, color=colour, label=f"{name}   {area:.3f}")
    axes.legend(loc="lower right", title="AUROC", alignment="right")
    return figure


@styled
def precision_recall(curves: Mapping[str, Scored], *, title: str) -> Figure:
    """Precision against recall; the short line at the right is each curve's prevalence.

    The curve is of all knees. The average precision is that within folds where knees have one.
    """
    figure, axes = _unit_square(title, "Recall (sensitivity)", "Precision")
    for (name, scored), colour in _coloured(curves):
        precision, recall, _ = sk.precision_recall_curve(scored.event, scored.probability)
        metric = auprc if scored.blocks is None else auprc_within(scored.blocks)
        area = metric(scored.event, scored.probability)
        prevalence = float(np.mean(scored.event))
        axes.step(recall, precision, where="post", color=colour, label=f"{name}   {area:.3f}")
        axes.plot([0.93, 1], [prevalence] * 2, color=colour, linewidth=1, linestyle=(0, (2, 1)))
    axes.legend(loc="best", title="Average precision", alignment="right")
    return figure


@styled
def reliability(
    scored: Scored,
    bins: Mapping[str, Sequence[float] | NDArray[np.float64]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Observed share against mean probability, with limits, over a histogram.

    Args:
        scored: For the histogram.
        bins: Of ``reliability_bins``.
        title: What was predicted.
        xlabel: Of the probability.
        ylabel: Of the observed share.
    """
    figure = Figure(figsize=(4.3, 4.9), layout="constrained")
    axes, below = figure.subplots(2, sharex=True, height_ratios=[5, 1])
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    colour = CATEGORICAL[0]
    observed = np.asarray(bins["observed"])
    axes.errorbar(
        bins["mean_probability"],
        observed,
        yerr=[observed - bins["low"], bins["high"] - observed],
        color=colour,
        marker="o",
        markersize=4,
        elinewidth=0.9,
    )
    below.hist(scored.probability, bins=np.linspace(0, 1, 41), color=colour, alpha=0.55)
    axes.set(title=title, ylabel=ylabel, xlim=(0, 1), ylim=(-0.02, 1.02))
    below.set(xlabel=xlabel, ylabel="Knees")
    below.grid(visible=False)
    return figure


def reliability_bins(
    scored: Scored,
    *,
    n_bins: int = 10,
    persons: NDArray[np.str_] | None = None,
    shares: NDArray[np.float64] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Bins of about equal counts for a reliability curve; equal probabilities share a bin.

    Args:
        scored: Events and probabilities, (n,).
        n_bins: At most so many.
        persons: Whose each row is, (n,); None takes rows as independent.
        shares: How much each row counts, (n,); None for all the same.

    Returns:
        ``mean_probability``, ``observed`` share, its Wilson 95 % limits ``low`` and ``high`` for
        as many independent knees as tell the same as these, and ``n``, each one value a bin.

    Source:
        Franco et al. 2019, J Surv Stat Methodol 7:334, for limits by the effective sample size.
    """
    event, probability = scored.event, scored.probability
    # ten knees a bin at least, else the curve is noise
    wanted = max(1, min(n_bins, len(event) // 10))
    inner = np.arange(1, wanted) / wanted
    edges = np.unique(np.quantile(probability, inner, method="inverted_cdf"))
    place = np.searchsorted(edges[edges < probability.max()], probability, side="left")
    parts = [np.flatnonzero(place == k) for k in range(int(place.max()) + 1)]
    owner = np.arange(len(event)) if persons is None else np.unique(persons, return_inverse=True)[1]
    counts = np.ones(len(event)) if shares is None else shares
    observed = np.array([np.average(event[part], weights=counts[part]) for part in parts])
    effective = np.array(
        [_effective_size(event[part], owner[part], counts[part]) for part in parts]
    )
    narrow = Z_95**2 / effective
    centre = (observed + narrow / 2) / (1 + narrow)
    half = Z_95 / (1 + narrow) * np.sqrt((observed * (1 - observed) + narrow / 4) / effective)
    return {
        "mean_probability": np.array(
            [np.average(probability[part], weights=counts[part]) for part in parts]
        ),
        "observed": observed,
        "low": np.minimum(centre - half, observed),
        "high": np.maximum(centre + half, observed),
        "n": np.array([len(part) for part in parts], dtype=float),
    }


def _effective_size(
    event: NDArray[np.int64], person: NDArray[np.int64], counts: NDArray[np.float64]
) -> float:
    """How many independent knees, at most these, would give a share of this variance.

    Where it has none, the persons: that all agree is what each of them says once.
    """
    _, of_person = np.unique(person, return_inverse=True)
    share = float(np.average(event, weights=counts))
    surplus = np.bincount(of_person, weights=counts * (event - share))
    scatter = float(surplus @ surplus)
    if scatter == 0:
        return float(of_person.max() + 1)
    return float(min(len(event), counts.sum() ** 2 * share * (1 - share) / scatter))


@styled
def comparison(
    models: Mapping[str, Estimate], best: Mapping[str, float], *, title: str, xlabel: str
) -> Figure:
    """Estimates of several models, each beside the best that its inputs allow where known."""
    figure = Figure(figsize=(6.4, 1.3 + 0.38 * len(models)), layout="constrained")
    axes = figure.subplots()
    shown = {name: estimate for name, estimate in models.items() if estimate.value is not None}
    draw_forest(axes, shown, CATEGORICAL[0])
    known = [(best[name], row) for row, name in enumerate(shown) if name in best]
    if known:
        at, rows = zip(*known, strict=True)
        axes.plot(
            at, rows, "D", color=CATEGORICAL[1], fillstyle="none", zorder=4, label="best possible"
        )
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2)
    axes.set(title=title, xlabel=xlabel)
    return figure


def draw_forest(axes: Any, estimates: Mapping[str, Estimate], colour: str) -> None:
    """One row an estimate, which has a value: a point, its interval, and both in numbers."""
    axes.grid(visible=False, axis="y")
    for row, estimate in enumerate(estimates.values()):
        value, low, high = estimate.value, estimate.ci_low, estimate.ci_high
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=colour, linewidth=1.4)
        axes.plot([value], [row], color=colour, marker="o", markersize=6, zorder=3)
        text = f"{value:.2f}" + ("" if low is None else f" ({low:.2f} to {high:.2f})")
        # in axes fractions across, so that the numbers stand in a column of their own
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_yticks(range(len(estimates)), list(estimates))
    axes.set_ylim(len(estimates) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _unit_square(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.3, 4.3), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, aspect="equal")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    return figure, axes


def _coloured(curves: Mapping[str, Scored]) -> Iterator[tuple[tuple[str, Scored], Any]]:
    colours = colours_of(list(curves), ordered=len(curves) > 1)
    yield from zip(curves.items(), colours, strict=True)
