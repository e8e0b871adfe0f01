"""Sample size and measurement error, each against an oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneeoa_mm.cohort.history import KneeHistory, OutcomeRecord
from kneeoa_mm.cohort.measurement_error import error_sd_mm, false_crossing, mirrored_gains
from kneeoa_mm.cohort.sample_size import max_cox_snell_r2, most_parameters, required_knees


def test_sample_size_equals_the_documented_example_of_pmsampsize() -> None:
    # pmsampsize(type = "b", csrsquared = 0.288, parameters = 24, prevalence = 0.174)
    assert required_knees(24, 0.174, cox_snell_r2=0.288) == (623, 662, 221)


@pytest.mark.parametrize(("risk", "largest"), [(0.5, 0.75), (0.1, 0.48), (0.01, 0.11)])
def test_largest_r2_equals_the_table_of_riley_2020(risk: float, largest: float) -> None:
    assert max_cox_snell_r2(risk) == pytest.approx(largest, abs=0.006)


@given(st.integers(50, 5000), st.floats(0.05, 0.95))
def test_most_parameters_is_the_last_that_suffices(knees: int, risk: float) -> None:
    most = most_parameters(knees, risk)
    assert required_knees(most + 1, risk).needed > knees
    assert most == 0 or required_knees(most, risk).needed <= knees


@pytest.mark.parametrize("looks", [1, 3, 4])
def test_false_crossings_equal_a_simulation(looks: int) -> None:
    rng = np.random.default_rng(0)
    baseline = rng.normal(0, 0.35, 200_000)
    films = rng.normal(0, 0.35, (looks, 200_000))
    simulated = (baseline - films >= 0.7).any(axis=0).mean()
    found = false_crossing(error_sd_mm=0.35, threshold_mm=0.7, looks=looks)
    assert found == pytest.approx(simulated, abs=4 * np.sqrt(found / 200_000))


def test_the_reading_error_is_found_again_though_some_knees_really_lose() -> None:
    rng = np.random.default_rng(1)
    change = rng.normal(0, 0.2 * np.sqrt(2), 2000) + np.where(rng.random(2000) < 0.1, 1.0, 0.0)
    knees = [KneeHistory(mjsw_medial_mm={0: 5.0, 12: 5.0 - loss}) for loss in change]
    assert error_sd_mm(knees, horizon_months=48) == pytest.approx(0.2, rel=0.15)
    assert error_sd_mm(knees[:5], horizon_months=48) is None


def test_gains_as_large_as_a_loss_are_counted() -> None:
    knees = [
        KneeHistory(mjsw_medial_mm={0: 4.0, 48: 4.7}),
        KneeHistory(mjsw_medial_mm={0: 4.0, 48: 3.0}),
        KneeHistory(mjsw_medial_mm={0: 4.0, 24: 5.0}),
    ]
    records = [OutcomeRecord(0), OutcomeRecord(1), OutcomeRecord(None)]
    found = mirrored_gains(knees, records, threshold_mm=0.7, months_read=(48,))
    assert found == (1, 2)
