"""Losses and heads of the grade: oracles are torch, closed forms and the papers' definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from kneeoa_mm.errors import ConfigError
from kneeoa_mm.learning.heads import CoralHead, CornHead, build_head, check_head, head_of
from kneeoa_mm.learning.losses import GradeLoss, grade_targets, grade_weights

LOSSES = ["cross_entropy", "focal", "expected_grade", "coral", "corn"]
GRADES = torch.tensor([0, 3, 1, 4, 2, 2, 0, 1])


def outputs_of(name, scores):
    head = build_head(head_of(name), 3)
    return {"kl_scores": scores, "kl_logits": head.log_probabilities(scores)}


def scores_for(name, n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4 if name in {"coral", "corn"} else 5, generator=generator)


def loss_of(name, scores, targets, **settings):
    return GradeLoss(name, **settings)(outputs_of(name, scores), {"kl_target": targets})


def one_hot(grades=GRADES):
    return functional.one_hot(grades, 5).float()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_that_of_torch(smoothing):
    scores = scores_for("cross_entropy")
    theirs = functional.cross_entropy(scores, GRADES, label_smoothing=smoothing)
    ours = loss_of("cross_entropy", scores, one_hot(), label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)


def test_weighted_cross_entropy_is_that_of_torch():
    scores, weights = scores_for("cross_entropy"), torch.tensor([1.0, 2, 0.5, 3, 1])
    theirs = functional.cross_entropy(scores, GRADES, weight=weights)
    torch.testing.assert_close(loss_of("cross_entropy", scores, one_hot(), weights=weights), theirs)


def test_focal_loss_forgets_what_is_sure_and_is_cross_entropy_without_gamma():
    """Lin et al. 2017: a knee at probability p costs (1 - p) ** gamma as much as before."""
    scores = torch.log(torch.tensor([[0.9, 0.025, 0.025, 0.025, 0.025]]))
    target = one_hot(torch.tensor([0]))
    plain = loss_of("cross_entropy", scores, target)
    assert loss_of("focal", scores, target, focal_gamma=2.0) == pytest.approx(0.01 * plain.item())
    torch.testing.assert_close(loss_of("focal", scores, target, focal_gamma=0.0), plain)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 1.0, 2.0])
def test_focal_loss_has_a_slope_where_a_grade_is_sure(gamma):
    scores = torch.tensor([[40.0, 0, 0, 0, 0]], requires_grad=True)
    loss_of("focal", scores, one_hot(torch.tensor([0])), focal_gamma=gamma).backward()
    assert scores.grad.isfinite().all()


def test_the_expected_grade_costs_the_square_of_its_error():
    scores = torch.log(torch.tensor([[0.5, 0.0001, 0.0001, 0.0001, 0.4997]]))
    target = one_hot(torch.tensor([0]))
    extra = loss_of("expected_grade", scores, target) - loss_of("cross_entropy", scores, target)
    assert extra.item() == pytest.approx((0.0001 * 6 + 4 * 0.4997) ** 2, rel=1e-4)


def test_corn_is_the_likelihood_of_the_grades_over_the_thresholds_they_reach():
    """Shi et al. 2023, eq. 6: a mean over all knees of all conditional training sets."""
    scores = scores_for("corn")
    likelihood = functional.nll_loss(CornHead.log_probabilities(scores), GRADES, reduction="sum")
    reached = sum(int((k <= GRADES).sum()) for k in range(4))
    torch.testing.assert_close(loss_of("corn", scores, one_hot()), likelihood / reached)


def test_coral_is_the_binary_loss_of_every_threshold():
    """Cao et al. 2020, eq. 4, with equal importance."""
    scores = scores_for("coral")
    by_hand = 0.0
    for row, grade in zip(scores, GRADES, strict=True):
        for k in range(4):
            p = torch.sigmoid(row[k])
            by_hand -= torch.log(p if grade > k else 1 - p)
    torch.testing.assert_close(loss_of("coral", scores, one_hot()), by_hand / len(GRADES))


@given(st.lists(st.floats(-20, 20), min_size=4, max_size=4))
def test_thresholds_give_probabilities_that_sum_to_one(row):
    for head in (CoralHead, CornHead):
        p = head.log_probabilities(torch.tensor([row])).exp()
        assert (p >= 0).all()
        assert p.sum().item() == pytest.approx(1, abs=1e-5)


def test_corn_probabilities_are_products_of_conditional_ones():
    z = torch.tensor([[1.2, -0.3, 0.4, 2.0]])
    pass_ = torch.sigmoid(z)[0]
    by_hand = [1 - pass_[0], pass_[0] * (1 - pass_[1]), pass_[:2].prod() * (1 - pass_[2]),
               pass_[:3].prod() * (1 - pass_[3]), pass_.prod()]  # fmt: skip
    torch.testing.assert_close(CornHead.log_probabilities(z).exp()[0], torch.stack(by_hand))


def test_coral_probabilities_are_steps_between_thresholds():
    z = torch.tensor([[2.0, 1.0, -1.0, -3.0]])
    above = torch.sigmoid(z)[0]
    by_hand = torch.stack([1 - above[0], above[0] - above[1], above[1] - above[2],
                           above[2] - above[3], above[3]])  # fmt: skip
    torch.testing.assert_close(CoralHead.log_probabilities(z).exp()[0], by_hand)


@pytest.mark.parametrize("name", LOSSES)
def test_a_missing_grade_is_left_out_and_a_batch_of_them_costs_nothing(name):
    scores = scores_for(name).requires_grad_()
    some = one_hot()
    some[3:] = 0
    torch.testing.assert_close(
        loss_of(name, scores, some), loss_of(name, scores[:3], one_hot()[:3])
    )
    loss = loss_of(name, scores, torch.zeros(8, 5))
    loss.backward()
    assert loss.item() == scores.grad.abs().sum() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_least_where_the_grades_are_right(name):
    """Descending it on free scores ends at the true grades."""
    scores = scores_for(name).requires_grad_()
    optimiser = torch.optim.Adam([scores], lr=0.3)
    for _ in range(150):
        optimiser.zero_grad()
        loss_of(name, scores, one_hot()).backward()
        optimiser.step()
    assert outputs_of(name, scores)["kl_logits"].argmax(dim=1).tolist() == GRADES.tolist()


@pytest.mark.parametrize("name", ["cross_entropy", "coral"])
def test_a_mixed_knee_costs_what_its_parts_cost(name):
    """These losses are linear in the label, so mixup needs no other definition."""
    scores = scores_for(name)
    mixed = 0.3 * one_hot() + 0.7 * one_hot(GRADES.flip(0))
    parts = 0.3 * loss_of(name, scores, one_hot())
    parts = parts + 0.7 * loss_of(name, scores, one_hot(GRADES.flip(0)))
    torch.testing.assert_close(loss_of(name, scores, mixed), parts)


@pytest.mark.parametrize("name", LOSSES)
def test_a_knee_mixed_with_an_ungraded_one_counts_by_its_share_and_keeps_its_target(name):
    scores = scores_for(name)
    whole = loss_of(name, scores, one_hot(), label_smoothing=0.1)
    shared = loss_of(name, scores, 0.3 * one_hot(), label_smoothing=0.1)
    torch.testing.assert_close(shared, whole)
    little = one_hot()
    little[4:] *= 1e-4
    alone = loss_of(name, scores[:4], one_hot()[:4], label_smoothing=0.1)
    nearly = loss_of(name, scores, little, label_smoothing=0.1)
    torch.testing.assert_close(nearly, alone, rtol=1e-3, atol=1e-3)


@given(st.floats(0, 1))
def test_rounding_of_shares_changes_no_target(share):
    """Of two graded knees the shares sum to 1, or to the number beside it."""
    mixed = share * one_hot() + (1 - share) * one_hot(GRADES.flip(0))
    scores = scores_for("cross_entropy")
    by_hand = -(mixed * scores.log_softmax(dim=1)).sum(dim=1).mean()
    assert loss_of("cross_entropy", scores, mixed) == by_hand


def test_weights_make_every_grade_count_alike():
    targets = grade_targets(np.array([0, 0, 0, 2, 4, 4, np.nan]))
    weights = grade_weights(targets)
    total = targets * weights
    assert total.sum(dim=0).tolist() == pytest.approx([2, 0, 2, 0, 2])
    assert total.sum().item() == pytest.approx(6)


def test_a_loss_of_thresholds_needs_its_own_head():
    check_head("cross_entropy", "corn")
    check_head("corn", "corn")
    with pytest.raises(ConfigError, match="another head"):
        check_head("coral", "softmax")
