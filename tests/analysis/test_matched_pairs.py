"""Conditional logistic regression of pairs, against the closed form of McNemar's odds ratio."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from kneeoa_mm.analysis.regression import conditional_odds_ratios

CASE_ALONE_EXPOSED, CONTROL_ALONE_EXPOSED, ALIKE = 30, 12, 20


def _pairs():
    """Exposure of 62 pairs, the case first."""
    exposed = [(1, 0)] * CASE_ALONE_EXPOSED + [(0, 1)] * CONTROL_ALONE_EXPOSED + [(1, 1)] * ALIKE
    columns = np.array(exposed, dtype=float).reshape(-1, 1)
    pairs = np.repeat(np.arange(len(exposed)), 2)
    return columns, np.tile([1, 0], len(exposed)), pairs


def test_of_one_exposure_it_is_the_ratio_of_the_discordant_pairs():
    """Breslow and Day 1980, section 5.2: odds ratio b / c, variance of its log 1 / b + 1 / c."""
    columns, case, pairs = _pairs()
    (found,) = conditional_odds_ratios(columns, case, pairs, pairs)
    ratio = CASE_ALONE_EXPOSED / CONTROL_ALONE_EXPOSED
    assert found.value == pytest.approx(ratio, rel=1e-4)
    error = np.sqrt(1 / CASE_ALONE_EXPOSED + 1 / CONTROL_ALONE_EXPOSED)
    assert np.log(found.ci_high / found.value) == pytest.approx(1.96 * error, rel=0.02)
    assert found.n == len(pairs) // 2


def test_the_order_of_the_rows_does_not_matter():
    columns, case, pairs = _pairs()
    (expected,) = conditional_odds_ratios(columns, case, pairs, pairs)
    order = np.random.default_rng(0).permutation(len(case))
    (found,) = conditional_odds_ratios(columns[order], case[order], pairs[order], pairs[order])
    assert found.value == pytest.approx(expected.value)
    assert found.ci_low == pytest.approx(expected.ci_low)


def test_two_pairs_of_the_same_persons_carry_no_more_than_one():
    columns, case, pairs = _pairs()
    (once,) = conditional_odds_ratios(columns, case, pairs, pairs)
    twice = [np.concatenate([each, each]) for each in (columns, case)]
    doubled = np.concatenate([pairs, pairs + pairs.max() + 1])
    (found,) = conditional_odds_ratios(*twice, doubled, np.concatenate([pairs, pairs]))
    assert found.value == pytest.approx(once.value, rel=1e-4)
    assert found.ci_high == pytest.approx(once.ci_high, rel=1e-3)


def test_cases_that_always_have_more_have_no_odds_ratio():
    case, pairs = np.tile([1, 0], 10), np.repeat(np.arange(10), 2)
    (found,) = conditional_odds_ratios(case[:, None].astype(float), case, pairs, pairs)
    assert found.value is None
    assert "converge" in found.reason


def _two_scores(seed: int, n_pairs: int = 150):
    """Two scores of pairs, the case first; the first is raised in cases."""
    generator = np.random.default_rng(seed)
    case, pairs = np.tile([1, 0], n_pairs), np.repeat(np.arange(n_pairs), 2)
    first = generator.normal(size=2 * n_pairs) + 0.8 * case
    second = 0.5 * first + generator.normal(size=2 * n_pairs)
    return np.stack([first, second], axis=1), case, pairs


def test_of_two_scores_it_maximises_the_conditional_likelihood():
    """Oracle: scipy's minimum of the likelihood of the pairs' differences, written out."""
    columns, case, pairs = _two_scores(0)
    gaps = columns[::2] - columns[1::2]
    best = minimize(lambda b: np.logaddexp(0, -gaps @ b).sum(), [0, 0], method="BFGS").x
    found = conditional_odds_ratios(columns, case, pairs, pairs)
    assert np.log([each.value for each in found]) == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("rounding", [0, 1e-15])
def test_a_score_that_pairs_were_matched_on_leaves_the_other_as_it_is_alone(rounding):
    """Closed form: a difference of 0 drops out of the conditional likelihood."""
    columns, case, pairs = _two_scores(1)
    matched = pairs % 4 + rounding * case
    (alone,) = conditional_odds_ratios(columns[:, :1], case, pairs, pairs)
    both = np.column_stack([columns[:, 0], matched])
    adjusted, same = conditional_odds_ratios(both, case, pairs, pairs)
    assert adjusted == alone
    assert same.value is None
    assert same.reason == "does not differ within any pair"
    (only,) = conditional_odds_ratios(both[:, 1:], case, pairs, pairs)
    assert only == same
