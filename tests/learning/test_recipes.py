"""Each shipped recipe of KL grading trains, for a step or two, and says where it comes from.

The real networks at full width, at 64 px, from random weights, on a handful of drawn knees: enough
to fail where a network, a stage, a loss or a vote does not fit the recipe.
"""

import runpy
from itertools import takewhile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kneeoa_mm import schemas, tables
from kneeoa_mm.config import load_config, shipped
from kneeoa_mm.errors import ConfigError
from kneeoa_mm.learning.backbones import build_encoder
from kneeoa_mm.learning.deepknee import DeepKnee
from kneeoa_mm.learning.ensemble import vote
from kneeoa_mm.learning.models import load_ensemble
from kneeoa_mm.learning.networks import KLNetwork
from kneeoa_mm.learning.pretrain_kl import pretrain_kl
from kneeoa_mm.learning.saliency.answers import Answer
from kneeoa_mm.learning.saliency.attribution import attribute
from kneeoa_mm.learning.saliency.question import Method, Question
from kneeoa_mm.metrics import GRADE_METRICS, estimate
from kneeoa_mm.settings import ExplainConfig, PretrainKLConfig

RECIPES = sorted(path.stem for path in (shipped("configs") / "kl").glob("*.yaml"))
SIZE_PX = 64
PROBABILITIES = [f"kl_prob_{grade}" for grade in range(5)]


def recipe_file(name):
    return shipped("configs") / "kl" / f"{name}.yaml"


def short(name, *sets):
    """The recipe as it is, but small images, random weights and an epoch a stage."""
    whole = load_config(PretrainKLConfig, recipe=recipe_file(name))
    least = [
        f"train.epochs={len(whole.train.stages)}",
        *(f"train.stages.{n}.epochs=1" for n in range(len(whole.train.stages))),
        *(f"members.{n}.image_size_px={SIZE_PX}" for n in range(len(whole.members))),
        *(f"members.{n}.weights=none" for n in range(len(whole.members))),
    ]
    return load_config(PretrainKLConfig, recipe=recipe_file(name), sets=[*least, *sets])


def graded(folder, knee_of_grade, subjects):
    """Both knees of so many subjects in each part, the grades in turn."""
    generator = np.random.default_rng(0)
    number = 9000000
    for part, n_subjects in subjects.items():
        for index in range(n_subjects):
            number += 1
            place = folder / part / str(index % 5)
            place.mkdir(parents=True, exist_ok=True)
            for side in "LR":
                pixels = knee_of_grade(index % 5, generator)
                Image.fromarray(pixels).save(place / f"{number}{side}.png")
    return folder


@pytest.fixture
def few_knees(tmp_path, knee_of_grade):
    """One batch to learn from, and one to choose on."""
    return graded(tmp_path / "few", knee_of_grade, {"train": 5, "val": 5})


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "ensemble-small"])
def test_a_recipe_trains_through_all_its_stages(name, few_knees, tmp_path):
    """On one split: folds are the same for all recipes, and ``ensemble-small`` has them."""
    config = short(name, "cross_validate=false")
    result = pretrain_kl(few_knees, tmp_path / "run", config=config, device="cpu")
    n_members = len(config.members) * config.repeats
    assert result.counts["members"] == n_members
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    stages = list(range(1, len(config.train.stages) + 1))
    assert history.groupby("member")["stage"].agg(list).tolist() == [stages] * n_members
    predictions = tables.read_table(tmp_path / "run" / "predictions.parquet", schemas.PREDICTIONS)
    assert len(predictions) == 10
    np.testing.assert_allclose(predictions[PROBABILITIES].sum(axis=1), 1, atol=1e-5)


@pytest.fixture(scope="module")
def voted(tmp_path_factory, knee_of_grade):
    """``ensemble-small`` on three folds: its result, and its run folder."""
    folder = tmp_path_factory.mktemp("voted")
    knees = graded(folder / "knees", knee_of_grade, {"train": 15})
    config = short("ensemble-small", "folds=3")
    return pretrain_kl(knees, folder / "run", config=config, device="cpu"), folder / "run"


def test_an_ensemble_leaves_what_each_member_said_of_the_knees_that_it_never_saw(voted):
    result, run = voted
    said = {
        path.parent.name: tables.read_table(path, schemas.PREDICTIONS)
        for path in sorted(run.glob("members/*/predictions.parquet"))
    }
    assert len(said) == result.counts["members"] == 4 * 3
    for member in load_ensemble(run).members:
        subjects = set(said[member.name]["subject_id"])
        assert subjects
        assert not member.card.seen_subjects.in_training(subjects)
        assert not member.card.seen_subjects.in_selection(subjects)
    together = pd.concat(said.values()).groupby("knee_id")[PROBABILITIES]
    assert (together.size() == 4).all(), "each knee by one member of each network"
    predictions = tables.read_table(run / "predictions.parquet", schemas.PREDICTIONS)
    ours = predictions.set_index("knee_id")[PROBABILITIES].sort_index()
    pd.testing.assert_frame_equal(together.mean(), ours, atol=1e-6)


def test_all_three_rules_are_reported_and_are_the_votes_of_the_members(voted):
    result, run = voted
    said = pd.concat(
        tables.read_table(path, schemas.PREDICTIONS)
        for path in sorted(run.glob("members/*/predictions.parquet"))
    )
    knees = sorted(set(said["knee_id"]))
    ballots = said.groupby("knee_id")[PROBABILITIES].agg(list).loc[knees]
    probabilities = np.moveaxis(np.array(ballots.to_numpy().tolist()), 2, 0)
    truth = said.groupby("knee_id")["kl_grade"].first().loc[knees].to_numpy(int)
    for rule in ("hard", "soft", "mix"):
        grades = vote(probabilities, rule)
        table = tables.read_table(run / "voting" / f"{rule}.parquet", schemas.PREDICTIONS)
        assert table.set_index("knee_id")["kl_grade_pred"].loc[knees].tolist() == grades.tolist()
        shown = result.figures[f"KL, out of fold, {rule} vote"]
        by_hand = estimate(GRADE_METRICS["accuracy"], truth, grades, []).value
        assert shown["accuracy"] == pytest.approx(by_hand, abs=1e-4)


def test_repeats_start_and_learn_differently(few_knees, tmp_path):
    config = short("deepknee", "train.epochs=1")
    pretrain_kl(few_knees, tmp_path / "run", config=config, device="cpu")
    members = load_ensemble(tmp_path / "run").members
    assert [member.name for member in members] == ["00-deepknee", "01-deepknee", "02-deepknee"]
    first, *others = (member.network.kl_head.weight for member in members)
    assert not any(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_where_it_comes_from_and_whether_it_was_run(name):
    lines = recipe_file(name).read_text(encoding="utf-8").splitlines()
    comment = "\n".join(line[1:].strip() for line in takewhile(lambda x: x.startswith("#"), lines))
    remarks = {paragraph.partition(":")[0] for paragraph in comment.split("\n\n")[1:]}
    assert remarks == {"Source", "Differs", "Needs", "Run"}


def backbones():
    recipes = (load_config(PretrainKLConfig, recipe=recipe_file(name)) for name in RECIPES)
    return sorted({member.backbone for recipe in recipes for member in recipe.members})


@pytest.mark.parametrize("backbone", backbones())
def test_grad_cam_finds_its_way_in_the_network_of_a_recipe(backbone):
    network = KLNetwork(backbone).eval()
    images = torch.randn(1, 1, SIZE_PX, SIZE_PX)
    question = Question(network, Answer("kl_grade_2", (2,)), images, None, torch.zeros_like(images))
    found = attribute(question, Method.GRADCAM, ExplainConfig())
    assert found.pixels.shape == (SIZE_PX, SIZE_PX)
    assert found.is_drawn


def test_a_network_that_could_not_be_read_back_is_refused_before_it_is_trained():
    with pytest.raises(ConfigError, match="MNASNet"):
        build_encoder("mnasnet0_5")


def test_a_network_of_another_image_size_is_refused_before_anything_is_written(few_knees, tmp_path):
    """Transformers take one size alone: reading all images first would waste a night."""
    member = f"{{backbone: 'timm:vit_tiny_patch16_224', image_size_px: {SIZE_PX}}}"
    config = load_config(PretrainKLConfig, sets=[f"members=[{member}]"])
    with pytest.raises(ConfigError, match=rf"(?s)images of {SIZE_PX} px.*224.*image_size_px"):
        pretrain_kl(few_knees, tmp_path / "run", config=config, device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_network_without_a_classifier_on_features_is_refused():
    with pytest.raises(ConfigError, match="no classifier"):
        build_encoder("squeezenet1_1")


def deepknee_features(images):
    torch.manual_seed(0)
    network = DeepKnee().eval()
    with torch.no_grad():
        return network(images.expand(-1, 3, -1, -1))


def test_deepknee_sees_both_sides_alike_and_nothing_else():
    """Mirrored, a knee swaps the features of its sides; the middle and the ends do not count."""
    torch.manual_seed(1)
    images = torch.randn(2, 1, 300, 300)
    lateral, medial = deepknee_features(images).split(256, dim=1)
    torch.testing.assert_close(
        deepknee_features(images.flip(-1)), torch.cat([medial, lateral], dim=1)
    )
    blind = images.clone()
    blind[..., 128:172] = 9
    blind[..., :100, :] = 9
    blind[..., 228:, :] = 9
    torch.testing.assert_close(deepknee_features(blind), deepknee_features(images))
    seen = images.clone()
    seen[..., 100:228, 172:] = 9
    other_lateral, other_medial = deepknee_features(seen).split(256, dim=1)
    torch.testing.assert_close(other_lateral, lateral)
    assert not torch.allclose(other_medial, medial)


def test_deepknee_draws_its_evidence_where_it_lies():
    """Grad-CAM of a feature of the medial side is empty on the lateral side, and the reverse."""
    torch.manual_seed(0)
    network = DeepKnee().eval()
    maps = []
    network.feature_map.register_forward_hook(lambda *call: maps.append(call[2]))
    network(torch.randn(1, 3, 300, 300))
    lateral, medial = maps[0].abs().split(256, dim=1)
    assert lateral[..., 19:].sum() == medial[..., :19].sum() == 0
    rows = lateral.sum(dim=(0, 1, 3)).nonzero().flatten()
    assert rows.min() * 300 / 38 == pytest.approx(100, abs=8)
    assert (rows.max() + 1) * 300 / 38 == pytest.approx(228, abs=8)


def test_the_committed_table_of_recipes_is_what_the_recipes_say(repository, monkeypatch):
    """`python docs/_ext/generated_reference.py` writes it anew."""
    pytest.importorskip("timm")
    pytest.importorskip("sphinx")
    monkeypatch.setenv("TYPER_USE_RICH", "0")  # what the module sets ends with this test
    reference = runpy.run_path(str(repository / "docs" / "_ext" / "generated_reference.py"))
    page = (repository / "docs" / "reference" / "recipes.md").read_text(encoding="utf-8")
    assert reference["filled"]("reference/recipes", page) == page
    assert all(f"\n## {recipe}\n" in page for recipe in RECIPES)
