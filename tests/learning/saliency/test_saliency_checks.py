"""The checks of maps, on networks that are known to look at one place only."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from torch import nn

from kneeoa_mm.learning.networks import KLNetwork
from kneeoa_mm.learning.saliency import faithfulness_table
from kneeoa_mm.learning.saliency.answers import Answer
from kneeoa_mm.learning.saliency.attribution import attribute
from kneeoa_mm.learning.saliency.faithfulness import check, check_again, check_order, share_inside
from kneeoa_mm.learning.saliency.faithfulness_table import MEASURES, Checks
from kneeoa_mm.learning.saliency.question import Attribution, Method, Question
from kneeoa_mm.learning.saliency.randomisation import STAGES, randomise, rank_correlation
from kneeoa_mm.learning.saliency.removal import (
    DETAIL_ORDER,
    RANDOM_ORDER,
    area,
    cell_sums,
    cells_of,
    control_orders,
    infidelity,
    removal_curves,
    remove_at_random,
    without,
)
from kneeoa_mm.settings import ExplainConfig

SIZE_PX = 32
PLACE = (slice(8, 16), slice(16, 28))
ONES = np.ones((SIZE_PX, SIZE_PX), np.float32)
CONFIG = ExplainConfig(steps=8, occlusion_window=0.125, occlusion_stride=0.125)
METHODS = (Method.SALIENCY, Method.INTEGRATED_GRADIENTS, Method.OCCLUSION)


class Watcher(nn.Module):
    """Its log-odds are the brightness of one rectangle."""

    def __init__(self):
        super().__init__()
        self.architecture = {"clinical_features": 0}
        self.encoder = nn.Identity()
        weights = torch.zeros(SIZE_PX, SIZE_PX)
        weights[PLACE] = 0.1
        self.weights = nn.Parameter(weights)

    def forward(self, batch):
        seen = (self.encoder(batch["images"])[:, 0] * self.weights).sum((1, 2))
        return {"jsl_logit": seen - 3}


@pytest.fixture
def question():
    generator = torch.Generator().manual_seed(0)
    bright = 0.5 + 0.5 * torch.rand(1, 1, SIZE_PX, SIZE_PX, generator=generator)
    return Question(Watcher(), Answer("progression"), bright, None, torch.zeros_like(bright))


@pytest.fixture
def mask():
    inside = np.zeros((SIZE_PX, SIZE_PX), dtype=np.float32)
    inside[PLACE] = 1
    return inside


@pytest.fixture
def removals(question):
    return remove_at_random(question, 16, np.random.default_rng(0))


@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_watches_a_rectangle_is_found_there(question, removals, mask, method):
    found = attribute(question, method, CONFIG)
    values, _ = check(question, found, CONFIG, removals=removals, mask=mask)
    assert values["joint_share"] == pytest.approx(1, abs=1e-6)
    assert values["joint_area_share"] == pytest.approx(8 * 12 / SIZE_PX**2)
    assert values["joint_enrichment"] == pytest.approx(SIZE_PX**2 / (8 * 12), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_true_map_wins_deletion_and_insertion_over_chance(question, removals, method):
    found = attribute(question, method, CONFIG)
    values, curves = check(question, found, CONFIG, removals=removals, mask=None)
    orders = control_orders(question, np.random.default_rng(0))
    chance, _ = check_order(question, orders[RANDOM_ORDER], CONFIG)
    assert values["deletion_area"] < chance["deletion_area"]
    assert values["insertion_area"] > chance["insertion_area"]
    # a tenth of the picture holds all that matters
    assert curves["deletion"][1] == pytest.approx(curves["deletion"][-1], abs=1e-5)
    assert curves["insertion"][1] == pytest.approx(curves["insertion"][-1], abs=1e-5)


def test_a_map_of_the_wrong_place_loses_both(question, removals):
    wrong = np.ones((SIZE_PX, SIZE_PX), np.float32)
    wrong[PLACE] = 0
    found = Attribution(Method.INTEGRATED_GRADIENTS, wrong)
    values, _ = check(question, found, CONFIG, removals=removals, mask=None)
    orders = control_orders(question, np.random.default_rng(0))
    chance, _ = check_order(question, orders[RANDOM_ORDER], CONFIG)
    assert values["deletion_area"] > chance["deletion_area"]
    assert values["insertion_area"] < chance["insertion_area"]


def test_exact_contributions_leave_no_infidelity_and_random_ones_do(question, removals):
    exact = attribute(question, Method.INTEGRATED_GRADIENTS, CONFIG)
    values, _ = check(question, exact, CONFIG, removals=removals, mask=None)
    assert values["unexplained_share"] == pytest.approx(0, abs=1e-6)
    gradient = attribute(question, Method.SALIENCY, CONFIG)
    values, _ = check(question, gradient, CONFIG, removals=removals, mask=None)
    assert values["unexplained_share"] == pytest.approx(0, abs=1e-6)
    noise = np.random.default_rng(0).normal(size=(SIZE_PX, SIZE_PX)).astype(np.float32)
    random = Attribution(Method.INTEGRATED_GRADIENTS, noise)
    values, _ = check(question, random, CONFIG, removals=removals, mask=None)
    assert values["unexplained_share"] > 0.3
    assert values["infidelity"] > 0.01


def test_curves_run_from_the_knee_to_the_reference_and_back(question):
    curves = removal_curves(question, np.arange(len(cell_sums(ONES, cells_of(SIZE_PX)))), 4)
    deletion, insertion = curves["deletion"], curves["insertion"]
    with torch.no_grad():
        own, reference = (
            float(question.log_odds(images).sigmoid())
            for images in (question.images, question.reference_images)
        )
    assert (deletion[0], insertion[-1]) == pytest.approx((own, own))
    assert (deletion[-1], insertion[0]) == pytest.approx((reference, reference))


def test_infidelity_is_that_of_captum_on_the_same_removals(question, removals):
    """After Captum's best factor, which it finds from the same draws."""
    pixels = torch.rand(1, 1, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1))
    cells = cells_of(SIZE_PX)
    masks = torch.from_numpy(removals.taken)[:, cells].unsqueeze(1)
    changed = without(question, removals.taken, cells)
    expected = captum_infidelity(
        question.log_odds,
        lambda _: (masks.float(), changed),
        question.images,
        pixels,
        n_perturb_samples=len(masks),
        normalize=True,
    )
    error, unexplained = infidelity(cell_sums(pixels[0, 0].numpy(), cells), removals)
    assert error == pytest.approx(float(expected), rel=1e-4)
    assert unexplained == pytest.approx(error / np.mean(removals.lost**2))


def test_a_map_that_tells_nothing_explains_nothing(removals):
    error, unexplained = infidelity(np.zeros(removals.taken.shape[1]), removals)
    assert (error, unexplained) == (pytest.approx(np.mean(removals.lost**2)), 1)


def test_the_cells_with_most_detail_come_first_whatever_the_network_looks_at(question):
    images = question.images.clone()
    images[..., 24:, :4] = 40
    orders = control_orders(replace(question, images=images), np.random.default_rng(0))
    first = cells_of(SIZE_PX).numpy()[24:, :4]
    assert set(orders[DETAIL_ORDER][: len(np.unique(first))]) == set(np.unique(first))


def test_areas_are_by_trapezoids():
    assert area(np.array([1.0, 0.0])) == 0.5
    assert area(np.array([1.0, 1.0, 0.0, 0.0])) == pytest.approx(0.5)


@pytest.mark.parametrize("size_px", [8, 16, 40, 320])
def test_every_pixel_belongs_to_a_cell_and_cells_are_alike(size_px):
    cells = cells_of(size_px)
    sizes = np.bincount(cells.flatten())
    assert len(sizes) == min(16, size_px) ** 2
    assert sizes.max() <= np.ceil(size_px / min(16, size_px)) ** 2
    assert cell_sums(np.ones((size_px, size_px), np.float32), cells) == pytest.approx(sizes)


def test_a_share_is_by_size_whatever_the_sign():
    pixels = np.array([[1, -3], [2, 0]], np.float32)
    mask = np.array([[0, 1], [0.5, 1]], np.float32)
    assert share_inside(pixels, mask) == pytest.approx((3 + 1) / 6)
    assert np.isnan(share_inside(np.zeros((2, 2), np.float32), mask))


def test_the_map_of_a_linear_network_barely_moves_with_noise_unlike_that_of_a_steep_one(question):
    found = attribute(question, Method.SALIENCY, CONFIG)
    values = check_again(
        question, found, CONFIG, radius=0.02, randomised=[question.network] * len(STAGES)
    )
    assert values["max_sensitivity"] == pytest.approx(0, abs=1e-5)
    assert values["rank_correlation_everything"] == pytest.approx(1)


def test_random_weights_move_the_map_of_a_trained_network_away(question):
    found = attribute(question, Method.SALIENCY, CONFIG)
    networks = randomise(question.network, question.images, len(STAGES), seed=0)
    values = check_again(question, found, CONFIG, radius=0.02, randomised=networks)
    assert abs(values["rank_correlation_everything"]) < 0.3


def test_randomisation_descends_from_the_heads_and_keeps_the_weights_of_each_layer():
    network = KLNetwork("simple_cnn").eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copies = randomise(network, torch.randn(1, 1, 64, 64), len(STAGES), seed=0)

    def changed(copy):
        state = copy.state_dict()
        return {n for n, old in before.items() if old.numel() > 1 and not old.equal(state[n])}

    first, *_, last = (changed(copy) for copy in copies)
    assert first == {"kl_head.weight", "kl_head.bias"}
    convolutions = {name for name, value in before.items() if value.dim() == 4}
    assert convolutions <= last
    sizes = [len(changed(copy)) for copy in copies]
    assert sizes == sorted(sizes)
    upper = "encoder.backbone.features.12.weight"
    assert upper in changed(copies[1])
    assert "encoder.backbone.features.0.weight" not in changed(copies[2])
    for name, value in copies[-1].state_dict().items():
        assert torch.equal(value.flatten().sort().values, before[name].flatten().sort().values)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_random_layers_forget_what_they_normalised_by_too():
    """Means and variances of a normalising layer are learnt from the data, as its weights are."""
    torch.manual_seed(1)
    network = KLNetwork("simple_cnn").eval()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    before = {name: value.clone() for name, value in network.named_buffers()}
    heads, *_, everything = randomise(network, torch.randn(1, 1, 64, 64), len(STAGES), seed=0)
    for name, buffer in everything.named_buffers():
        if buffer.numel() > 1:
            assert not buffer.equal(before[name]), name
            assert torch.equal(buffer.sort().values, before[name].sort().values)
    kept = dict(heads.named_buffers())
    assert all(kept[name].equal(old) for name, old in before.items())


def test_rank_correlation_compares_sizes():
    one = np.arange(-8, 8, dtype=np.float32).reshape(4, 4)
    assert rank_correlation(one, -2 * one) == pytest.approx(1)
    assert np.isnan(rank_correlation(one, np.ones((4, 4), np.float32)))


def test_the_table_averages_knees_and_draws_persons(monkeypatch):
    monkeypatch.setattr(faithfulness_table, "_LEAST_PERSONS", 2)
    checks = Checks()
    insertion = {"a": 0.2, "b": 0.4, "c": 0.9}
    persons = {"a": "p", "b": "p", "c": "q"}
    for knee, value in insertion.items():
        identity = {"knee_id": knee, "person": persons[knee], "member": "m"}
        curve = {"insertion": np.array([0.0, value])}
        checks.add(identity, RANDOM_ORDER, {"insertion_area": 0.1}, curve)
        found = {"insertion_area": value, "infidelity": float("nan")}
        checks.add(identity, "saliency", found, curve)
    rows = {(row["method"], row["measure"]): row for row in checks.summary(seed=0)}
    whole = rows["saliency", "insertion_area"]
    assert whole["value"] == pytest.approx(0.5)
    assert (whole["n_knees"], whole["n_persons"]) == (3, 2)
    # all that two persons can be drawn as: p p, p q, q q
    assert (whole["ci_low"], whole["ci_high"]) == pytest.approx((0.3, 0.9))
    assert rows["saliency", "insertion_gain"]["value"] == pytest.approx(0.4)
    undefined = rows["saliency", "infidelity"]
    assert (undefined["value"], undefined["n_undefined"]) == (None, 3)
    assert undefined["reason"]
    assert set(pd.DataFrame(checks.summary(seed=0))["measure"]) <= set(MEASURES)
    curves = checks.mean_curves()
    last = curves[(curves["method"] == "saliency") & (curves["share"] == 1)]
    assert last["probability"].item() == pytest.approx(0.5)


def test_a_knee_counts_once_by_the_mean_of_the_members_that_speak():
    """And each map is held against the random order of its own member."""
    checks = Checks()
    areas = {("a", "m"): 0.2, ("a", "n"): 0.6, ("b", "m"): 0.8}
    for (knee, member), value in areas.items():
        identity = {"knee_id": knee, "person": knee, "member": member}
        control = 0.1 if member == "m" else 0.3
        curve = {"insertion": np.array([0.0, value])}
        checks.add(identity, RANDOM_ORDER, {"insertion_area": control}, curve)
        checks.add(identity, "saliency", {"insertion_area": value}, curve)
    rows = {(row["method"], row["measure"]): row for row in checks.summary(seed=0)}
    assert rows["saliency", "insertion_area"]["value"] == pytest.approx((0.4 + 0.8) / 2)
    assert rows["saliency", "insertion_area"]["n_knees"] == 2
    assert rows["saliency", "insertion_gain"]["value"] == pytest.approx((0.2 + 0.7) / 2)
    curves = checks.mean_curves()
    last = curves[(curves["method"] == "saliency") & (curves["share"] == 1)]
    assert last["probability"].item() == pytest.approx(0.6)
    assert last["n_knees"].item() == 2


@pytest.mark.parametrize("n_persons", [1, 9, 10])
def test_a_few_persons_have_no_interval(n_persons):
    checks = Checks()
    for number in range(n_persons):
        identity = {"knee_id": str(number), "person": str(number), "member": "m"}
        checks.add(identity, "saliency", {"infidelity": float(number)}, {})
    (row,) = checks.summary(seed=0)
    assert row["value"] == pytest.approx((n_persons - 1) / 2)
    assert (row["ci_low"] is None) == (n_persons < 10)
    assert ("10 persons" in (row["reason"] or "")) == (n_persons < 10)
