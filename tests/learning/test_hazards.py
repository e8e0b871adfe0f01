"""Discrete hazards: brute-force enumeration of every possible course is the oracle."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kneeoa_mm.learning.hazards import (
    Cause,
    cumulative_incidence,
    hazard_loss,
    log_likelihood,
    observe,
    survival,
)

BINS = 4
FREE = -1


def courses(logits):
    """Every course of a knee as (bin, cause) with its probability; no event: (BINS + 1, FREE)."""
    hazards = logits.softmax(dim=1).numpy()
    alive = 1.0
    for j in range(1, BINS + 1):
        for cause in Cause:
            yield (j, cause), alive * hazards[j - 1, 1 + cause]
        alive *= hazards[j - 1, 0]
    yield (BINS + 1, FREE), alive


def random_logits(seed):
    return torch.randn(BINS, 4, generator=torch.Generator().manual_seed(seed))


def bins(*numbers):
    return tuple(torch.tensor([number]) for number in numbers)


def likelihood(logits, *numbers):
    return log_likelihood(logits[None], observe(*bins(*numbers))).exp().item()


def share(logits, is_possible):
    return sum(p for course, p in courses(logits) if is_possible(*course))


@given(st.integers(0, 99), st.integers(0, BINS))
def test_free_until_a_film_is_the_share_of_courses_without_an_event_by_then(seed, last):
    logits = random_logits(seed)
    by_hand = share(logits, lambda j, _: j > last)
    assert likelihood(logits, last, 0, 0, 0) == pytest.approx(by_hand, rel=1e-5)


@given(st.integers(0, 99), st.integers(0, BINS - 1), st.data())
def test_progression_counts_over_all_skipped_bins(seed, last, data):
    first = data.draw(st.integers(last + 1, BINS))
    logits = random_logits(seed)
    by_hand = share(logits, lambda j, cause: last < j <= first and cause == Cause.PROGRESSION)
    assert likelihood(logits, last, first, 0, 0) == pytest.approx(by_hand, rel=1e-5)


@given(st.integers(0, 99), st.integers(0, BINS - 1), st.data())
def test_a_replacement_after_a_gap_may_have_followed_progression(seed, last, data):
    day = data.draw(st.integers(last + 1, BINS))
    logits = random_logits(seed)
    if day == last + 1:
        by_hand = share(logits, lambda j, cause: j == day and cause == Cause.REPLACEMENT)
    else:
        by_hand = share(
            logits,
            lambda j, cause: (
                (last < j <= day and cause == Cause.PROGRESSION)
                or (j == day and cause == Cause.REPLACEMENT)
            ),
        )
    assert likelihood(logits, last, 0, day, 0) == pytest.approx(by_hand, rel=1e-5)


@given(st.integers(0, 99), st.integers(0, BINS - 1), st.data())
def test_a_death_after_a_gap_says_no_more_than_the_last_film(seed, last, data):
    day = data.draw(st.integers(last + 1, BINS))
    logits = random_logits(seed)
    if day == last + 1:
        by_hand = share(logits, lambda j, cause: j == day and cause == Cause.DEATH)
    else:
        by_hand = share(logits, lambda j, _: j > last)
    assert likelihood(logits, last, 0, 0, day) == pytest.approx(by_hand, rel=1e-5)


@given(st.integers(0, 99))
def test_incidences_and_survival_sum_to_one_at_every_visit(seed):
    logits = random_logits(seed)[None]
    total = cumulative_incidence(logits).sum(dim=2) + survival(logits)
    torch.testing.assert_close(total, torch.ones(1, BINS))
    by_hand = [
        share(logits[0], lambda j, cause, k=k, by=by: j <= by and cause == k)
        for by, k in itertools.product(range(1, BINS + 1), Cause)
    ]
    np.testing.assert_allclose(cumulative_incidence(logits).flatten(), by_hand, rtol=1e-5)


def test_a_knee_of_which_nothing_is_known_is_left_out():
    logits = torch.randn(3, BINS, 4, requires_grad=True)
    unknown = observe(*(torch.tensor([-1, -1, -1]), *[torch.zeros(3, dtype=torch.long)] * 3))
    loss = hazard_loss(logits, unknown)
    loss.backward()
    assert loss.item() == logits.grad.abs().sum() == 0
    one = observe(*(torch.tensor([-1, 2, -1]), *[torch.zeros(3, dtype=torch.long)] * 3))
    alone = observe(*(torch.tensor([2]), *[torch.zeros(1, dtype=torch.long)] * 3))
    torch.testing.assert_close(hazard_loss(logits, one), hazard_loss(logits[1:2], alone))


def test_gradients_are_finite_for_every_kind_of_knee():
    logits = torch.randn(4, BINS, 4, requires_grad=True)
    seen = observe(
        torch.tensor([4, 0, 1, 0]),
        torch.tensor([0, 3, 0, 0]),
        torch.tensor([0, 0, 2, 0]),
        torch.tensor([0, 0, 0, 4]),
    )
    hazard_loss(logits, seen).backward()
    assert torch.isfinite(logits.grad).all()


def test_an_event_before_the_last_free_film_is_refused():
    with pytest.raises(ValueError, match="after the last film"):
        observe(*bins(3, 2, 0, 0))


def test_known_hazards_are_recovered_although_a_third_of_the_visits_is_skipped():
    """A likelihood that put the event into its last bin would be off by several hundredths.

    A replacement after a gap counts as either, so a little of its hazard goes over to progression.
    """
    rng = np.random.default_rng(0)
    true = np.array(
        [[0.05, 0.01, 0.01], [0.10, 0.02, 0.01], [0.04, 0.03, 0.02], [0.12, 0.02, 0.02]]
    )
    n = 8_000
    event_bin, cause = np.full(n, BINS + 1), np.full(n, FREE)
    for j in range(BINS):
        draw = rng.choice(4, size=n, p=[1 - true[j].sum(), *true[j]])
        now = (event_bin > BINS) & (draw > 0)
        event_bin[now], cause[now] = j + 1, draw[now] - 1
    came = rng.random((n, BINS)) > 0.3
    visits = np.arange(1, BINS + 1)
    before = came & (visits < event_bin[:, None])
    last = np.where(before, visits, 0).max(axis=1)
    after = came & (visits >= event_bin[:, None]) & (cause == Cause.PROGRESSION)[:, None]
    first = np.where(after.any(axis=1), after.argmax(axis=1) + 1, 0)
    replaced = np.where(cause == Cause.REPLACEMENT, event_bin, 0)
    died = np.where(cause == Cause.DEATH, event_bin, 0)
    seen = observe(*(torch.tensor(each) for each in (last, first, replaced, died)))
    logits = torch.zeros(1, BINS, 4, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = hazard_loss(logits.expand(n, -1, -1), seen)
        loss.backward()
        return loss

    optimiser.step(closure)
    found = logits.detach().softmax(dim=2)[0, :, 1:].numpy()
    for cause, off in zip(Cause, (0.015, 0.01, 0.01), strict=True):
        np.testing.assert_allclose(found[:, cause], true[:, cause], atol=off, err_msg=cause.name)
