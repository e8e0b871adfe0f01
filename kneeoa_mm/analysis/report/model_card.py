"""A model card (Mitchell et al. 2019, doi 10.1145/3287560.3287596) from what a run knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kneeoa_mm.analysis.report.parts import Table
from kneeoa_mm.analysis.report.procedure import chooses_epoch, inputs_of, selection
from kneeoa_mm.analysis.report.shown import counted, listed, plain, setting, show

AUTHOR = "For the author: "
"""Starts what a run cannot know."""


def card_table(
    name: str, cards: Mapping[str, Any], config: Mapping[str, Any], ensemble: Mapping[str, Any]
) -> Table | None:
    """One row a heading of the card.

    Args:
        name: The run.
        cards: ``model.json`` of each member.
        config: Settings of the training.
        ensemble: ``ensemble.json``.

    Returns:
        None where there is no member.
    """
    if not cards:
        return None
    card = next(iter(cards.values()))
    seen = [c.get("seen_subjects") or {} for c in cards.values()]
    learnt = {person for s in seen for person in s.get("training", ())}
    per_member = sorted({len(s.get("training", ())) for s in seen})
    kind = "progression" if card.get("kind") == "jsl" else "KL grade"
    inputs = listed(inputs_of(card))
    network = card.get("architecture") or {}
    rows = [
        ["Model", f"{name}: {kind}, {counted(len(cards), 'member')}"],
        ["Version", f"kneeoa-mm {card.get('package_version', '?')}, settings {_digests(cards)}"],
        ["Licence", ", ".join(sorted({str(c.get("licence", "?")) for c in cards.values()}))],
        ["Intended use", str(card.get("intended_use", ""))],
        ["Intended users", f"{AUTHOR}who is to use it, and after which training."],
        [
            "Out of scope",
            "Care of patients; other joints and views than those it learnt from; knees with a "
            "prosthesis.",
        ],
        ["Inputs", inputs[:1].upper() + inputs[1:] + _unread(card)],
        ["Outputs", ", ".join(map(str, card.get("outputs", ())))],
        ["Architecture", _told(network)],
        ["Preprocessing", _told(card.get("preprocessing") or {})],
        [
            "Learnt from",
            f"{' or '.join(map(str, per_member))} persons a member"
            + (", images of unknown ones among them" if sees_unknown(cards) else "")
            + (f" of {_cohort(config)}" if _cohort(config) else "")
            + ("" if len(cards) > 1 else f" ({len(learnt)} in all)")
            + (f"; {card['trained_on']}" if card.get("trained_on") else ""),
        ],
        ["Chosen on", _chosen(cards, config)],
        ["Calibration", _calibration(ensemble)],
        ["Judged on", "See the evaluation in this report; without one, it has not been judged."],
        ["Groups of persons", f"{AUTHOR}for whom it was tried, and for whom it was not."],
        ["Ethics", f"{AUTHOR}consent, approval, and harm that a wrong answer could do."],
        [
            "Caveats",
            "Films of other machines and centres, and other populations, may be graded worse; see "
            "the limits in this report.",
        ],
    ]
    return Table(f"Model card of {name}.", ["Heading", "What the run says"], rows)


def sees_unknown(cards: Mapping[str, Any]) -> bool:
    """Whether some images that made a model were of unknown persons."""
    seen = (card.get("seen_subjects") or {} for card in cards.values())
    return any(each.get("has_unknown", False) for each in seen)


def _unread(card: Mapping[str, Any]) -> str:
    """What stands for a knee whose film nobody read."""
    return f"; {card['without_reading']}" if card.get("without_reading") else ""


def _digests(cards: Mapping[str, Any]) -> str:
    return ", ".join(sorted({str(card.get("config_digest") or "?") for card in cards.values()}))


def _cohort(config: Mapping[str, Any]) -> str:
    cohort = config.get("cohort")
    return str(cohort.get("name", "")) if isinstance(cohort, dict) else ""


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(setting(k, v) for k, v in values.items() if v not in (None, [], ""))


def _chosen(cards: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    metrics: dict[str, list[float]] = {}
    for card in cards.values():
        for metric, value in card.get("metrics", {}).items():
            if metric != "epoch":
                metrics.setdefault(metric, []).append(float(value))
    shown = ", ".join(
        f"{plain(metric.removeprefix('val_'))} {show(sum(values) / len(values))}"
        for metric, values in metrics.items()
    )
    found = f"validation part, mean over members: {shown}" if shown else ""
    if chooses_epoch(config):
        return f"{found[:1].upper()}{found[1:]}" if found else "Not recorded"
    return f"Nothing: {selection(config)}" + (f"; {found}" if found else "")


def _calibration(ensemble: Mapping[str, Any]) -> str:
    if not ensemble.get("calibrated_on"):
        return "None was learnt."
    text = f"Temperature {show(ensemble.get('temperature'), 2)}, learnt {ensemble['calibrated_on']}"
    conformal = ensemble.get("conformal") or {}
    if "alpha" in conformal:
        text += f"; sets of grades that hold the true one in {1 - conformal['alpha']:.0%} of knees"
    return text + "."
