"""How the networks of a run were trained, in words, from its settings and its model cards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kneeoa_mm.analysis.covariates import label_of
from kneeoa_mm.analysis.report.shown import listed, plain, setting

_READING = {"read": "the read KL grade", "predicted": "the KL grade that it predicts itself"}
"""Setting ``kl_input`` to what progression is told."""
_CAUSES = "progression, replacement and death"


def factors_of(card: Mapping[str, Any]) -> list[str]:
    """Clinical factors of a model in words; none where it sees the image alone."""
    clinical = card.get("clinical") or {}
    return [
        label_of(name) for kind in ("continuous", "categorical") for name in clinical.get(kind, ())
    ]


def grade_of(card: Mapping[str, Any]) -> str:
    """The grade that progression is told; empty where it is told none."""
    return _READING.get(str((card.get("architecture") or {}).get("kl_input")), "")


def inputs_of(card: Mapping[str, Any]) -> list[str]:
    """All that a model sees."""
    found = ["image of one knee", grade_of(card)]
    if factors := factors_of(card):
        found.append(f"clinical factors ({', '.join(factors)})")
    return [each for each in found if each]


def chooses_epoch(config: Mapping[str, Any]) -> bool:
    """Whether a validation part decided which epoch is kept, and when to stop."""
    return _train(config).get("select_by") != "last"


def selection(config: Mapping[str, Any]) -> str:
    """How the epoch that is kept was found."""
    if not chooses_epoch(config):
        return "the last epoch was kept, and none was chosen"
    return f"the epoch was chosen by validation {plain(_train(config).get('select_by', '?'))}"


def is_encoder_frozen(card: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a model of progression learnt on features of an encoder that stayed as it was."""
    stages = _train(config).get("stages") or ()
    return (
        card.get("kind") == "jsl"
        and bool(stages)
        and all(stage.get("trainable") == "head" for stage in stages)
    )


def loss_of(card: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What training made small."""
    grade = _grade_loss(_train(config))
    if card.get("kind") != "jsl":
        return grade
    network = card.get("architecture") or {}
    if visits := network.get("visits_months"):
        progression = (
            f"negative log-likelihood of discrete-time hazards of {_CAUSES} as competing risks, by "
            f"{listed(visits)} months (risk read at {network.get('horizon_months', '?')} months)"
        )
    else:
        progression = "binary cross entropy of progression by the horizon"
    if network.get("kl_input") == "read":
        progression += ", once with the read grade and once in a branch without it"
    if config.get("loss_weighting") == "uncertainty":
        weight = "with weights learnt from uncertainty"
    else:
        weight = f"with weight {config.get('kl_loss_weight', '?')} beside 1"
    return f"{progression}, and {grade} of the KL grade {weight}"


def _grade_loss(train: Mapping[str, Any]) -> str:
    name = str(train.get("kl_loss", "?"))
    smoothing = train.get("label_smoothing")
    is_smoothed = smoothing and name in {"cross_entropy", "focal", "expected_grade"}
    return plain(name) + (f" (label smoothing {smoothing:g})" if is_smoothed else "")


def augmentation(card: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What varied the training images; empty where nothing did."""
    augment = _train(config).get("augment")
    varied = {k: v for k, v in augment.items() if v} if isinstance(augment, dict) else {}
    if not is_encoder_frozen(card, config):
        return ", ".join(setting(name, value) for name, value in varied.items())
    # features are computed once: what changes pictures has nothing to change
    used = [setting("mixup of features", varied["mixup"])] if "mixup" in varied else []
    if crops := config.get("test_time_crops"):
        used.append(f"one of {int(crops) + 1} views of each image, drawn anew in each epoch")
    return ", ".join(used)


def procedure(card: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Optimisation, loss and augmentation."""
    train = _train(config)
    most = "at most " if chooses_epoch(config) else ""
    told = (
        f"{plain(train.get('optimiser', '?'))}, learning rate {train.get('lr', '?')}, weight decay "
        f"{train.get('weight_decay', '?')}, batches of {train.get('batch_size', '?')}, {most}"
        f"{train.get('epochs', '?')} epochs, loss: {loss_of(card, config)}"
    )
    used = augmentation(card, config)
    if is_encoder_frozen(card, config):
        told += (
            "; the encoder stayed as it was, and its features were computed once of images that "
        )
        told += "were not augmented"
    elif not used:
        told += "; images were not augmented"
    return told + (f"; varied by {used}" if used else "")


def guards(card: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """What was done against overfitting."""
    train = _train(config)
    dropouts = [config.get("dropout"), *(m.get("dropout") for m in config.get("members") or ())]
    used = {
        "weight decay": train.get("weight_decay"),
        "augmentation": augmentation(card, config),
        "dropout": any(dropouts),
        "early stopping": chooses_epoch(config) and train.get("patience"),
        "an encoder that stayed as it was": is_encoder_frozen(card, config),
    }
    return [name for name, is_used in used.items() if is_used]


def _train(config: Mapping[str, Any]) -> Mapping[str, Any]:
    train = config.get("train")
    return train if isinstance(train, dict) else {}
