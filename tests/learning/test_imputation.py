"""Missing factors are imputed as known distributions say, from training knees alone."""

import json

import numpy as np
import pandas as pd
import pytest

from kneeoa_mm.learning.clinical import ClinicalEncoding
from kneeoa_mm.learning.imputation import fit_normal, impute

N = 20_000
SLOPE, LEFT_SD = 1.2, 0.8


@pytest.fixture(scope="module")
def gappy():
    """Rows (x, y) with y = 1 + 1.2 x + noise, where y is missing more often the larger x is."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(N)
    y = 1 + SLOPE * x + LEFT_SD * rng.standard_normal(N)
    y[rng.random(N) < 1 / (1 + np.exp(-2 * x))] = np.nan
    return np.column_stack([x, y])


def test_mean_and_covariance_are_those_of_greatest_likelihood(gappy):
    """One column with gaps: Anderson 1957 (doi 10.2307/2280845) gives both in closed form."""
    x, y = gappy.T
    known = ~np.isnan(y)
    slope, intercept = np.polyfit(x[known], y[known], 1)
    left = np.var(y[known] - intercept - slope * x[known])
    mean, covariance = fit_normal(gappy)
    np.testing.assert_allclose(mean, [x.mean(), intercept + slope * x.mean()], atol=2e-3)
    by_hand = [
        [x.var(), slope * x.var()],
        [slope * x.var(), slope**2 * x.var() + left],
    ]
    np.testing.assert_allclose(covariance, by_hand, atol=4e-3)
    assert np.abs(np.nanmean(y) - mean[1]) > 0.3, "those that are there would mislead"


def test_what_is_expected_is_the_known_conditional_mean(gappy):
    filled = impute(gappy, *fit_normal(gappy))
    gaps = np.isnan(gappy[:, 1])
    np.testing.assert_allclose(filled[gaps, 1], 1 + SLOPE * gappy[gaps, 0], atol=0.08)
    np.testing.assert_array_equal(filled[~gaps], gappy[~gaps])


def test_draws_leave_open_as_much_as_the_known_distribution(gappy):
    rng = np.random.default_rng(1)
    gaps = np.isnan(gappy[:, 1])
    model = fit_normal(gappy)
    drawn = [impute(gappy, *model, rng)[gaps, 1] for _ in range(2)]
    off = drawn[0] - (1 + SLOPE * gappy[gaps, 0])
    assert off.std() == pytest.approx(LEFT_SD, abs=0.02)
    assert abs(np.corrcoef(off, drawn[1] - (1 + SLOPE * gappy[gaps, 0]))[0, 1]) < 0.03


def test_few_rows_foretell_little():
    """Of five rows of noise in four columns the least squares would fit each other exactly."""
    rows = np.random.default_rng(0).standard_normal((5, 4))
    _, covariance = fit_normal(rows)
    scale = np.sqrt(np.diag(covariance))
    own = np.corrcoef(rows.T)
    shrunk = covariance / np.outer(scale, scale)
    others = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(shrunk[others], own[others] * 5 / 9, rtol=1e-4)


def knees(n, seed=0):
    """Weight goes with sex and age, the other knee's grade with weight; 30 % are not known."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["F", "M"], n)
    age = rng.normal(60, 8, n)
    bmi = 27 + 3 * (sex == "M") + 0.2 * (age - 60) + rng.normal(0, 1, n)
    grade = pd.array((bmi > 30).astype(int) * 3, dtype="Int64")
    table = pd.DataFrame(
        {"age_years": age, "sex": sex, "bmi_kg_m2": bmi, "contralateral_kl_grade": grade}
    )
    return table.mask(rng.random(table.shape) < 0.3)


def bmi_of(encoding, encoded):
    mean, scale = encoding.continuous["bmi_kg_m2"]
    return mean + scale * encoded[:, list(encoding.continuous).index("bmi_kg_m2") * 2]


def test_a_missing_factor_is_what_the_other_factors_of_the_knee_say():
    encoding = ClinicalEncoding.fit(knees(N))
    asked = pd.DataFrame({"age_years": [50.0, 70.0], "sex": ["F", "M"]})
    found = bmi_of(encoding, encoding.transform(asked))
    np.testing.assert_allclose(found, [25, 32], atol=0.2)
    sexes = encoding.transform(pd.DataFrame({"age_years": [60.0], "bmi_kg_m2": [30.0]}))[0]
    women, men, is_missing = sexes[4:7]
    assert men > 0.8
    assert women + men == pytest.approx(1, abs=0.01)
    assert is_missing == 1


def test_draws_average_to_what_is_expected_and_leave_known_values_alone():
    table = knees(500)
    encoding = ClinicalEncoding.fit(table)
    rng = np.random.default_rng(0)
    drawn = np.stack([encoding.draw(table, rng) for _ in range(400)])
    weight = list(encoding.continuous).index("bmi_kg_m2")
    mean, scale = encoding.continuous["bmi_kg_m2"]
    expected = bmi_of(encoding, encoding.transform(table))
    np.testing.assert_allclose(mean + scale * drawn[:, :, weight].mean(axis=0), expected, atol=0.7)
    is_known = table["bmi_kg_m2"].notna()
    np.testing.assert_array_equal(np.ptp(drawn[:, :, weight], axis=0) == 0, is_known)


def test_knees_beside_a_knee_do_not_change_its_imputed_values():
    """Held-out knees teach nothing: what is imputed comes from the training part alone."""
    encoding = ClinicalEncoding.fit(knees(200))
    held_out = knees(50, seed=1)
    together = encoding.transform(held_out)
    alone = np.concatenate([encoding.transform(held_out.iloc[[i]]) for i in range(50)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_reading_is_neither_imputed_nor_seen_through_another_factor():
    encoding = ClinicalEncoding.fit(knees(2_000))
    asked = pd.DataFrame({"age_years": 60.0, "contralateral_kl_grade": [0, 3, pd.NA]})
    read, other, unread = encoding.transform(asked)
    readings = slice(-3, None)
    assert unread[readings].tolist() == [0, 0, 1]
    assert read[readings].tolist() != other[readings].tolist()
    np.testing.assert_array_equal(read[: readings.start], other[: readings.start])
    np.testing.assert_array_equal(read[: readings.start], unread[: readings.start])


def test_a_model_of_before_imputes_as_it_was_trained():
    encoding = ClinicalEncoding.fit(knees(200))
    card = encoding.to_card()
    before = ClinicalEncoding(card["continuous"], card["categorical"])
    encoded = before.transform(pd.DataFrame({"age_years": [80.0]}))[0]
    assert encoded[2:4].tolist() == [0, 1], "the mean, and an indicator"
    assert encoded[4:7].tolist() == [0, 0, 1], "no category, and an indicator"
    again = ClinicalEncoding(**json.loads(json.dumps(card)))
    np.testing.assert_array_equal(
        again.transform(knees(9, seed=2)), encoding.transform(knees(9, seed=2))
    )
