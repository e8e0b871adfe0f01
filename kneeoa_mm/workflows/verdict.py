"""A comparison in words: what the data show, and what they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kneeoa_mm.analysis.report.words import in_a_sentence, model_name
from kneeoa_mm.records import Outcome
from kneeoa_mm.workflows.compared_runs import UNREAD, ComparedRun
from kneeoa_mm.workflows.comparison import FUSED, NO_GRADE, Contest


def name_of(model: str) -> str:
    """A model in words within a sentence; a run by its own name."""
    return in_a_sentence(model_name(model))


def sentences(differences: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
    """One sentence on fusion as a whole, then one a pair of models.

    Args:
        differences: Of ``comparison.differences``.
        inputs: What each model was told, as ``compare.json`` has it.
    """
    found = [(*pair.split("-"), metrics["auroc"]) for pair, metrics in differences.items()]
    lines = [_sentence(first, second, estimate) for first, second, estimate in found]
    against = {
        second: estimate
        for first, second, estimate in found
        if first == FUSED and _is_simpler(second, inputs)
    }
    if against:
        lines.insert(0, _on_fusion(against))
    return lines


def _is_simpler(name: str, inputs: Mapping[str, str]) -> bool:
    """Whether a model is a simple one, or a run that is told some of what ``fused`` is told.

    A run that is told as much, or something else, is another fusion: whether ``fused`` beats it
    says nothing on fusion itself. Nor does what a run says where there is no reading.
    """
    told = inputs[name].split(", ")
    if told[0] != "image":
        return True
    return not name.endswith(UNREAD) and set(told) < set(inputs[FUSED].split(", "))


def _on_fusion(against: Mapping[str, Mapping[str, Any]]) -> str:
    not_beaten = [
        name_of(name)
        for name, estimate in against.items()
        if estimate["ci_low"] is None or estimate["ci_low"] <= 0
    ]
    if not not_beaten:
        return "Fusion helps here: the fused model ranks knees better than every simpler model."
    return (
        "Fusion is not shown to help: it is not shown that the fused model ranks knees better than "
        + ", ".join(not_beaten)
        + "."
    )


def _sentence(first: str, second: str, estimate: Mapping[str, Any]) -> str:
    value, low, high = estimate["value"], estimate["ci_low"], estimate["ci_high"]
    one, other = name_of(first), name_of(second)
    if value is None or low is None:
        reason = estimate.get("reason") or "no interval"
        return f"AUROC, {one} against {other}: cannot be told ({reason})."
    if low > 0:
        says = f"{one} ranks knees better than {other}"
    elif high < 0:
        says = f"{one} ranks knees worse than {other}"
    else:
        says = f"{one} cannot be told from {other}"
    p_value = estimate.get("p_value")
    p_text = "" if p_value is None else f"; P {p_in_words(p_value)}"
    return f"{says[0].upper()}{says[1:]}: AUROC {value:+.3f} ({low:+.3f} to {high:+.3f}{p_text})."


def p_in_words(p_value: float) -> str:
    """A P value as papers write it.

    Example:
        >>> p_in_words(0.00004), p_in_words(0.0412)
        ('< 0.001', '= 0.041')
    """
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"


def notes(
    contest: Contest,
    runs: Mapping[str, ComparedRun],
    simple: Sequence[str],
    outcome: Outcome,
    n_persons: int,
) -> list[str]:
    """What to know of a comparison.

    Args:
        contest: What was judged.
        runs: Name to run.
        simple: Names of the simple models.
        outcome: The outcome.
        n_persons: Persons who were judged.
    """
    lines = [
        "Every model is judged out of fold on the same knees and folds. AUROC and AUPRC compare "
        "knees of one fold, and average folds by their pairs and by their events.",
    ]
    if contest.sampled_on_outcome:
        lines.append(
            "The cohort was sampled on the outcome: AUROC alone is given, since precision, Brier "
            "score, calibration and net benefit would be those of the sampling."
        )
    if contest.shares is not None:
        lines.append(
            "Knees that were lost before the horizon are stood for by those like them that were "
            "seen: each counts by its observation weight, in fitting the simple models, too. "
            "complete_cases has the figures where each stands for itself alone."
        )
    if "clinical" not in simple:
        lines.append("No run was given clinical factors, so no clinical model stands beside them.")
    if "mjsw" in simple and outcome.startswith("jsl"):
        lines.append(
            "mjsw is coupled to its own loss: the outcome is the later width less this one, so the "
            "error of this reading is in both, and regression to the mean predicts a loss."
        )
    lines += [
        f"{name}: {' and '.join(run.distorted_by)}, so its risks were recalibrated (logistic, "
        "learnt on the other folds) for Brier score, calibration, decisions and net benefit."
        for name, run in runs.items()
        if name in contest.levels
    ]
    if len(np.unique(contest.persons)) < n_persons:
        lines.append("Persons who are tied by matched pairs are drawn together.")
    if ungraded := int((contest.grades == NO_GRADE).sum()):
        lines.append(f"{ungraded} knees have no KL grade; they take no part within grades.")
    return lines
