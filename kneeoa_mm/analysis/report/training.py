"""The section on training: members, curves, validation figures."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pandas as pd

from kneeoa_mm.analysis.report.model_card import card_table, sees_unknown
from kneeoa_mm.analysis.report.parts import NOTHING, Section, Table
from kneeoa_mm.analysis.report.procedure import (
    chooses_epoch,
    factors_of,
    grade_of,
    guards,
    inputs_of,
    procedure,
    selection,
)
from kneeoa_mm.analysis.report.runs import Run, read_csv, read_document
from kneeoa_mm.analysis.report.shown import counted, listed, plain, setting, show
from kneeoa_mm.analysis.report.words import METRIC_NAMES, in_a_sentence, title_of
from kneeoa_mm.model_folder import CARD_FILE

_OF_NOTHING = sha256().hexdigest()
_BALANCED = {
    "sampling": "grades were sampled evenly",
    "weights": "the loss weighted grades by their rarity",
    "none": "no sampling or weighting of classes",
}


def training_section(run: Run) -> Section:
    """Members of a training run, their curves and their validation figures."""
    history = read_csv(run.path / "history.csv")
    cards = {
        path.parent.name: read_document(path)
        for path in sorted((run.path / "members").glob(f"*/{CARD_FILE}"))
    }
    config = run.config()
    kept = "the epoch that its validation part chose" if chooses_epoch(config) else "its last epoch"
    section = Section(
        "training",
        f"Training: {_target(cards)}",
        run.name,
        summary=f"{counted(len(cards), 'network')}, each at {kept}.{_outcome(cards, config)}",
        tables=[_member_table(cards, history, config)],
        provenance=_provenance(cards) | _inputs(run),
    )
    if (run.path / "history.png").is_file():
        caption = "Loss and validation metrics by epoch, one line a member."
        section.add_figure(run.path, "history", caption, wide=True)
    ensemble = _ensemble(run)
    section.card = card_table(run.name, cards, config, ensemble)
    if cards:
        _tell(section, cards, config)
        _tell_voting(section, len(cards), ensemble)
    else:
        section.notes.append("The run has no finished member.")
    return section


def _target(cards: Mapping[str, Any]) -> str:
    """What is learnt, and of progression from what."""
    card: Mapping[str, Any] = next(iter(cards.values()), {})
    if card.get("kind") != "jsl":
        return "KL grade"
    factors = "clinical factors" if factors_of(card) else ""
    return f"progression from {listed(filter(None, ('the image', grade_of(card), factors)))}"


def _outcome(cards: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """A sentence on which progression is learnt; empty of a grader."""
    is_progression = any(card.get("kind") == "jsl" for card in cards.values())
    name = str(config.get("outcome", ""))
    return f" The outcome is {in_a_sentence(title_of(name))}." if is_progression and name else ""


def _ensemble(run: Run) -> dict[str, Any]:
    path = run.path / "ensemble.json"
    return read_document(path) if path.is_file() else {}


def _member_table(
    cards: Mapping[str, Any], history: pd.DataFrame, config: Mapping[str, Any]
) -> Table:
    told = dict.fromkeys(name for card in cards.values() for name in card["metrics"])
    metrics = [name for name in told if name != "epoch"]
    epochs = history["member"].value_counts() if "member" in history else {}
    rows = []
    for name, card in cards.items():
        fold = card.get("fold")
        rows.append(
            [
                name,
                str(card.get("weights_source", "none")),
                NOTHING if fold is None else str(fold),
                str(epochs.get(name, NOTHING)),
                show(card["metrics"].get("epoch"), 0),
                *(show(card["metrics"].get(metric)) for metric in metrics),
            ]
        )
    heads = [METRIC_NAMES.get(m.removeprefix("val_"), plain(m).capitalize()) for m in metrics]
    columns = ["Member", "Started from", "Fold left out", "Epochs", "Epoch kept", *heads]
    figures = ", with the validation figures of the epoch that was kept" if heads else ""
    return Table(f"Members{figures}; {selection(config)}.", columns, rows)


def _provenance(cards: Mapping[str, Any]) -> dict[str, str]:
    told = ("package_version", "config_digest", "licence", "intended_use")
    values = {
        name: ", ".join(sorted({str(c[name]) for c in cards.values() if c.get(name)}))
        for name in told
    }
    hashes = {f"{name}.weights_sha256": str(c.get("weights_sha256")) for name, c in cards.items()}
    return {name: text for name, text in values.items() if text} | hashes


def _inputs(run: Run) -> dict[str, str]:
    """Hashes of what the run learnt from; that of nothing, such as no encoder, is left out."""
    path = run.path / "inputs.json"
    hashes = read_document(path) if path.is_file() else {}
    return {f"inputs.{k}.sha256": str(v) for k, v in hashes.items() if v != _OF_NOTHING}


def _tell(section: Section, cards: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    card = next(iter(cards.values()))
    network = card.get("architecture", {})
    backbones = sorted(
        {str(c.get("architecture", {}).get("backbone", "?")) for c in cards.values()}
    )
    name = _name(section)
    model = f"{listed(backbones)} with inputs {listed(inputs_of(card))}"
    built = ", ".join(setting(k, v) for k, v in network.items() if v not in (None, [], ""))
    section.tell("model", f"{name}: {model}; {built}", f"members/*/{CARD_FILE}")
    networks = counted(len(cards), "network")
    section.methods.append(f"{name}: {networks}, {model}.{_outcome(cards, config)}")
    _tell_predictors(section, card)
    started = sorted({str(c.get("weights_source", "none")) for c in cards.values()})
    section.tell("start", f"{_name(section)}: weights from {', '.join(started)}", "model.json")
    section.tell("output", f"{_name(section)}: {', '.join(card.get('outputs', ()))}", "model.json")
    if prepared := card.get("preprocessing"):
        told = ", ".join(setting(k, v) for k, v in prepared.items() if v is not None)
        section.tell("preprocessing", f"The same of every image: {told}", "model.json")
    _tell_partition(section, cards, config)
    _tell_fit(section, card, config)
    versions = sorted({str(c.get("package_version", "?")) for c in cards.values()})
    licences = sorted({str(c.get("licence", "?")) for c in cards.values()})
    libraries = sorted(
        {f"{k} {v}" for c in cards.values() for k, v in c.get("software", {}).items()}
    )
    used = ", ".join([f"kneeoa-mm {', '.join(versions)}", *libraries])
    section.tell("software", used, "model.json")
    section.tell(
        "weights",
        f"{_name(section)}: weights under {', '.join(licences)}, named by SHA-256 under Provenance",
        "model.json",
    )


def _tell_predictors(section: Section, card: Mapping[str, Any]) -> None:
    """What a model of progression is told beside the image, and what stands for what is missing."""
    factors, grade, where = factors_of(card), grade_of(card), f"members/*/{CARD_FILE}"
    told, missing = [], []
    if grade:
        told.append(f"{grade}: one column each grade")
    if factors:
        clinical = card.get("clinical") or {}
        handled = [
            *(["numbers standardised and not cut"] if clinical.get("continuous") else []),
            *(["categories one column each"] if clinical.get("categorical") else []),
        ]
        told.append(f"{', '.join(factors)}: {', '.join(handled)}")
        missing.append(
            "A missing factor has an indicator of its own; its value is imputed by what the "
            "training part alone taught, without outcomes, and a reading is never imputed"
        )
    if unread := card.get("without_reading"):
        missing.append(f"Where no grade was read a branch without it speaks: {unread}")
    section.tell("predictors", "; ".join(told), where)
    section.tell("missing_factors", ". ".join(missing), where)
    section.methods += [f"{text}." for text in missing]


def _name(section: Section) -> str:
    name = section.title.removeprefix("Training: ")
    return name[:1].upper() + name[1:]


def _tell_partition(section: Section, cards: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    folds = {card.get("fold") for card in cards.values()} - {None}
    has_unknown = sees_unknown(cards)
    by = "by person where known" if has_unknown else "by person"
    if folds:
        text = (
            f"{counted(len(folds), 'fold')} {by}; each member learnt without its fold, and "
            "knees of that fold are predicted by it alone"
        )
    else:
        text = f"a training and a validation part {by}"
    seed = f"; seed {config['seed']}" if "seed" in config else ""
    section.tell("partition", f"{_name(section)}: {text}{seed}", "folds.parquet")
    section.methods.append(f"Data were divided into {text}{seed}.")
    if has_unknown:
        section.limits.append(
            f"{section.source}: some images are of unknown persons, and the knees of one may stand "
            "in two parts, which flatters the model."
        )
    elif all(card.get("seen_subjects") for card in cards.values()):
        section.tell(
            "disjoint",
            "Parts share no person; the card holds a keyed hash of each person learnt from, by "
            "which predictions of seen persons are marked and left out",
            f"members/*/{CARD_FILE}",
        )


def _tell_fit(section: Section, card: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    if not isinstance(config.get("train"), dict):
        return
    told, chosen = procedure(card, config), selection(config)
    section.tell("procedure", f"{_name(section)}: {told}", "config.yaml")
    section.tell("selection", f"{_name(section)}: {chosen}", "config.yaml")
    section.methods.append(f"It was trained with {told}; {chosen}.")
    if used := guards(card, config):
        section.tell("overfitting", f"{_name(section)}: {listed(used)}", "config.yaml")
    if (balance := config.get("balance", "none")) in _BALANCED:
        section.tell("imbalance", f"{_name(section)}: {_BALANCED[balance]}", "config.yaml")


def _tell_voting(section: Section, members: int, ensemble: Mapping[str, Any]) -> None:
    if members > 1 and (voting := ensemble.get("voting")):
        text = "the mean of probabilities" if voting == "mix" else plain(voting)
        section.tell("ensemble", f"{_name(section)}: {members} members; {text}", "ensemble.json")
    if taught := ensemble.get("calibrated_on"):
        text = f"temperature {show(ensemble.get('temperature'), 2)}, learnt {taught}"
        section.tell("recalibration", f"{_name(section)}: {text}", "ensemble.json")
        section.methods.append(f"Probabilities of grades were calibrated: {text}.")
