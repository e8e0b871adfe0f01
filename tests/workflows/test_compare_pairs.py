"""A matched case-control study: within pairs, by ranking alone, pairs on one side of a split."""

from __future__ import annotations

import json

import numpy as np
import pytest
from known_runs import Study, image_risk, two_knees_a_person
from scipy.optimize import minimize

from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.errors import InputError
from kneeoa_mm.metrics.calibration import log_odds
from kneeoa_mm.records import Outcome
from kneeoa_mm.workflows.compare import compare
from kneeoa_mm.workflows.simple_models import simple_models

N_PAIRS = 100


@pytest.fixture(scope="module")
def matched(tmp_path_factory):
    """One knee a person; person 2i is the case of pair i, person 2i + 1 the control."""
    knees = two_knees_a_person(2 * N_PAIRS + 10, seed=4).iloc[::2].reset_index(drop=True)
    case = np.arange(len(knees)) % 2 == 0
    pair = np.arange(len(knees)) // 2
    knees = knees.assign(
        jsl_48m=case.astype(int),
        fold=pair % 5,
        # higher in cases, but not in every pair
        kl_grade=case + np.random.default_rng(6).integers(0, 3, len(knees)),
        # the last knees have no partner
        matched_pair=[str(p) if p < N_PAIRS else f"alone {i}" for i, p in enumerate(pair)],
    )
    study = Study(tmp_path_factory.mktemp("matched"), knees)
    study.write_cohort(sampled_on_outcome="true")
    return study


@pytest.fixture(scope="module")
def document(matched, tmp_path_factory):
    events = matched.knees["jsl_48m"].to_numpy()
    run = matched.run("image", image_risk(events, seed=5, shift=1))
    out = tmp_path_factory.mktemp("pairs") / "out"
    compare({"image": run}, matched.cohort, out, outcome=Outcome.JSL_48M, n_boot=100)
    return json.loads((out / "compare.json").read_text())


def test_concordance_is_the_share_of_pairs_whose_case_ranks_higher(matched, document):
    risk = image_risk(matched.knees["jsl_48m"].to_numpy(), seed=5, shift=1)[: 2 * N_PAIRS]
    found = document["within_pairs"]
    assert found["pairs"] == N_PAIRS
    expected = np.mean(risk[::2] > risk[1::2])
    assert found["models"]["image"]["concordance"]["value"] == pytest.approx(expected)


def test_the_odds_ratio_maximises_the_conditional_likelihood(matched, document):
    """Oracle: Newton's method on the likelihood of the pairs' differences."""
    risk = image_risk(matched.knees["jsl_48m"].to_numpy(), seed=5, shift=1)[: 2 * N_PAIRS]
    score = log_odds(risk)
    gap = (score[::2] - score[1::2]) / score.std()
    slope = 0.0
    for _ in range(50):
        lost = 1 / (1 + np.exp(slope * gap))
        slope += np.sum(gap * lost) / np.sum(gap**2 * lost * (1 - lost))
    found = document["within_pairs"]["models"]["image"]["odds_ratio"]
    assert np.log(found["value"]) == pytest.approx(slope, abs=1e-4)
    assert found["ci_low"] < found["value"] < found["ci_high"]


def test_beside_the_grade_it_maximises_the_likelihood_of_both(matched, document):
    """Oracle: scipy's minimum of the conditional likelihood, by the same out-of-fold scores."""
    knees = matched.knees
    events = knees["jsl_48m"].to_numpy()
    grade = simple_models(knees, events, knees["fold"].to_numpy(), factors=(), grader=None)
    risks = image_risk(events, seed=5, shift=1), grade["kl_grade"].risk
    scores = np.stack([log_odds(risk[: 2 * N_PAIRS]) for risk in risks], axis=1)
    gaps = (scores[::2] - scores[1::2]) / scores.std(axis=0)
    best = minimize(lambda b: np.logaddexp(0, -gaps @ b).sum(), [0, 0], method="BFGS").x
    found = document["within_pairs"]["models"]["image"]["odds_ratio_adjusted_for_kl"]
    assert np.log(found["value"]) == pytest.approx(best[0], abs=1e-3)
    assert found["ci_low"] < found["value"] < found["ci_high"]


def test_beside_a_grade_that_pairs_were_matched_on_the_odds_ratio_stays(matched, tmp_path):
    """Closed form: what does not differ within any pair drops out of the likelihood."""
    pair = np.arange(len(matched.knees)) // 2
    alike = Study(tmp_path, matched.knees.assign(kl_grade=pair % 4))
    alike.write_cohort(sampled_on_outcome="true")
    run = alike.run("image", image_risk(alike.knees["jsl_48m"].to_numpy(), seed=5, shift=1))
    out = tmp_path / "out"
    compare({"image": run}, alike.cohort, out, outcome=Outcome.JSL_48M, n_boot=0)
    models = json.loads((out / "compare.json").read_text())["within_pairs"]["models"]
    assert models["image"]["odds_ratio"]["value"] > 1
    assert models["image"]["odds_ratio_adjusted_for_kl"] == models["image"]["odds_ratio"]
    assert "does not differ" in models["kl_grade"]["odds_ratio"]["reason"]


def test_sampling_on_the_outcome_leaves_ranking_alone(document):
    for metrics in document["models"].values():
        assert all(name.startswith("auroc") for name in metrics)
    assert document["net_benefit"] is None
    assert document["calibration_curves"] is None
    assert any("sampled on the outcome" in note for note in document["notes"])
    assert set(document["differences"]["image-kl_grade"]) == {
        "auroc",
        "auroc_kl_1_to_3",
        "auroc_within_kl_1_to_3",
    }


def test_a_pair_on_both_sides_of_a_split_is_refused(matched, tmp_path):
    events = matched.knees["jsl_48m"].to_numpy()
    parted = Study(tmp_path, matched.knees.assign(fold=np.arange(len(events)) % 5))
    parted.write_cohort(sampled_on_outcome="true")
    run = parted.run("image", image_risk(events, seed=5))
    with pytest.raises(InputError, match="two folds"):
        compare({"image": run}, parted.cohort, tmp_path / "out", outcome=Outcome.JSL_48M, n_boot=0)
    assert not (tmp_path / "out").exists()


def test_persons_tied_by_pairs_are_drawn_together(matched, document):
    # each complete pair is one cluster, and each knee alone another
    alone = len(matched.knees) - 2 * N_PAIRS
    assert document["clusters"] == N_PAIRS + alone
    assert document["persons"] == len(matched.knees)


def test_the_published_cohorts_that_were_sampled_say_so():
    sampled = {
        name: read_cohort_spec(name).sampled_on_outcome
        for name in ("mendeley", "mendeley/tiulpin", "mendeley/tkr")
    }
    assert sampled == {"mendeley": False, "mendeley/tiulpin": True, "mendeley/tkr": True}
