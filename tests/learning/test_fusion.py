"""What may reach what: fusion by its definition, and grades that depend on the image alone."""

import itertools

import pytest
import torch

from kneeoa_mm.errors import ConfigError
from kneeoa_mm.learning.networks import ProgressionNetwork

FACTORS, WIDTH = 3, 128
FUSIONS = ("concat", "film", "late")
KL_INPUTS = ("none", "read", "predicted")
TIMES = ({}, {"visits_months": (12, 24, 48), "horizon_months": 48})


def network(**settings):
    torch.manual_seed(0)
    made = ProgressionNetwork("simple_cnn", **{"clinical_features": FACTORS} | settings).eval()
    for parameter in made.parameters():
        if not parameter.any():  # FiLM starts without effect
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def a_batch(n=2, read=True):
    torch.manual_seed(1)
    grades = torch.nn.functional.one_hot(torch.arange(n) % 5, 5).float()
    return {
        "features": torch.randn(n, WIDTH, requires_grad=True),
        "clinical": torch.randn(n, FACTORS, requires_grad=True),
        "kl_read": (grades if read else torch.zeros(n, 5)).requires_grad_(True),
    }


def reach(output, inputs):
    """Whether each input can change the output."""
    found = torch.autograd.grad(output.sum(), inputs, allow_unused=True, retain_graph=True)
    return [grad is not None and bool(grad.abs().sum() > 0) for grad in found]


@pytest.mark.parametrize(
    ("fusion", "kl_input", "time"), list(itertools.product(FUSIONS, KL_INPUTS, TIMES))
)
def test_grades_depend_on_the_image_and_on_no_factor_and_no_reading(fusion, kl_input, time):
    made, batch = network(fusion=fusion, kl_input=kl_input, **time), a_batch()
    outputs = made(batch)
    inputs = list(batch.values())
    for name in ("kl_scores", "kl_logits"):
        assert reach(outputs[name], inputs) == [True, False, False]
    assert reach(outputs["jsl_logit"], inputs) == [True, True, kl_input == "read"]
    if kl_input == "read":
        assert reach(outputs["jsl_scores_unread"], inputs) == [True, True, False]


def test_progression_teaches_the_kl_head_nothing_through_the_grade_that_it_predicts():
    made, batch = network(kl_input="predicted"), a_batch()
    head = list(made.kl_head.parameters())
    assert reach(made.train()(batch)["jsl_scores"], head) == [False, False]
    made.eval()
    before = made(batch)["jsl_scores"]
    with torch.no_grad():
        made.kl_head.bias += torch.tensor([3.0, 0, 0, 0, 0])
    assert not torch.allclose(made(batch)["jsl_scores"], before), "it sees the predicted grade"


class LeakyNetwork(ProgressionNetwork):
    """A mistake that somebody might make: the factors gate what the KL head sees."""

    def heads(self, features, batch):
        return super().heads(features * batch["clinical"].mean(dim=1, keepdim=True), batch)


class PeekingNetwork(ProgressionNetwork):
    """Another: the reading nudges the grade."""

    def heads(self, features, batch):
        outputs = super().heads(features, batch)
        return outputs | {"kl_logits": outputs["kl_logits"] + batch["kl_read"]}


@pytest.mark.parametrize(
    ("leaky", "through"), [(LeakyNetwork, "clinical"), (PeekingNetwork, "kl_read")]
)
def test_a_network_whose_kl_head_could_see_more_cannot_be_built(leaky, through):
    with pytest.raises(ConfigError, match=f"depend on {through}"):
        leaky("simple_cnn", clinical_features=FACTORS)


@pytest.mark.parametrize("time", TIMES)
def test_a_knee_without_a_reading_gets_the_branch_that_never_saw_one(time):
    made = network(kl_input="read", **time)
    read, unread = made(a_batch()), made(a_batch(read=False))
    column = made.columns("tkr").index("tkr_prob")
    without = made.columns("tkr").index("tkr_prob_without_reading")
    torch.testing.assert_close(unread["jsl_probs"][:, column], unread["jsl_probs"][:, without])
    torch.testing.assert_close(unread["jsl_probs"][:, without], read["jsl_probs"][:, without])
    assert not torch.allclose(read["jsl_probs"][:, column], read["jsl_probs"][:, without])
    mixed = a_batch()
    mixed["kl_read"] = mixed["kl_read"] * torch.tensor([[1.0], [0.0]])
    risks = made(mixed)["jsl_probs"][:, column]
    torch.testing.assert_close(risks[0], read["jsl_probs"][0, column])
    torch.testing.assert_close(risks[1], unread["jsl_probs"][1, column])


def mixed_difference(made):
    """How far the effects of image and factors are from adding up."""
    one, other = a_batch(), a_batch()
    other["features"], other["clinical"] = -one["features"], -one["clinical"]
    scores = {
        (f, c): made(one | {"features": features, "clinical": clinical})["jsl_scores"]
        for f, features in enumerate((one["features"], other["features"]))
        for c, clinical in enumerate((one["clinical"], other["clinical"]))
    }
    return (scores[0, 0] - scores[0, 1] - scores[1, 0] + scores[1, 1]).abs().max().item()


def test_late_fusion_adds_up_and_the_others_interact():
    assert mixed_difference(network(fusion="late")) < 1e-5
    assert mixed_difference(network(fusion="concat", fusion_width=0)) < 1e-5
    assert mixed_difference(network(fusion="concat", fusion_width=16)) > 1e-3
    assert mixed_difference(network(fusion="film")) > 1e-3


def test_film_starts_as_the_image_alone():
    torch.manual_seed(0)
    made = ProgressionNetwork("simple_cnn", clinical_features=FACTORS, fusion="film").eval()
    batch = a_batch()
    changed = batch | {"clinical": batch["clinical"] + 1}
    torch.testing.assert_close(made(batch)["jsl_scores"], made(changed)["jsl_scores"])
    (gates,) = (m for m in made.branch.modules() if hasattr(m, "gates"))
    assert reach(made(batch)["jsl_scores"], [gates.gates.weight]) == [True], "it can leave there"
