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


def fitted(seen):
    """The logits (1, BINS, 4) of greatest likelihood, the same for all knees."""
    logits = torch.zeros(1, BINS, 4, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = hazard_loss(logits.expand(len(seen.free_until), -1, -1), seen)
        loss.backward()
        return loss

    optimiser.step(closure)
    return logits.detach()


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
    found = fitted(seen).softmax(dim=2)[0, :, 1:].numpy()
    for cause, off in zip(Cause, (0.015, 0.01, 0.01), strict=True):
        np.testing.assert_allclose(found[:, cause], true[:, cause], atol=off, err_msg=cause.name)


PROGRESSES, DIES = 0.08, 0.04


def illness_and_death(n, dies_after, rng):
    """Knees that progress and persons who die, before progression or after; 40 % of films skipped.

    Returns:
        What ``observe`` is told, and the share of knees that truly progressed by the end.
    """
    last, first, died = (np.zeros(n, dtype=np.int64) for _ in range(3))
    has_progressed, is_alive = np.zeros(n, dtype=bool), np.ones(n, dtype=bool)
    for j in range(1, BINS + 1):
        dies = is_alive & (rng.random(n) < np.where(has_progressed, dies_after, DIES))
        died[dies], is_alive = j, is_alive & ~dies
        # of those who do not die in the bin, so that the two hazards add up
        progresses = is_alive & ~has_progressed & (rng.random(n) < PROGRESSES / (1 - DIES))
        has_progressed |= progresses
        filmed = is_alive & (rng.random(n) > 0.4)
        last[filmed & ~has_progressed] = j
        first[filmed & has_progressed & (first == 0)] = j
    progressed_share = has_progressed.mean()
    none = np.zeros(n, dtype=np.int64)
    return tuple(map(torch.tensor, (last, first, none, died))), progressed_share


def incidences(dies_after):
    """Incidence of progression by the end: the truth, and by each reading of a death."""
    seen, truth = illness_and_death(40_000, dies_after, np.random.default_rng(0))
    found = (
        cumulative_incidence(fitted(observe(*seen, death_after_gap=choice)))[0, -1]
        for choice in ("censor", "either")
    )
    return truth, *(float(each[Cause.PROGRESSION]) for each in found)


def test_where_progression_kills_nobody_a_death_after_a_gap_may_censor():
    """Counting it as either takes deaths for progression."""
    truth, censored, either = incidences(DIES)
    assert censored == pytest.approx(truth, abs=0.01)
    assert either > truth + 0.02


def test_where_progression_kills_the_two_readings_enclose_its_incidence():
    """Censoring then forgets those who progressed, died of it, and were never seen."""
    truth, censored, either = incidences(5 * DIES)
    assert censored + 0.005 < truth < either
