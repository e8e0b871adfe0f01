"""Figures of an evaluation, and the numbers behind their curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kneeoa_mm.analysis import figures
from kneeoa_mm.analysis.comparison_figures import decision_curve
from kneeoa_mm.analysis.figures import Scored, reliability_bins
from kneeoa_mm.analysis.results import OUTCOME_NAMES, from_json
from kneeoa_mm.analysis.subgroups import metrics_of
from kneeoa_mm.analysis.targets import KL, Target
from kneeoa_mm.metrics import decision_curves
from kneeoa_mm.records import Estimate

_METRIC_NAMES = {"auroc": "AUROC", "accuracy": "Accuracy"}


def draw(target: Target, document: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    """The figures of a target, each with the name of its file.

    Args:
        target: What was judged.
        document: What will be ``metrics.json``.
    """
    if not len(target.truth):
        return
    title = _title(target)
    first = next(iter(metrics_of(target)))
    if shown := _of_levels(document["subgroups"][target.name], first):
        overall = {"All knees": from_json(document[target.name][first])}
        axis = f"{_METRIC_NAMES[first]} (95 % CI)"
        yield (
            f"{target.name}_subgroups",
            figures.comparison(overall | shown, {}, title=f"{title}: subgroups", xlabel=axis),
        )
    yield (
        f"{target.name}_confusion_matrix",
        figures.confusion_matrix(target.confusion(), target.labels, title=f"{title}: confusion"),
    )
    curves = _curves(target)
    if curves:
        against = ", one against the rest" if target.name == KL else ""
        yield f"{target.name}_roc", figures.roc(curves, title=f"{title}: ROC{against}")
        yield (
            f"{target.name}_precision_recall",
            figures.precision_recall(curves, title=f"{title}: precision and recall"),
        )
    if target.name == KL:
        xlabel, ylabel = "Probability of the predicted grade", "Share predicted correctly"
    else:
        xlabel, ylabel = "Predicted probability", "Observed share of events"
        decisions = document["curves"][target.name]["decision"]
        yield (
            f"{target.name}_decision_curve",
            decision_curve(
                decisions["model"],
                decisions["treat_all"],
                thresholds=decisions["thresholds"],
                title=f"{title}: decision curve",
            ),
        )
    yield (
        f"{target.name}_calibration",
        figures.reliability(
            calibrated(target),
            document["curves"][target.name]["calibration"],
            title=f"{title}: calibration",
            xlabel=xlabel,
            ylabel=ylabel,
        ),
    )


def calibrated(target: Target) -> Scored:
    """What a calibration curve is of: an event and its risk, or a grade that is right or not."""
    if target.name != KL:
        return Scored(target.truth, target.probability)
    right = (target.truth == target.predicted).astype(np.int64)
    return Scored(right, target.probability[np.arange(len(right)), target.predicted])


def curves_of(target: Target) -> dict[str, Any]:
    """Numbers behind the calibration and decision curves of a target; empty without knees."""
    if not len(target.truth):
        return {}
    bins = reliability_bins(calibrated(target), persons=target.persons).items()
    found: dict[str, Any] = {"calibration": {k: [round(float(x), 6) for x in v] for k, v in bins}}
    if target.name != KL:
        decisions = decision_curves(target.truth, {"model": target.probability})
        models = decisions.pop("models")
        found["decision"] = {**decisions, **models}
    return found


def _of_levels(subgroups: Mapping[str, Any], metric: str) -> dict[str, Estimate]:
    """A metric in each level of each factor that has levels."""
    return {
        f"{factor['label']}: {level}": from_json(figures_of_it[metric])
        for factor in subgroups.values()
        for level, figures_of_it in factor["levels"].items()
        if figures_of_it[metric]["value"] is not None
    }


def _title(target: Target) -> str:
    return "KL grade" if target.name == KL else OUTCOME_NAMES[target.name]


def _curves(target: Target) -> dict[str, Scored]:
    """One curve for an outcome, one a grade for KL; classes that are absent have none."""
    if len(np.unique(target.truth)) < 2:
        return {}
    if target.name != KL:
        scored = Scored(target.truth, target.probability, target.folds)
        return {_title(target): scored} if _has_pairs(scored) else {}
    each = {
        f"KL {grade}": Scored(
            (target.truth == grade).astype(np.int64), target.probability[:, grade], target.folds
        )
        for grade in np.unique(target.truth)
    }
    return {name: scored for name, scored in each.items() if _has_pairs(scored)}


def _has_pairs(scored: Scored) -> bool:
    """Whether any fold has both classes."""
    blocks = scored.blocks
    if blocks is None:
        return True
    return any(len(np.unique(scored.event[blocks == block])) > 1 for block in np.unique(blocks))
