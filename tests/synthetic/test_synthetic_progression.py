"""The progression model does what it states, and the best possible AUROC is that."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from kneeoa_mm.synthetic.best_possible import best_possible, expected_auroc
from kneeoa_mm.synthetic.population import Population, draw
from kneeoa_mm.synthetic.progression import Scenario, simulate
from kneeoa_mm.synthetic.subject import model_draws

PERSONS = 60_000


def population(scenario: Scenario, persons: int = PERSONS) -> Population:
    return simulate(draw(np.random.default_rng(99), persons), scenario)


@pytest.fixture(scope="module")
def standard() -> Population:
    return population("standard")


@pytest.fixture(scope="module")
def null() -> Population:
    return population("null")


@pytest.fixture(scope="module")
def best(standard: Population) -> dict[str, dict[str, float]]:
    return best_possible("standard", standard)


def test_expected_auroc_is_the_probability_that_an_event_outranks_a_non_event() -> None:
    """Against counting every pair of knees, with ties."""
    rng = np.random.default_rng(0)
    score, p = rng.integers(0, 6, 40).astype(float), rng.uniform(0.05, 0.95, 40)
    pairs = p[:, None] * (1 - p)[None, :]
    wins = (score[:, None] > score) + 0.5 * (score[:, None] == score)
    assert expected_auroc(score, p) == pytest.approx((pairs * wins).sum() / pairs.sum())


def test_simulated_outcomes_reach_the_best_possible_auroc_and_no_more(
    standard: Population, best: dict[str, dict[str, float]]
) -> None:
    """Four standard errors; the true probability as score, scikit-learn as judge."""
    at_risk = standard.at_risk
    truth, score = standard.loses_joint_space[at_risk], standard.jsl_48m_prob[at_risk]
    assert roc_auc_score(truth, score) == pytest.approx(best["jsl_48m"]["both"], abs=0.007)
    image = roc_auc_score(truth, standard.x_image[at_risk])
    clinical = roc_auc_score(truth, standard.x_clinical[at_risk])
    assert image == pytest.approx(best["jsl_48m"]["image"], abs=0.007)
    assert clinical == pytest.approx(best["jsl_48m"]["clinical"], abs=0.007)


def test_best_possible_is_what_was_fixed_in_advance(best: dict[str, dict[str, float]]) -> None:
    """About .70 from the image, .66 from the clinical factors, .78 from both."""
    assert best["jsl_48m"]["image"] == pytest.approx(0.70, abs=0.01)
    assert best["jsl_48m"]["clinical"] == pytest.approx(0.66, abs=0.01)
    assert best["jsl_48m"]["both"] == pytest.approx(0.78, abs=0.01)


def test_stated_probabilities_are_calibrated(standard: Population) -> None:
    """In each fifth of the risk, events come as often as stated."""
    at_risk = standard.at_risk
    truth, stated = standard.loses_joint_space[at_risk], standard.jsl_48m_prob[at_risk]
    for fifth in np.array_split(np.argsort(stated), 5):
        assert truth[fifth].mean() == pytest.approx(stated[fifth].mean(), abs=0.012)


def test_prevalence_is_between_a_fifth_and_a_third(standard: Population) -> None:
    assert 0.20 < standard.loses_joint_space[standard.labelled].mean() < 0.30


def test_in_the_null_scenario_clinical_factors_carry_nothing(null: Population) -> None:
    at_risk = null.at_risk
    truth = null.loses_joint_space[at_risk]
    assert roc_auc_score(truth, null.x_clinical[at_risk]) == pytest.approx(0.5, abs=0.008)
    best = best_possible("null", null, persons=20_000)["jsl_48m"]
    assert best["clinical"] == 0.5
    assert best["both"] == pytest.approx(best["image"], abs=1e-3)


def test_baseline_film_shows_all_of_x_image(standard: Population) -> None:
    """Osteophytes, sclerosis and joint space, as drawn, determine it."""
    at_risk = standard.at_risk
    drawn = np.stack(
        [
            np.log(standard.osteophyte_mm[..., 0][at_risk]),
            np.log(standard.sclerosis_mm[..., 0][at_risk]),
            standard.jsw_medial_um[..., 0][at_risk] / 1000,
        ],
        axis=1,
    )
    model = make_pipeline(SplineTransformer(n_knots=12), LinearRegression())
    x_image = standard.x_image[at_risk]
    assert model.fit(drawn, x_image).score(drawn, x_image) > 0.995


def test_baseline_film_shows_nothing_of_the_clinical_factors(standard: Population) -> None:
    """Otherwise an image model could beat the best possible AUROC of the image."""
    x_clinical = standard.x_clinical.ravel()
    for drawn in (
        standard.osteophyte_mm,
        standard.sclerosis_mm,
        standard.jsw_medial_um,
        standard.jsw_lateral_mm,
    ):
        assert abs(np.corrcoef(x_clinical, drawn[..., 0].ravel())[0, 1]) < 0.015


def test_kl_grades_never_fall_and_follow_severity(standard: Population) -> None:
    grades = standard.kl_grade
    assert (np.diff(grades, axis=-1) >= 0).all()
    means = [standard.x_image[grades[..., 0] == grade].mean() for grade in range(5)]
    assert np.all(np.diff(means) > 0)
    assert set(np.unique(grades)) == {0, 1, 2, 3, 4}


def test_knees_at_risk_can_lose_what_counts(standard: Population) -> None:
    """Baseline width of 0.7 mm or more, and a grade below 4."""
    assert (standard.jsw_medial_um[..., 0][standard.at_risk] >= 700).all()
    assert (standard.kl_grade[..., 0][standard.at_risk] < 4).all()
    assert not standard.at_risk[standard.replaced_before].any()


def test_severe_knees_are_replaced_more_often(standard: Population) -> None:
    replaced = np.isfinite(standard.replacement_months)
    shares = [replaced[standard.kl_grade[..., 0] == grade].mean() for grade in (0, 2, 3, 4)]
    assert np.all(np.diff(shares) > 0)


def test_dropout_depends_on_clinical_factors_alone(standard: Population) -> None:
    """Missing at random: heavier people leave more often, whatever their knees do."""
    left = standard.dropout_months <= 48
    bmi, loss = standard.bmi_kg_m2, standard.loses_joint_space.any(axis=1)
    assert bmi[left].mean() > bmi[~left].mean() + 0.3
    x_image = standard.x_image.mean(axis=1)
    assert abs(np.corrcoef(left, x_image)[0, 1]) < 0.015
    assert loss.any()


def test_no_recorded_loss_is_exactly_the_threshold(standard: Population) -> None:
    """Binary fractions would decide 4.523 - 3.823 >= 0.7 by chance."""
    loss_um = standard.jsw_medial_um[..., 0] - standard.jsw_medial_um[..., -1]
    at_threshold = loss_um[standard.at_risk & (standard.jsw_medial_um[..., -1] > 0)] == 700
    assert not at_threshold.any()


def test_population_of_one_is_that_person_of_the_whole() -> None:
    together = simulate(np.concatenate([model_draws(5, index) for index in range(8)]))
    alone = simulate(model_draws(5, 6))
    assert np.array_equal(alone.jsw_medial_um[0], together.jsw_medial_um[6])
    assert alone.jsl_48m_prob[0].tolist() == together.jsl_48m_prob[6].tolist()
    assert alone.death_months[0] == together.death_months[6]
