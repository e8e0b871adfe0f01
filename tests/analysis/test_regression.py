"""Cox and Weibull regressions against likelihoods written out, and knees of known hazards."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from efron_likelihood import maximum
from lifelines.datasets import load_rossi
from lifelines.exceptions import ConvergenceError, ConvergenceWarning
from scipy.optimize import minimize

from kneeoa_mm.analysis.regression import fit_cox, fit_weibull, told_by
from kneeoa_mm.analysis.separation import separates_hazards, separates_times
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


def test_time_ratios_are_found_on_the_scale_of_age():
    """Oracle: the likelihood written out. Ages are some 60 years, and hazards rise steeply."""
    generator = np.random.default_rng(0)
    x, age = generator.normal(size=600), 12 * generator.uniform(45, 75, 600)
    event_age = 12 * 95 * np.exp(-0.05 * x) * generator.weibull(8, 600)
    alive = event_age > age
    x, age, seen = x[alive], age[alive], np.ceil((event_age - age)[alive] / 24) * 24
    lower, upper = np.where(seen <= 96, seen - 24, 96.0), np.where(seen <= 96, seen, np.inf)
    rows = pd.DataFrame({"x": x, "age_years": age / 12, f"{JSL}_lower_months": lower})
    event = np.isfinite(upper).astype(int)
    months = np.where(event, upper, lower)
    data = TimeToEvent(JSL, rows, months, event, _singly(len(x)), {}).since_birth()
    model = fit_weibull(data, ["x"])
    assert model.reason is None
    columns, intervals = np.column_stack([x, np.ones(len(x))]), (lower + age, upper + age)
    best = minimize(
        _minus_log_likelihood,
        [-0.05, np.log(12 * 95), np.log(8)],
        args=(columns, *intervals, age),
        method="Nelder-Mead",
        options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 4000},
    )
    assert np.log(model.terms[0].ratio.value) == pytest.approx(best.x[0], abs=1e-4)
    assert np.log(model.shape.value) == pytest.approx(best.x[2], abs=1e-3)


def test_a_fit_that_fails_says_why():
    said = ConvergenceError("\n   Fitting did not converge. Try the following:\n\n  0. Are there")
    assert told_by(said) == "Fitting did not converge."
    assert told_by(ConvergenceError("")) == ""


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
    data = _data(x, lower, upper, _singly(40))
    data.rows["age_years"] = np.where(event, 70.0, 50.0)
    model = fit(data, ["x", "age_years"])
    assert "Age, per year separates the events" in model.reason
    first = int(np.flatnonzero(event)[0])
    assert f"row(s) {first}," in model.reason
    assert all(line.ratio.value is None for line in model.terms)


@pytest.mark.parametrize("fit", [fit_cox, fit_weibull])
def test_covariates_that_separate_the_events_together_are_refused_and_named(fit):
    """Neither tells the events alone; their sum does, among knees that are all seen at 12 months.

    Oracle: by construction, every event has a sum above 0.5 and every other knee one below 0.
    """
    generator = np.random.default_rng(11)
    total = np.where(np.arange(80) < 20, 0.5, -1.0) + generator.uniform(0, 0.9, 80)
    age, bmi = total + (part := generator.normal(0, 2, 80)), -part
    lower, upper = np.where(total > 0.5, 0, 48.0), np.where(total > 0.5, 12, NEVER)
    data = _data(generator.normal(size=80), lower, upper, _singly(80))
    data.rows[["age_years", "bmi_kg_m2"]] = np.column_stack([age, bmi])
    reason = fit(data, ["x", "age_years", "bmi_kg_m2"]).reason
    assert "Age, per year and BMI, per kg/m² together separate the events" in reason


def _ranks_every_event_first(score, data, entry):
    """Each event above all others at risk who have none then, and somewhere strictly above."""
    strict = False
    for i in np.flatnonzero(data.event):
        at_risk = (data.months >= data.months[i]) & (entry < data.months[i])
        others = score[at_risk & ~((data.months == data.months[i]) & (data.event == 1))]
        if np.any(score[i] < others - 1e-9):
            return False
        strict |= bool(np.any(score[i] > others + 1e-9))
    return strict


def test_separation_of_hazards_is_found_exactly_where_some_direction_separates():
    """Oracle: 720 directions of two covariates, tried one by one, on small studies."""
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    found = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        months = generator.choice([12.0, 24, 36, 48], 14)
        event = (generator.random(14) < 0.25).astype(np.int64)
        # few values, so that ties of the covariates are met as well
        columns = generator.integers(-2, 3, (14, 2)).astype(float)
        entry = np.where(generator.random(14) < 0.5, 0.0, months - 6)
        data = TimeToEvent(JSL, pd.DataFrame(), months, event, _singly(14), {}, entry)
        scores = [columns @ [np.cos(a), np.sin(a)] for a in angles]
        expected = any(_ranks_every_event_first(score, data, entry) for score in scores)
        assert separates_hazards(columns, data) == expected, seed
        found.append(expected)
    assert 0.1 < np.mean(found) < 0.9


@pytest.mark.parametrize("events_by", [12.0, 60.0])
def test_a_weibull_model_is_refused_exactly_where_its_likelihood_has_no_maximum(events_by):
    """Oracle: the likelihood written out, maximised within ever wider bounds.

    A threshold tells the events. Seen in the first year, they may come ever sooner, and the
    coefficient has no end; seen at several visits, their intervals hold it.
    """
    x, lower, upper = _knees(12, n=60)
    event = upper <= events_by
    lower, upper = np.where(event, np.floor(lower / 12) * 12, 60), np.where(event, upper, NEVER)
    upper = np.where(event, lower + 12, NEVER)
    marker = np.where(event, 1.0, -1.0) + 0.5 * np.tanh(x)
    columns = np.column_stack([marker, np.ones(60)])
    ends = [
        minimize(
            _minus_log_likelihood,
            [0, 3.5, 0],
            args=(columns, lower, upper),
            bounds=[(-wide, wide), (-200, 200), (-3, 3)],
            method="Nelder-Mead",
            options={"maxiter": 4000, "maxfev": 4000},
        ).x[0]
        for wide in (20, 80)
    ]
    runs_away = abs(ends[1]) > 1.5 * abs(ends[0])
    data = _data(marker, lower, upper, _singly(60))
    assert separates_times(marker[:, None], data) == runs_away == (events_by == 12)


def test_a_ratio_without_an_end_or_an_error_is_no_result(monkeypatch):
    """Where lifelines stops half way, what it stopped at is not told as a finding."""
    x, lower, upper = _knees(8, n=60)
    data = _data(x, lower, upper, _singly(60))

    def gives_up(*_args, **_kwargs):
        warnings.warn("Newton-Raphson failed to converge.", ConvergenceWarning, stacklevel=2)

    monkeypatch.setattr("kneeoa_mm.analysis.regression.CoxPHFitter.fit", gives_up)
    model = fit_cox(data, ["x"])
    assert "failed to converge" in model.reason
    assert model.terms[0].ratio.value is None


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
