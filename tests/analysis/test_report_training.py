"""What the report tells of a training is what the settings did, and nothing that did not happen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from kneeoa_mm.analysis.report.parts import Section
from kneeoa_mm.analysis.report.runs import Run
from kneeoa_mm.analysis.report.training import training_section
from kneeoa_mm.settings import AugmentConfig, StageConfig, TrainConfig, TrainJSLConfig

_HEADS_ALONE = (StageConfig(trainable="head"),)
_READS_OTHER_KNEE = {"continuous": {}, "categorical": {"contralateral_kl_grade": ["0", "1"]}}


def _section(folder: Path, train: TrainConfig, clinical=None, **settings) -> Section:
    """Of a progression run, whose card says what ``train-jsl`` writes into it."""
    config = TrainJSLConfig(train=train, **settings)
    is_timed = config.time_head == "hazard"
    card = {
        "kind": "jsl",
        "fold": 0,
        "architecture": {
            "backbone": "mobilenet_v2",
            "kl_input": config.kl_input,
            "visits_months": list(config.visits_months) if is_timed else [],
            "horizon_months": config.horizon_months if is_timed else None,
        },
        "clinical": clinical,
        "metrics": {"epoch": 4.0, "auroc": 0.7},
        "without_reading": "sees no reading" if config.kl_input == "read" else "",
    }
    (folder / "members" / "00").mkdir(parents=True)
    (folder / "members" / "00" / "model.json").write_text(json.dumps(card))
    (folder / "history.csv").write_text("member,epoch\n00,1\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return training_section(Run(folder, "run"))


def _everything(section: Section) -> str:
    card = section.card.rows if section.card else []
    texts = [section.title, section.summary, *section.methods, *section.notes]
    texts += [fact.text for fact in section.facts.values()]
    texts += [table.caption for table in section.tables]
    return " | ".join([*texts, *(cell for row in card for cell in row)])


def test_the_read_grade_is_named_among_the_inputs(tmp_path):
    """An image model that is told the grade is no image model: most of its ranking is the grade."""
    told = _section(tmp_path / "read", TrainConfig(), _READS_OTHER_KNEE, kl_input="read")
    card = dict(told.card.rows)
    assert "read KL grade" in told.title
    assert "the read KL grade" in card["Inputs"]
    assert "KL grade of the other knee" in card["Inputs"]
    assert "the read KL grade" in told.facts["training.model"].text
    assert "the read KL grade" in told.facts["training.predictors"].text
    assert "sees no reading" in told.facts["training.missing_factors"].text
    untold = _everything(_section(tmp_path / "none", TrainConfig(), kl_input="none"))
    assert "read KL grade" not in untold


def test_a_run_that_keeps_its_last_epoch_chose_none_and_stopped_at_none(tmp_path):
    last = _section(tmp_path / "last", TrainConfig(select_by="last", epochs=9))
    text = _everything(last)
    assert "was chosen by" not in text
    assert "validation part chose" not in text
    assert "at most" not in text
    assert "9 epochs" in text
    assert "early stopping" not in last.facts["training.overfitting"].text
    assert dict(last.card.rows)["Chosen on"].startswith("Nothing")
    chosen = _section(tmp_path / "loss", TrainConfig(select_by="loss"))
    assert "the epoch was chosen by validation loss" in _everything(chosen)
    assert "early stopping" in chosen.facts["training.overfitting"].text


def test_features_of_a_frozen_encoder_are_not_said_to_be_augmented(tmp_path):
    frozen = _section(tmp_path / "frozen", TrainConfig(stages=_HEADS_ALONE))
    text = frozen.facts["training.procedure"].text
    assert "rotation" not in text
    assert "not augmented" in text
    assert "augmentation" not in frozen.facts["training.overfitting"].text
    whole = _section(tmp_path / "whole", TrainConfig())
    assert "rotation" in whole.facts["training.procedure"].text
    assert "augmentation" in whole.facts["training.overfitting"].text


def test_what_does_vary_the_features_of_a_frozen_encoder_is_told(tmp_path):
    train = TrainConfig(stages=_HEADS_ALONE, augment=AugmentConfig(mixup=0.3))
    text = _section(tmp_path, train, test_time_crops=4).facts["training.procedure"].text
    assert "mixup of features 0.3" in text
    assert "one of 5 views" in text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"time_head": "hazard"}, "discrete-time hazards of progression, replacement and death"),
        ({"time_head": "horizon"}, "binary cross entropy of progression"),
    ],
)
def test_the_loss_of_progression_is_the_one_it_learnt_by(tmp_path, settings, told):
    section = _section(tmp_path, TrainConfig(kl_loss="focal", label_smoothing=0), **settings)
    assert told in section.facts["training.procedure"].text
    assert "focal of the KL grade with weight 1.0" in section.facts["training.procedure"].text
    is_timed = settings["time_head"] == "hazard"
    assert ("12, 24, 36 and 48 months" in section.facts["training.procedure"].text) == is_timed


def test_hashes_of_what_a_run_learnt_from_are_its_provenance(tmp_path):
    section = _section(tmp_path, TrainConfig())
    assert not any(name.startswith("inputs.") for name in section.provenance)
    (tmp_path / "inputs.json").write_text(json.dumps({"images": "ab" * 32}))
    found = training_section(Run(tmp_path, "run")).provenance
    assert found["inputs.images.sha256"] == "ab" * 32
