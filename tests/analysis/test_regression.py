"""Cox and Weibull regressions against likelihoods written out, and knees of known hazards."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from efron_likelihood import maximum
from lifelines.datasets import load_rossi
from scipy.optimize import minimize

from kneeoa_mm.analysis.regression import fit_cox, fit_weibull
from kneeoa_mm.analysis.time_to_event import TimeToEvent
from kneeoa_mm.analysis.weibull import weibull_scores
from kneeoa_mm.records import Outcome

NEVER = np.inf
JSL = Outcome.JSL_48M


def _singly(n: int):
    return np.arange(n).astype(str)


def test_hazard_ratios_of_a_published_study_maximise_its_likelihood():
    """Oracle: Efron's likelihood written out, for 432 released prisoners (Rossi et al. 1980).

    Of financial aid R's coxph prints -0.37942, exp(coef) 0.68426: Fox and Weisberg 2011, Cox
    Proportional-Hazards Regression for Survival Data in R; repeated in surpyval's tests.
    """
    rossi = load_rossi()
    names = ["fin", "age", "race", "wexp", "mar", "paro", "prio"]
    months, event = rossi["week"].to_numpy(float), rossi["arrest"].to_numpy()
    data = TimeToEvent(JSL, rossi, months, event, _singly(len(rossi)), {})
    terms = fit_cox(data, names).terms
    found = {line.term.covariate: np.log(line.ratio.value) for line in terms}
    expected = maximum(rossi[names].to_numpy(float), months, event)
    assert found == pytest.approx(dict(zip(names, expected, strict=True)), abs=1e-4)
    assert found["fin"] == pytest.approx(-0.37942, abs=6e-6)


def _minus_log_likelihood(parameters, columns, lower, upper, entry=0.0, weights=1.0):
    """Weibull survival exp(-(t / scale)^shape) of intervals, exact times and late entry."""
    log_scale, shape = columns @ parameters[:-1], np.exp(parameters[-1])

    def survival(months):
        with np.errstate(over="ignore"):
            return np.exp(-((months / np.exp(log_scale)) ** shape))

    exact = lower == upper
    growth = shape / np.where(exact, lower, 1) * (lower / np.exp(log_scale)) ** shape
    density = survival(lower) * growth
    interval = survival(lower) - survival(upper)
    chance = np.where(exact, density, interval) / survival(np.broadcast_to(entry, lower.shape))
    return -np.sum(weights * np.log(chance))


def _knees(seed: int, n: int = 160):
    """Intervals since each knee came under observation; some events are dated exactly."""
    generator = np.random.default_rng(seed)
    x = np.repeat(generator.normal(size=n // 2), 2) + 0.5 * generator.normal(size=n)
    happens = 40 * np.exp(-0.5 * x) * generator.weibull(1.5, n)
    upper = np.ceil(happens / 12) * 12
    lower = upper - 12
    exact = generator.random(n) < 0.2
    lower, upper = np.where(exact, happens, lower), np.where(exact, happens, upper)
    free = upper > 60
    return x, np.where(free, 60, lower), np.where(free, NEVER, upper)


def _data(x, lower, upper, persons, entry=None) -> TimeToEvent:
    rows = pd.DataFrame({"x": x, f"{JSL}_lower_months": lower})
    event = np.isfinite(upper).astype(np.int64)
    months = np.where(event, upper, lower) + (0 if entry is None else entry)
    return TimeToEvent(JSL, rows, months, event, persons, {}, entry)


def test_weibull_scores_are_derivatives_of_the_likelihood_of_each_knee():
    """Oracle: numerical derivatives of the Weibull likelihood, written out."""
    x, lower, upper = _knees(0, n=30)
    columns = np.column_stack([x, np.ones(30)])
    entry = np.minimum(lower, 5.0) / 2
    at = np.array([-0.3, 3.6, 0.2])
    found = weibull_scores(columns, lower, upper, at[:-1], at[-1], entry_months=entry)
    for knee in range(30):
        one = np.zeros(30)
        one[knee] = 1
        numeric = [
            (
                _minus_log_likelihood(at - step, columns, lower, upper, entry, one)
                - _minus_log_likelihood(at + step, columns, lower, upper, entry, one)
            )
            / 2e-5
            for step in 1e-5 * np.eye(3)
        ]
        assert found[knee] == pytest.approx(numeric, abs=1e-5)


@pytest.mark.parametrize("has_late_entry", [False, True])
def test_time_ratios_and_shape_maximise_the_likelihood_of_intervals(has_late_entry):
    """Oracle: the Weibull likelihood of intervals, written out."""
    x, lower, upper = _knees(1)
    entry = np.minimum(lower / 2, 4.0) if has_late_entry else None
    model = fit_weibull(_data(x, lower, upper, _singly(160), entry), ["x"])
    since = 0.0 if entry is None else entry
    columns = np.column_stack([x, np.ones(160)])
    best = minimize(
        _minus_log_likelihood,
        [0, 3.5, 0],
        args=(columns, lower + since, upper + since, since),
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 2000},
    ).x
    (line,) = model.terms
    found = np.log([line.ratio.value, model.shape.value])
    assert found == pytest.approx(best[[0, 2]], abs=2e-3)


def test_a_second_knee_that_repeats_the_first_adds_no_certainty_to_time_ratios():
    x, lower, upper = _knees(2)
    alone = fit_weibull(_data(x, lower, upper, _singly(160)), ["x"])
    twice = [np.repeat(values, 2) for values in (x, lower, upper, _singly(160))]
    doubled = fit_weibull(_data(*twice), ["x"])
    naive = fit_weibull(_data(*twice[:3], _singly(320)), ["x"])

    def width(model):
        ratio = model.terms[0].ratio
        return np.log(ratio.ci_high / ratio.ci_low)

    assert width(doubled) == pytest.approx(width(alone), rel=0.01)
    assert width(naive) == pytest.approx(width(alone) / np.sqrt(2), rel=0.01)


def test_the_truth_lies_in_the_intervals_of_the_weibull_model():
    """Oracle: the Weibull times that the knees were drawn from."""
    x, lower, upper = _knees(3, n=1200)
    persons = np.repeat(np.arange(600), 2).astype(str)
    model = fit_weibull(_data(x, lower, upper, persons), ["x"])
    ratio = model.terms[0].ratio
    assert ratio.ci_low < np.exp(-0.5) < ratio.ci_high
    assert model.shape.ci_low < 1.5 < model.shape.ci_high


def test_with_age_as_time_knees_are_at_risk_from_their_own_age_on():
    """Oracle: the partial likelihood, with the risk set of those under observation written out."""
    generator = np.random.default_rng(4)
    n = 150
    x, age = generator.normal(size=n), generator.uniform(50, 75, n)
    happens = generator.exponential(60 * np.exp(-0.6 * x))
    event = (happens <= 48).astype(np.int64)
    rows = pd.DataFrame({"x": x, "age_years": np.where(np.arange(n) < 5, np.nan, age)})
    data = TimeToEvent(JSL, rows, np.minimum(happens, 48), event, _singly(n), {})
    aged = data.since_birth()
    assert aged.left_out["no_age"] == 5
    stop, start = aged.months, aged.entry_months
    z = aged.rows["x"].to_numpy()

    def minus_log_likelihood(beta):
        total = 0.0
        for i in np.flatnonzero(aged.event):
            at_risk = (stop >= stop[i]) & (start < stop[i])
            total += z[i] * beta[0] - np.log(np.exp(z[at_risk] * beta[0]).sum())
        return -total

    expected = minimize(minus_log_likelihood, [0.0], tol=1e-10).x[0]
    (line,) = fit_cox(aged, ["x"]).terms
    assert np.log(line.ratio.value) == pytest.approx(expected, abs=1e-5)
    assert line.ratio.ci_low < np.exp(0.6) < line.ratio.ci_high


@pytest.mark.parametrize("fit", [fit_cox, fit_weibull])
def test_a_covariate_that_separates_the_events_is_refused_with_their_rows(fit):
    x, lower, upper = _knees(5, n=40)
    event = np.isfinite(upper)
    marker = np.where(event, 100 - np.where(event, upper, 0), 0.0)
    data = _data(x, lower, upper, _singly(40))
    data.rows["age_years"] = marker
    model = fit(data, ["x", "age_years"])
    assert "Age, per year separates the events" in model.reason
    first = int(np.flatnonzero(event)[0])
    assert f"row(s) {first}," in model.reason
    assert all(line.ratio.value is None for line in model.terms)


@pytest.mark.parametrize("fit", [fit_cox, fit_weibull])
def test_one_person_makes_no_model(fit):
    x, lower, upper = _knees(6, n=20)
    model = fit(_data(x, lower, upper, np.array(["a"] * 20)), ["x"])
    assert "one person" in model.reason


def test_a_level_without_events_names_its_rows():
    x, lower, upper = _knees(7, n=60)
    site = np.where(np.isfinite(upper), "A", "B")
    data = _data(x, lower, upper, _singly(60))
    data.rows["site"] = np.where(np.arange(60) % 3 == 0, "A", site)
    (reason,) = [t.ratio.reason for t in fit_cox(data, ["x", "site"]).terms if t.term.level]
    rows = data.rows.index[data.rows["site"] == "B"]
    assert f"row(s) {rows[0]}, {rows[1]}" in reason
