"""Robust standard errors and the test for proportional hazards, where visits tie the events."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from efron_likelihood import maximum, minus_log_likelihood
from lifelines import CoxPHFitter
from lifelines.statistics import proportional_hazard_test

from kneeoa_mm.analysis.efron import (
    clustered_variance,
    efron_cumulative_hazard,
    efron_residuals,
    proportional_hazards_p_values,
)


def _knees(seed, n_persons=50, *, tied=True):
    generator = np.random.default_rng(seed)
    n = 2 * n_persons
    columns = np.column_stack(
        [generator.normal(size=n), np.repeat(generator.normal(size=n_persons), 2)]
    )
    months = generator.exponential(60 / np.exp(columns @ [0.7, 0.4]))
    months = np.ceil(months / 12) * 12 if tied else months
    event = (months <= 60).astype(int)
    return columns, np.minimum(months, 60), event, np.repeat(np.arange(n_persons), 2).astype(str)


def _lifelines(columns, months, event, **options):
    frame = pd.DataFrame(columns, columns=["x", "z"]).assign(months=months, event=event)
    for name, values in options.items():
        frame[name] = values
    return CoxPHFitter().fit(frame, "months", "event"), frame


def test_score_residuals_are_derivatives_by_the_weight_of_a_knee():
    """Oracle: numerical derivatives of Efron's likelihood, written out."""
    columns, months, event, _ = _knees(0, n_persons=15)
    beta = maximum(columns, months, event)
    found = efron_residuals(columns, months, event, beta).score
    assert found.sum(axis=0) == pytest.approx([0, 0], abs=1e-3)

    def gradient(weights, step=1e-5):
        return np.array(
            [
                (
                    minus_log_likelihood(beta - move, columns, months, event, weights)
                    - minus_log_likelihood(beta + move, columns, months, event, weights)
                )
                / (2 * step)
                for move in step * np.eye(2)
            ]
        )

    for knee in range(0, 30, 4):
        more, less = np.ones(30), np.ones(30)
        more[knee], less[knee] = 1.01, 0.99
        derivative = (gradient(more) - gradient(less)) / 0.02
        assert found[knee] == pytest.approx(derivative, abs=2e-4)


def test_standard_errors_agree_with_leaving_out_one_person_at_a_time():
    """Oracle: the jackknife of persons, each fit by Efron's likelihood written out."""
    columns, months, event, persons = _knees(1, n_persons=120)
    model, _ = _lifelines(columns, months, event)
    beta, variance = model.params_.to_numpy(), model.variance_matrix_.to_numpy()
    score = efron_residuals(columns, months, event, beta).score
    found = np.sqrt(np.diag(clustered_variance(score, persons, variance)))
    each = [persons != person for person in np.unique(persons)]
    left_out = np.array([maximum(columns[keep], months[keep], event[keep]) for keep in each])
    spread = ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0)
    assert found == pytest.approx(np.sqrt(spread * 119 / 120), rel=0.06)


def test_without_ties_both_are_those_of_lifelines():
    """Oracle: lifelines' sandwich and its test for proportional hazards, right without ties."""
    columns, months, event, persons = _knees(2, tied=False)
    model, frame = _lifelines(columns, months, event)
    beta, variance = model.params_.to_numpy(), model.variance_matrix_.to_numpy()
    residuals = efron_residuals(columns, months, event, beta)
    robust = CoxPHFitter().fit(
        frame.assign(person=persons), "months", "event", cluster_col="person"
    )
    clustered = clustered_variance(residuals.score, persons, variance)
    assert np.sqrt(np.diag(clustered)) == pytest.approx(robust.standard_errors_.to_numpy())
    test = proportional_hazard_test(model, frame, time_transform="rank")
    found = proportional_hazards_p_values(residuals.schoenfeld, months[event == 1], variance)
    assert dict(zip(["x", "z"], found, strict=True)) == pytest.approx(
        dict(zip(test.name, test.p_value, strict=True)), rel=1e-4
    )


def test_with_ties_the_order_of_rows_does_not_matter():
    """Oracle: the same table in another order.

    In lifelines 0.30.3 it matters; should the first part fail one day, use lifelines again.
    """
    columns, months, event, persons = _knees(3)
    theirs, ours = [], []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(months))
        knees = columns[order], months[order], event[order]
        model, frame = _lifelines(*knees)
        robust = CoxPHFitter().fit(
            frame.assign(person=persons[order]), "months", "event", cluster_col="person"
        )
        test = proportional_hazard_test(model, frame, time_transform="rank")
        theirs.append([*robust.standard_errors_, *test.p_value])
        variance = model.variance_matrix_.to_numpy()
        residuals = efron_residuals(*knees, model.params_.to_numpy())
        clustered = clustered_variance(residuals.score, persons[order], variance)
        p_values = proportional_hazards_p_values(
            residuals.schoenfeld, knees[1][knees[2] == 1], variance
        )
        ours.append([*np.sqrt(np.diag(clustered)), *p_values])
    assert np.ptp(theirs, axis=0).max() > 0.01
    assert np.ptp(ours, axis=0).max() < 1e-5


def test_events_at_a_single_time_say_nothing_of_a_trend():
    columns, months, event, _ = _knees(4)
    months = np.where(event == 1, 12.0, 24.0)
    model, _ = _lifelines(columns, months, event)
    residuals = efron_residuals(columns, months, event, model.params_.to_numpy())
    variance = model.variance_matrix_.to_numpy()
    p_values = proportional_hazards_p_values(residuals.schoenfeld, months[event == 1], variance)
    assert np.isnan(p_values).all()


def test_without_covariates_the_hazard_is_that_of_events_one_after_another():
    """Closed form: 3 tied events among 10 at risk, then 2 among 5, after two censorings."""
    months = np.array([12.0] * 3 + [18.0] * 2 + [24.0] * 2 + [36.0] * 3)
    event = np.array([1, 1, 1, 0, 0, 1, 1, 0, 0, 0])
    found = efron_cumulative_hazard(np.ones(10), months, event, np.array([6.0, 12.0, 30.0]))
    first = sum(1 / (10 - k) for k in range(3))
    second = sum(1 / (5 - k) for k in range(2))
    assert found == pytest.approx([0, first, first + second])
