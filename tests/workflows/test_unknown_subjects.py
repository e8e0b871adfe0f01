"""Images whose names tell no person: nothing after them claims to know one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from kneeoa_mm import schemas, tables
from kneeoa_mm.analysis.evaluation import evaluate
from kneeoa_mm.analysis.external import read_development, refuse_overlap
from kneeoa_mm.analysis.report.checklists import filled_checklists
from kneeoa_mm.analysis.report.evaluation import evaluation_section
from kneeoa_mm.analysis.report.predictions import predictions_section
from kneeoa_mm.analysis.report.runs import Run
from kneeoa_mm.analysis.report.training import training_section
from kneeoa_mm.config import load_config
from kneeoa_mm.errors import LeakError
from kneeoa_mm.learning.pretrain_kl import pretrain_kl
from kneeoa_mm.model_folder import ModelCard, member_folders, read_model
from kneeoa_mm.settings import PretrainKLConfig
from kneeoa_mm.workflows.predict import predict

_SMALL = [
    "members=[{backbone: simple_cnn, image_size_px: 32}]",
    "train.batch_size=16",
    "train.epochs=1",
    "cross_validate=true",
    "folds=3",
]
_N = 60


def _pictures(folder, names):
    """Knees of all grades in turn, as ``grade/NAME.png``."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(names):
        path = folder / str(number % 5) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (32, 32), dtype=np.uint8)).save(path)
    return folder


def _trained(data, out):
    config = load_config(PretrainKLConfig, sets=_SMALL)
    pretrain_kl(data, out, config=config, device="cpu", allow_ungrouped=True)
    return out


@pytest.fixture(scope="module")
def nameless(tmp_path_factory):
    """A folder of images such as ``2/17.png``."""
    return _pictures(tmp_path_factory.mktemp("nameless"), range(_N))


@pytest.fixture(scope="module")
def run(nameless, tmp_path_factory):
    """A grader of them."""
    return _trained(nameless, tmp_path_factory.mktemp("runs") / "kl")


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A folder of both knees of each person, whose names tell them."""
    names = [f"{number}{side}" for number in range(_N // 2) for side in "LR"]
    return _pictures(tmp_path_factory.mktemp("named"), names)


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Evaluates predictions: its folder, and what it wrote."""
    monkeypatch.setattr("kneeoa_mm.analysis.evaluation.draw", lambda *_: ())

    def judge(predictions, **options):
        out = tmp_path / "evaluation"
        evaluate(predictions, out, n_boot=20, overwrite=True, **options)
        return out, json.loads((out / "metrics.json").read_text())

    return judge


def _answer(sections, number):
    """What PROBAST+AI is answered."""
    *_, probast = filled_checklists(sections, [])
    return next(row.answer for row in probast.rows if row.number == number)


def test_predictions_of_a_run_name_no_person_and_its_card_says_why(run):
    table = tables.read_table(run / "predictions.parquet", schemas.PREDICTIONS)
    assert set(table["subject_id"]) == {"-"}
    assert table["knee_id"].is_unique
    cards = [read_model(folder, ModelCard)[0] for folder in member_folders(run)]
    assert all(card.seen_subjects.has_unknown for card in cards)
    assert all(len(card.seen_subjects.training) > 1 for card in cards), "images stay apart"


def test_the_evaluation_notes_that_persons_are_unknown(run, judged):
    _, document = judged(run / "predictions.parquet")
    assert document["counts"]["kl"]["persons"] == _N
    assert document["counts"]["kl"]["knees_of_unknown_persons"] == _N
    assert any("each of their knees counts as a person" in note for note in document["notes"])


def test_the_report_and_its_checklists_claim_no_person(run, judged):
    folder, _ = judged(run / "predictions.parquet")
    sections = [training_section(Run(run, "kl")), evaluation_section(Run(folder, "evaluation"))]
    training, evaluation = sections
    assert "training.disjoint" not in training.facts
    assert "folds by person where known" in training.facts["training.partition"].text
    assert any("unknown persons" in limit for limit in training.limits)
    assert "evaluation.unseen" not in evaluation.facts
    assert "unknown person (60) counted as one" in evaluation.facts["evaluation.sample"].text
    assert _answer(sections, "E4.5") == _answer(sections, "E4.1") == ""
    card = dict(training.card.rows)
    assert "unknown" in card["Learnt from"]


def test_persons_are_claimed_where_names_tell_them(named, judged, tmp_path):
    run = _trained(named, tmp_path / "kl")
    folder, document = judged(run / "predictions.parquet")
    assert document["counts"]["kl"]["knees_of_unknown_persons"] == 0
    sections = [training_section(Run(run, "kl")), evaluation_section(Run(folder, "evaluation"))]
    assert _answer(sections, "E4.5") == _answer(sections, "E4.1") == "Y"
    assert "60 knees of 30 persons." in sections[1].facts["evaluation.sample"].text


def test_whether_such_a_model_has_seen_named_persons_cannot_be_told(run, named, judged, tmp_path):
    predict(named, run, tmp_path / "p.parquet", device="cpu")
    folder, document = judged(tmp_path / "p.parquet")
    assert document["counts"]["kl"]["knees_of_unknown_persons"] == 0
    assert any("it has seen these persons cannot be told" in n for n in document["notes"])
    assert "evaluation.unseen" not in evaluation_section(Run(folder, "evaluation")).facts


def test_a_model_that_goes_on_from_such_a_one_knows_no_better(run):
    """As one of progression does, on the encoder of a grader."""
    card, _ = read_model(member_folders(run)[0], ModelCard)
    assert card.seen_subjects.and_also(["9000017"], []).has_unknown


def test_images_that_made_the_model_are_still_told_again(run, nameless, tmp_path):
    """Its own folds score each image that it knows, and it is no external cohort."""
    out = tmp_path / "p.parquet"
    predict(nameless, run, out, device="cpu")
    table = tables.read_table(out, schemas.PREDICTIONS)
    own = tables.read_table(run / "predictions.parquet", schemas.PREDICTIONS)
    folds = own.set_index("knee_id")["fold"]
    assert table["fold"].tolist() == folds[table["knee_id"]].tolist()
    with pytest.raises(LeakError, match="no external validation"):
        refuse_overlap(read_development(run), table, where=out)
    summary = predictions_section(Run(out, "p.parquet")).summary
    assert summary.startswith("60 knees of unknown persons, of which")
