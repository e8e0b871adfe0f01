"""Losses of progression and grade together: what is missing costs nothing, weights as published."""

import math

import pytest
import torch

from kneeoa_mm.learning.losses import GradeLoss, grade_targets, progression_loss
from kneeoa_mm.learning.progression_loss import ProgressionLoss
from kneeoa_mm.learning.time_heads import HazardHead, HorizonHead

NAN = math.nan
GRADES = torch.tensor([2.0, NAN, 0.0, 4.0])
EVENTS = torch.tensor([1.0, 0.0, NAN, 1.0])


def loss_of(head=None, *, kl_loss_weight=0.5, learns_weights=False):
    return ProgressionLoss(
        head or HorizonHead(),
        GradeLoss(),
        kl_loss_weight=kl_loss_weight,
        learns_weights=learns_weights,
    )


def outputs(shape=(4, 1), unread=False):
    generator = torch.Generator().manual_seed(0)
    made = {"kl_scores": torch.randn(4, 5, generator=generator, requires_grad=True)}
    for name in ("jsl_scores", "jsl_scores_unread")[: 1 + unread]:
        made[name] = torch.randn(*shape, generator=generator, requires_grad=True)
    return made | {"kl_logits": made["kl_scores"]}


def horizon_labels(events=EVENTS, grades=GRADES):
    target = grade_targets(grades.double().numpy())
    return {"event": events, "kl_target": target, "kl_read": target}


def hazard_labels(free_until):
    causes = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]])
    labels = {"free_until": torch.tensor(free_until), "event_by": torch.tensor([2, 0, 0, 3])}
    return horizon_labels() | labels | {"causes": causes}


def test_each_loss_is_of_the_knees_that_have_its_label():
    made, labels = outputs(), horizon_labels()
    event = progression_loss(made["jsl_scores"].squeeze(1), EVENTS)
    grade = GradeLoss()(made, labels)
    torch.testing.assert_close(loss_of()(made, labels), event + 0.5 * grade)


def test_with_the_reading_each_branch_learns_from_the_knees_that_it_is_for():
    made, labels = outputs(unread=True), horizon_labels()
    loss_of()(made, labels).backward()
    # knees 1 and 2 lack the grade and the outcome
    assert (made["jsl_scores"].grad.squeeze(1) != 0).tolist() == [True, False, False, True]
    assert (made["jsl_scores_unread"].grad.squeeze(1) != 0).tolist() == [True, True, False, True]


@pytest.mark.parametrize("learns_weights", [False, True])
@pytest.mark.parametrize("is_timed", [False, True])
def test_a_batch_without_any_label_gives_zero_attached_to_the_graph(is_timed, learns_weights):
    nothing = torch.full((4,), NAN)
    labels = horizon_labels(nothing, nothing)
    head, shape = HorizonHead(), (4, 1)
    if is_timed:
        head, shape = HazardHead((12, 24, 48), 48), (4, 3, 4)
        labels |= hazard_labels([-1] * 4) | {k: labels[k] for k in ("kl_target", "kl_read")}
    made, loss = outputs(shape, unread=True), loss_of(head, learns_weights=learns_weights)
    value = loss(made, labels)
    value.backward()
    assert value.item() == 0
    for name in ("jsl_scores", "jsl_scores_unread", "kl_scores"):
        assert made[name].grad.abs().sum() == 0
    for log_variance in loss.parameters():
        assert log_variance.grad.item() == 0


def test_learnt_weights_settle_where_each_loss_weighs_as_it_should():
    """Kendall et al. 2018: d/ds of exp(-s) L + s / 2 is zero at s = log(2 L)."""
    made = {name: value.detach() for name, value in outputs().items()}
    labels, loss = horizon_labels(), loss_of(kl_loss_weight=1.0, learns_weights=True)
    optimiser = torch.optim.LBFGS(loss.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = loss(made, labels)
        value.backward()
        return value

    optimiser.step(closure)
    event = progression_loss(made["jsl_scores"].squeeze(1), EVENTS)
    grade = GradeLoss()(made, labels)
    for name, each in (("jsl_scores", event), ("kl_scores", grade)):
        assert loss.log_variances[name].item() == pytest.approx(math.log(2 * each), abs=1e-3)


def test_epochs_are_judged_by_fixed_weights():
    made, labels, loss = outputs(), horizon_labels(), loss_of(learns_weights=True)
    with torch.no_grad():
        loss.log_variances["kl_scores"].fill_(3.0)
    assert loss(made, labels) != loss_of()(made, labels)
    torch.testing.assert_close(loss.eval()(made, labels), loss_of()(made, labels))
