"""Concordance, AUROC and Brier score over time: scikit-survival, closed forms, brute force."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from kneeoa_mm.analysis.nonparametric import harrell_c
from kneeoa_mm.analysis.risk_over_time import auroc_at, brier_at, integrated_brier, uno_c
from kneeoa_mm.metrics import UndefinedMetricError, bootstrap_rows, bootstrap_weights, resample

ORACLE = Path(__file__).parent / "oracles" / "scikit_survival.json"
"""Output of the script of the same name beside it."""


@pytest.fixture(scope="module")
def oracle():
    document = json.loads(ORACLE.read_text(encoding="utf-8"))
    return {k: np.array(v) if isinstance(v, list) else v for k, v in document.items()}


def test_all_are_those_of_scikit_survival_on_times_without_ties(oracle):
    """Oracle: scikit-survival's output, committed beside its script."""
    months, event, score = oracle["months"], oracle["event"], oracle["score"]
    assert uno_c(months, 48.5)(event, score) == pytest.approx(oracle["uno_c_48"])
    for k, horizon in enumerate(oracle["horizons"]):
        assert auroc_at(months, horizon)(event, score) == pytest.approx(oracle["auroc"][k])
        found = brier_at(months, horizon)(event, oracle["risk"][:, k])
        assert found == pytest.approx(oracle["brier"][k])
    whole = integrated_brier(months, oracle["horizons"].tolist())(event, oracle["risk"])
    assert whole == pytest.approx(oracle["integrated_brier"])


def _visits(seed: int, n: int = 120):
    """Events and censorings tie at visits; two knees a person."""
    generator = np.random.default_rng(seed)
    severity = np.repeat(generator.normal(size=n // 2), 2)
    months = np.ceil(generator.exponential(40 * np.exp(-0.5 * severity)) / 12) * 12
    leaves = generator.choice([24, 36, 48, 60], n)
    event = (months <= leaves).astype(np.int64)
    risk = np.round(severity + generator.normal(size=n), 1)
    return np.minimum(months, leaves), event, risk, np.repeat(np.arange(n // 2), 2).astype(str)


@pytest.mark.parametrize("horizon", [24.0, 48.0])
def test_without_censoring_before_the_horizon_they_are_the_plain_metrics(horizon):
    """Oracle: scikit-learn. A knee whose last visit is the horizon is known to be free there."""
    generator = np.random.default_rng(0)
    happens = np.ceil(generator.exponential(50, 200) / 12) * 12
    months, event = np.minimum(happens, 48.0), (happens <= 48).astype(np.int64)
    risk = generator.random(200)
    by_then = happens <= horizon
    assert auroc_at(months, horizon)(event, risk) == pytest.approx(roc_auc_score(by_then, risk))
    assert brier_at(months, horizon)(event, risk) == pytest.approx(brier_score_loss(by_then, risk))
    everybody = np.array(["a"] * 200)
    harrell = harrell_c(months, event, risk, everybody).value
    assert uno_c(months, 48)(event, risk) == pytest.approx(harrell)


def _stays(months, event, time):
    """Probability of not being censored before ``time``; events come before censorings."""
    chance = 1.0
    for at in np.unique(months[months < time]):
        left = np.sum(months >= at) - np.sum((months == at) & (event == 1))
        chance *= 1 - np.sum((months == at) & (event == 0)) / left if left else 1
    return chance


def test_tied_visits_follow_the_formula_written_out():
    """Oracle: sums over all pairs, with each knee's chance of being followed."""
    months, event, risk, _ = _visits(1)

    numerator = denominator = squared = 0.0
    for i in range(len(months)):
        if event[i] and months[i] <= 36:
            squared += (1 - risk[i]) ** 2 / _stays(months, event, months[i])
            for j in range(len(months)):
                if months[j] > 36 or (months[j] == 36 and not event[j]):
                    share = 1 / (_stays(months, event, months[i]) * _stays(months, event, 36))
                    denominator += share
                    numerator += share * ((risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]))
        elif months[i] > 36 or (months[i] == 36 and not event[i]):
            squared += risk[i] ** 2 / _stays(months, event, 36)
    assert auroc_at(months, 36)(event, risk) == pytest.approx(numerator / denominator)
    assert brier_at(months, 36)(event, risk) == pytest.approx(squared / len(months))


def test_within_blocks_only_pairs_of_one_block_count():
    """Oracle: the sums of Uno et al. over pairs written out, censoring estimated from all knees."""
    months, event, risk, _ = _visits(3, n=60)
    blocks = np.arange(60) // 2 % 3

    sums = {"uno": np.zeros(2), "auroc": np.zeros(2)}
    for i, j in product(range(60), range(60)):
        if not event[i] or months[i] > 36 or blocks[i] != blocks[j]:
            continue
        right = (risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j])
        if months[j] > months[i] or (months[j] == months[i] and not event[j]):
            sums["uno"] += np.array([right, 1]) / _stays(months, event, months[i]) ** 2
        if months[j] > 36 or (months[j] == 36 and not event[j]):
            sums["auroc"] += np.array([right, 1]) / _stays(months, event, months[i])
    found = {
        "uno": uno_c(months, 36, blocks)(event, risk),
        "auroc": auroc_at(months, 36, blocks)(event, risk),
    }
    assert found == pytest.approx({name: right / all_ for name, (right, all_) in sums.items()})
    assert found["auroc"] != pytest.approx(auroc_at(months, 36)(event, risk))


@pytest.mark.parametrize("make", [uno_c, auroc_at, brier_at])
def test_weights_are_repeated_rows(make):
    """The bootstrap weighs knees; drawing their rows again and again must give the same."""
    months, event, risk, persons = _visits(2)
    weights = bootstrap_weights(persons, n_boot=8, seed=0)
    found = resample(make(months, 48), event, risk, weights).draws
    rows = bootstrap_rows(persons, n_boot=8, seed=0)
    expected = [make(months[drawn], 48)(event[drawn], risk[drawn]) for drawn in rows]
    assert found == pytest.approx(expected, rel=1e-6)


def test_what_cannot_be_compared_says_so():
    months, event = np.array([12.0, 24.0]), np.array([0, 0])
    for metric in (uno_c(months, 24), auroc_at(months, 24)):
        with pytest.raises(UndefinedMetricError):
            metric(event, np.array([0.1, 0.2]))
