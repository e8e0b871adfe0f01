"""Temperature scaling and cross-fitting: known temperatures, first-order conditions, no leaks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from kneeoa_mm.errors import InputError
from kneeoa_mm.learning.calibration import MIN_KNEES, at_temperature, cross_fit, fit_temperature
from kneeoa_mm.learning.conformal import SetRule

one_knee = arrays(float, 5, elements=st.floats(0.01, 1)).map(lambda raw: raw / raw.sum())
temperatures = st.floats(0.2, 5)


def draw(n, seed=0, spread=1.5):
    """Logits of a calibrated grader, and grades that are what it says they are."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, spread, (n, 5))
    grades = (softmax(logits, axis=1).cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
    return logits, np.minimum(grades, 4)


@pytest.mark.parametrize("sharpened_by", [0.5, 1.0, 2.5])
def test_logits_that_were_sharpened_by_a_known_factor_give_it_back(sharpened_by):
    logits, grades = draw(20_000)
    told = softmax(logits * sharpened_by, axis=1)
    assert fit_temperature(told[None], grades) == pytest.approx(sharpened_by, rel=0.03)


def test_at_the_optimum_the_grader_expects_the_logits_that_the_truth_has():
    """The derivative of the likelihood is zero where these are equal (Guo et al. 2017)."""
    logits, grades = draw(500, seed=1)
    sharp = 1.7 * logits
    scaled = softmax(sharp / fit_temperature(softmax(sharp, axis=1)[None], grades), axis=1)
    expected = (scaled * sharp).sum(axis=1).mean()
    assert expected == pytest.approx(sharp[np.arange(500), grades].mean(), abs=1e-4)


def test_of_several_members_the_average_is_what_gets_the_best_likelihood():
    logits, grades = draw(2_000, seed=2)
    noise = np.random.default_rng(3).normal(0, 1.5, (4, *logits.shape))
    members = softmax(logits + noise, axis=2)

    def loss(temperature):
        given = at_temperature(members, temperature).mean(axis=0)
        return -np.log(given[np.arange(len(grades)), grades]).mean()

    found = fit_temperature(members, grades)
    grid = np.linspace(0.2, 5, 200)
    best = grid[np.argmin([loss(temperature) for temperature in grid])]
    assert found == pytest.approx(best, abs=grid[1] - grid[0])
    assert found != pytest.approx(fit_temperature(members.mean(axis=0)[None], grades), rel=0.02)


def test_a_member_without_a_say_teaches_nothing():
    logits, grades = draw(200)
    told = softmax(2 * logits, axis=1)
    silent = np.full_like(told, np.nan)
    assert fit_temperature(np.stack([silent, told]), grades) == fit_temperature(told[None], grades)


def test_a_certain_and_sometimes_wrong_grader_is_calmed_and_stays_finite():
    grades = np.arange(400) % 5
    certain = np.eye(5)[np.where(np.arange(400) % 4 == 0, (grades + 1) % 5, grades)]
    temperature = fit_temperature(certain[None], grades)
    scaled = at_temperature(certain, temperature)
    assert temperature > 1
    assert np.isfinite(scaled).all()
    assert scaled.max() < 1


def test_too_few_knees_are_refused():
    logits, grades = draw(MIN_KNEES - 1)
    with pytest.raises(InputError, match="too few knees to calibrate"):
        fit_temperature(softmax(logits, axis=1)[None], grades)


@given(one_knee, temperatures, temperatures)
def test_scaling_keeps_the_order_sums_to_one_and_scales_on(knee, first, second):
    once = at_temperature(knee, first)
    assert once.sum() == pytest.approx(1)
    assert (np.diff(once[np.argsort(knee, kind="stable")]) >= 0).all()
    np.testing.assert_allclose(
        at_temperature(once, second), at_temperature(knee, first * second), atol=1e-9
    )


def test_each_knee_gets_its_own_temperature():
    knees = softmax(draw(3)[0], axis=1)
    both = at_temperature(np.stack([knees, knees]), np.array([0.5, 1.0, 2.0]))
    for row, temperature in enumerate([0.5, 1.0, 2.0]):
        alone = at_temperature(knees[row], temperature)
        np.testing.assert_allclose(both[:, row], [alone, alone])


@pytest.fixture
def folds():
    """Three folds of persons with two knees each."""
    logits, grades = draw(360, seed=4)
    persons = np.repeat([f"p{i}" for i in range(180)], 2)
    return softmax(2 * logits, axis=1)[None], grades, persons, np.arange(360) // 2 % 3


def test_a_folds_own_grades_cannot_change_what_it_gets(folds):
    probabilities, grades, persons, fold = folds
    before = cross_fit(probabilities, grades, persons, fold, SetRule())
    for held_out in range(3):
        mine = fold == held_out
        changed = grades.copy()
        changed[mine] = np.random.default_rng(held_out).permutation(grades[mine])
        after = cross_fit(probabilities, changed, persons, fold, SetRule())
        assert after.by_part[held_out] == before.by_part[held_out]
        assert after.whole != before.whole
        for other in {0, 1, 2} - {held_out}:
            assert after.by_part[other] != before.by_part[other]
    assert [before.by_part[k] for k in fold] == before.of_knee


def test_without_folds_halves_of_the_persons_teach_each_other(folds):
    probabilities, grades, persons, _ = folds
    fitted = cross_fit(probabilities, grades, persons, None, SetRule())
    half = np.array([rule == fitted.by_part[0] for rule in fitted.of_knee])
    assert fitted.by_part[0] != fitted.by_part[1]
    assert not set(persons[half]) & set(persons[~half])
    taught_by = fitted.by_part[0].conformal
    assert taught_by.n_knees == (~half).sum()
    assert taught_by.n_subjects == len(set(persons[~half]))
    assert fitted.whole.conformal.n_subjects == 180
