"""Attributions of networks whose answer is known in closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kneeoa_mm.errors import ConfigError
from kneeoa_mm.learning.fusion import Late
from kneeoa_mm.learning.heads import CoralHead, CornHead, SoftmaxHead
from kneeoa_mm.learning.networks import KLNetwork, ProgressionNetwork
from kneeoa_mm.learning.saliency.answers import Answer, choose_answer
from kneeoa_mm.learning.saliency.attribution import attribute
from kneeoa_mm.learning.saliency.feature_maps import choose_layer
from kneeoa_mm.learning.saliency.question import Method, Question
from kneeoa_mm.settings import ExplainConfig

SIZE_PX = 16
PROGRESSION = Answer("progression")
CONFIG = ExplainConfig(steps=8, draws=8, occlusion_window=0.25, occlusion_stride=0.25)


class Encoder(nn.Module):
    """Two channels, each a multiple of the image."""

    def __init__(self, gains=(1.0, -2.0)):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False))
        self.backbone[0].weight.data = torch.tensor(gains).view(2, 1, 1, 1)

    def forward(self, images):
        return self.backbone(images)

    def feature_map(self):
        return self.backbone[0]


class Weighing(nn.Module):
    """The log-odds are a weighted sum of pixels and factors; of ``curved``, a curve of it."""

    def __init__(self, weights, factor_weights=(), *, curved=False, gains=(1.0, 0.0)):
        super().__init__()
        self.architecture = {"clinical_features": len(factor_weights)}
        self.encoder = Encoder(gains)
        self.weights = nn.Parameter(weights)
        self.factor_weights = nn.Parameter(torch.tensor(factor_weights))
        self.curved = curved

    def forward(self, batch):
        total = (self.encoder(batch["images"]).sum(1) * self.weights).sum((1, 2))
        if len(self.factor_weights):
            total = total + batch["clinical"] @ self.factor_weights
        return {"jsl_logit": torch.sin(total) + total**2 if self.curved else total}


def ask(network, *, clinical=False, answer=PROGRESSION, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image, reference, other = torch.rand(3, 1, 1, SIZE_PX, SIZE_PX, generator=generator)
    if not clinical:
        return Question(network, answer, image, None, reference, None, (other, None))
    own, average, another = torch.rand(3, 1, 3, generator=generator)
    columns = {"age_years": [0, 1], "sex": [2]}
    return Question(network, answer, image, own, reference, average, (other, another), columns)


@pytest.fixture
def weights():
    return torch.randn(SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def question(weights):
    return ask(Weighing(weights, (0.5, -1.0, 2.0)), clinical=True)


def contributions(question, weights, reference):
    return (weights * (question.images - reference)[0, 0]).numpy()


def test_the_input_gradient_of_a_sum_is_its_weights(question, weights):
    found = attribute(question, Method.SALIENCY, CONFIG)
    np.testing.assert_allclose(found.pixels, weights.numpy(), rtol=1e-5)


def test_integrated_gradients_of_a_sum_are_weights_times_differences(question, weights):
    found = attribute(question, Method.INTEGRATED_GRADIENTS, CONFIG)
    expected = contributions(question, weights, question.reference_images)
    np.testing.assert_allclose(found.pixels, expected, atol=1e-4)


def test_gradient_shap_of_a_sum_is_weights_times_the_difference_to_the_other_knee(
    question, weights
):
    found = attribute(question, Method.GRADIENT_SHAP, CONFIG)
    expected = contributions(question, weights, question.others[0])
    np.testing.assert_allclose(found.pixels, expected, atol=1e-4)


def test_occlusion_gives_each_window_what_its_pixels_contribute(question, weights):
    found = attribute(question, Method.OCCLUSION, CONFIG)
    side = SIZE_PX // 4
    each = contributions(question, weights, question.reference_images)
    blocks = each.reshape(4, side, 4, side).sum(axis=(1, 3))
    np.testing.assert_allclose(found.pixels, np.kron(blocks, np.ones((side, side))), atol=1e-4)
    assert found.cells == (4, 4)


def test_grad_cam_weighs_each_channel_by_its_mean_gradient(weights):
    question = ask(Weighing(weights, gains=(1.0, -2.0)))
    found = attribute(question, Method.GRADCAM, CONFIG)
    # both channels have the gradient ``weights``, so both the weight of its mean
    expected = weights.mean() * (1.0 - 2.0) * question.images[0, 0]
    np.testing.assert_allclose(found.pixels, expected.numpy(), rtol=1e-4)


@pytest.mark.parametrize("method", [Method.SALIENCY, Method.INTEGRATED_GRADIENTS, Method.OCCLUSION])
def test_factors_and_picture_stand_on_one_scale(question, weights, method):
    found = attribute(question, method, CONFIG)
    own, average = question.clinical[0], question.reference_clinical[0]
    each = torch.tensor((0.5, -1.0, 2.0)) * (own - average)
    assert found.factors == pytest.approx(
        {"age_years": float(each[:2].sum()), "sex": float(each[2])}, abs=1e-4
    )
    expected = contributions(question, weights, question.reference_images).sum()
    assert found.picture == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("method", [each for each in Method if each is not Method.GRADCAM])
def test_a_grade_of_a_fused_network_is_explained_by_the_picture_alone(method):
    network = ProgressionNetwork("simple_cnn", clinical_features=3).eval()
    found = attribute(
        ask(network, clinical=True, answer=Answer("kl_grade_2", (2,))), method, CONFIG
    )
    assert found.status == "ok"
    assert found.picture is not None
    assert found.factors is None


def test_a_map_follows_the_predicted_grade_into_progression():
    """The grade learns nothing from the risk, yet it is what moves this risk, and alone."""
    torch.manual_seed(0)
    network = ProgressionNetwork("simple_cnn", kl_input="predicted", fusion="late").eval()
    (late,) = (part for part in network.modules() if isinstance(part, Late))
    late.image_scores.weight.data.zero_()
    found = attribute(ask(network), Method.SALIENCY, CONFIG)
    assert found.status == "ok"


@pytest.mark.parametrize("method", [Method.INTEGRATED_GRADIENTS, Method.GRADIENT_SHAP])
def test_additive_methods_say_how_far_they_are_from_adding_up(weights, method):
    question = ask(Weighing(weights / 20, (0.5, -1.0, 2.0), curved=True), clinical=True)
    found = attribute(question, method, replace_steps(64))
    with torch.no_grad():
        own = float(question.log_odds(*question.inputs))
        references = question.references
        if method is Method.GRADIENT_SHAP:
            references = question.others
        explained = own - float(question.log_odds(*references))
    total = found.picture + sum(found.factors.values())
    if method is Method.INTEGRATED_GRADIENTS:
        assert total == pytest.approx(explained, abs=1e-3), "complete (Sundararajan 2017, axiom)"
    assert found.gap == pytest.approx(total - explained, abs=1e-3)


def replace_steps(steps):
    return CONFIG.model_copy(update={"steps": steps})


def test_gradient_shap_repeats_itself_and_leaves_the_global_state_alone(question):
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    first, second = (attribute(question, Method.GRADIENT_SHAP, CONFIG) for _ in range(2))
    assert np.random.random() == expected
    np.testing.assert_array_equal(first.pixels, second.pixels)


def test_gradient_shap_without_another_knee_says_so(question):
    found = attribute(replace(question, others=None), Method.GRADIENT_SHAP, CONFIG)
    assert found.status == "no other knee to compare with"
    assert not found.is_drawn


def test_an_all_negative_grad_cam_is_kept_and_named():
    question = ask(Weighing(-torch.ones(SIZE_PX, SIZE_PX)))
    found = attribute(question, Method.GRADCAM, CONFIG)
    assert found.status == "no positive evidence"
    assert (found.pixels < 0).all()


def test_an_output_that_ignores_the_picture_is_named():
    found = attribute(ask(Weighing(torch.zeros(SIZE_PX, SIZE_PX))), Method.SALIENCY, CONFIG)
    assert found.status == "the output does not depend on the picture"


def test_a_map_that_is_no_number_is_named():
    found = attribute(
        ask(Weighing(torch.full((SIZE_PX, SIZE_PX), torch.nan))), Method.SALIENCY, CONFIG
    )
    assert found.status == "not finite"
    assert (found.pixels == 0).all()


@pytest.mark.parametrize("head", [SoftmaxHead, CoralHead, CornHead])
def test_log_odds_of_grades_are_those_of_the_probabilities_whatever_the_head(head):
    torch.manual_seed(0)
    layer = head(6)
    logits = layer.log_probabilities(layer(torch.randn(7, 6)))
    chance = logits.softmax(1)
    for answer in (Answer("kl_grade_1", (1,)), Answer("kl_2_or_more", (2, 3, 4))):
        inside = chance[:, list(answer.grades)].sum(1)
        found = answer.log_odds({"kl_logits": logits})
        torch.testing.assert_close(found, torch.log(inside / (1 - inside)), rtol=1e-3, atol=1e-4)


def test_the_answer_follows_the_model_unless_it_is_named():
    assert choose_answer("auto", 2, None) == Answer("kl_grade_2", (2,))
    assert choose_answer("auto", 2, "jsl_48m") == PROGRESSION
    assert choose_answer("grade", 2, "jsl_48m").grades == (2,)
    assert choose_answer("4", 2, None) == Answer("kl_grade_4", (4,))
    with pytest.raises(ConfigError, match="no progression"):
        choose_answer("progression", 2, None)


@pytest.mark.parametrize(
    ("backbone", "size_px", "layer", "cells"),
    [
        ("simple_cnn", 96, "features.8", 12),
        ("simple_cnn", 256, "features", 8),
        ("resnet18", 224, "layer4", 7),
        ("resnet18", 128, "layer3", 8),
        ("mobilenet_v2", 320, "features", 10),
        # its branch sees patches, whose maps lie elsewhere
        ("deepknee", 64, "feature_map", None),
    ],
)
def test_grad_cam_looks_at_the_last_layer_that_is_fine_enough(backbone, size_px, layer, cells):
    network = KLNetwork(backbone).eval()
    images = torch.randn(1, 1, size_px, size_px)
    name, _ = choose_layer(network, images)
    assert name == layer
    question = Question(network, Answer("kl_grade_2", (2,)), images, None, images)
    found = attribute(question, Method.GRADCAM, CONFIG)
    assert found.layer == layer
    assert found.pixels.shape == (size_px, size_px)
    if cells:
        assert found.cells == (cells, cells)
