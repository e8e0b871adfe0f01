"""The section on training: members, curves, validation figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from kneeoa_mm.analysis.report.model_card import card_table, factors_of
from kneeoa_mm.analysis.report.parts import NOTHING, Section, Table
from kneeoa_mm.analysis.report.runs import Run, read_csv, read_document
from kneeoa_mm.analysis.report.shown import counted, listed, plain, setting, show
from kneeoa_mm.analysis.report.words import METRIC_NAMES
from kneeoa_mm.model_folder import CARD_FILE

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
    is_progression = any(card.get("kind") == "jsl" for card in cards.values())
    target = "KL grade"
    if is_progression:
        target = "progression" + (", fused" if config.get("fuse_clinical") else "")
    section = Section(
        "training",
        f"Training: {target}",
        run.name,
        summary=f"{counted(len(cards), 'network')}, each at the epoch that its validation part "
        "chose.",
        tables=[_member_table(cards, history)],
        provenance=_provenance(cards),
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


def _ensemble(run: Run) -> dict[str, Any]:
    path = run.path / "ensemble.json"
    return read_document(path) if path.is_file() else {}


def _member_table(cards: Mapping[str, Any], history: pd.DataFrame) -> Table:
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
    columns = ["Member", "Started from", "Fold left out", "Epochs", "Chosen", *heads]
    return Table("Members, with the validation figures of the chosen epoch.", columns, rows)


def _provenance(cards: Mapping[str, Any]) -> dict[str, str]:
    told = ("package_version", "config_digest", "licence", "intended_use")
    values = {
        name: ", ".join(sorted({str(c[name]) for c in cards.values() if c.get(name)}))
        for name in told
    }
    hashes = {f"{name}.weights_sha256": str(c.get("weights_sha256")) for name, c in cards.items()}
    return {name: text for name, text in values.items() if text} | hashes


def _tell(section: Section, cards: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    card = next(iter(cards.values()))
    network = card.get("architecture", {})
    backbones = sorted(
        {str(c.get("architecture", {}).get("backbone", "?")) for c in cards.values()}
    )
    name = _name(section)
    inputs = ["the image"]
    factors = factors_of(card)
    if factors:
        inputs.append(f"clinical factors ({', '.join(factors)})")
    model = f"{listed(backbones)} with inputs {listed(inputs)}"
    built = ", ".join(setting(k, v) for k, v in network.items() if v not in (None, [], ""))
    section.tell("model", f"{name}: {model}; {built}", f"members/*/{CARD_FILE}")
    section.methods.append(f"{name}: {counted(len(cards), 'network')}, {model}.")
    if factors:
        handled = "numbers standardised and not cut, categories one column each"
        where = f"members/*/{CARD_FILE}"
        section.tell("predictors", f"{', '.join(factors)}: {handled}", where)
        section.tell(
            "missing_factors",
            "A missing factor has an indicator of its own; its value is imputed by what the "
            "training part alone taught, without outcomes",
            where,
        )
    started = sorted({str(c.get("weights_source", "none")) for c in cards.values()})
    section.tell("start", f"{_name(section)}: weights from {', '.join(started)}", "model.json")
    section.tell("output", f"{_name(section)}: {', '.join(card.get('outputs', ()))}", "model.json")
    if prepared := card.get("preprocessing"):
        told = ", ".join(setting(k, v) for k, v in prepared.items() if v is not None)
        section.tell("preprocessing", f"The same of every image: {told}", "model.json")
    _tell_partition(section, cards, config)
    _tell_fit(section, config)
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


def _name(section: Section) -> str:
    name = section.title.removeprefix("Training: ")
    return name[:1].upper() + name[1:]


def _tell_partition(section: Section, cards: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    folds = {card.get("fold") for card in cards.values()} - {None}
    if folds:
        text = (
            f"{counted(len(folds), 'fold')} by person; each member learnt without its fold, and "
            "knees of that fold are predicted by it alone"
        )
    else:
        text = "a training and a validation part by person"
    seed = f"; seed {config['seed']}" if "seed" in config else ""
    section.tell("partition", f"{_name(section)}: {text}{seed}", "folds.parquet")
    section.methods.append(f"Data were divided into {text}{seed}.")
    if all(card.get("seen_subjects") for card in cards.values()):
        section.tell(
            "disjoint",
            "Parts share no person; the card holds a keyed hash of each person learnt from, by "
            "which predictions of seen persons are marked and left out",
            f"members/*/{CARD_FILE}",
        )


def _tell_fit(section: Section, config: Mapping[str, Any]) -> None:
    train = config.get("train")
    if not isinstance(train, dict):
        return
    told = (
        f"{plain(train.get('optimiser', '?'))}, learning rate {train.get('lr', '?')}, weight decay "
        f"{train.get('weight_decay', '?')}, batches of {train.get('batch_size', '?')}, at most "
        f"{train.get('epochs', '?')} epochs, loss {plain(train.get('kl_loss', '?'))}"
    )
    augment = train.get("augment")
    if isinstance(augment, dict):
        used = ", ".join(setting(name, value) for name, value in augment.items() if value)
        told += f"; augmented by {used}" if used else ""
    section.tell("procedure", f"{_name(section)}: {told}", "config.yaml")
    chosen = f"the epoch was chosen by validation {plain(train.get('select_by', '?'))}"
    section.tell("selection", f"{_name(section)}: {chosen}", "config.yaml")
    section.methods.append(f"It was trained with {told}; {chosen}.")
    guards = {
        "weight decay": train.get("weight_decay"),
        "augmentation": augment,
        "dropout": config.get("dropout"),
        "early stopping": train.get("patience"),
    }
    section.tell(
        "overfitting", listed(name for name, used in guards.items() if used), "config.yaml"
    )
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
