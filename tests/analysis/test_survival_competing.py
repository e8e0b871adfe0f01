"""Cumulative incidences are held against a world in which death and replacement come first."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest

from kneeoa_mm.analysis import survival
from kneeoa_mm.analysis.competing import cox_incidences, until_rivals, with_rivals
from kneeoa_mm.analysis.given_risks import read_given
from kneeoa_mm.analysis.nonparametric import cumulative_incidence
from kneeoa_mm.analysis.prognosis import Predicted, judge_models
from kneeoa_mm.analysis.risk_over_time import auroc_at, brier_at
from kneeoa_mm.analysis.time_to_event import read_time_to_event
from kneeoa_mm.metrics import bootstrap_rows, bootstrap_weights, resample
from kneeoa_mm.records import Outcome

OUTCOME = Outcome.KL_PROGRESSION
VISITS = (12, 24, 36, 48)
HORIZON = 48.0


def test_whom_another_event_ended_is_known_never_to_have_this_one():
    """By hand: an event at 12, a death at 24, a knee lost at 30, two free at 48; horizon 36.

    Of three knees at risk at 30 one is lost, so each of the other two stands for 1.5.
    """
    months = np.array([12.0, 24.0, 30.0, 48.0, 48.0])
    event, died = np.array([1, 0, 0, 0, 0]), np.array([False, True, False, False, False])
    risk = np.array([0.8, 0.9, 0.3, 0.2, 0.6])
    brier = (0.2**2 + 0.9**2 + 1.5 * (0.2**2 + 0.6**2)) / 5
    assert brier_at(months, 36, died)(event, risk) == pytest.approx(brier)
    assert auroc_at(months, 36, None, died)(event, risk) == pytest.approx(3 / 4)
    # as censoring, the death would leave three knees that stand for more, and none above the case
    assert auroc_at(months, 36)(event, risk) == 1


def test_weights_follow_the_formula_written_out_and_are_repeated_rows():
    """Oracle: sums over pairs (Blanche et al. 2013), censoring by Kaplan-Meier without the dead."""
    generator = np.random.default_rng(4)
    n = 80
    months = np.ceil(generator.exponential(40, n) / 12) * 12
    end = generator.choice(3, n)
    event, died = (end == 1).astype(int), end == 2
    risk = np.round(generator.random(n), 1)

    def stays(time):
        chance = 1.0
        for at in np.unique(months[months < time]):
            left = np.sum(months >= at) - np.sum((months == at) & (end > 0))
            chance *= 1 - np.sum((months == at) & (end == 0)) / left if left else 1
        return chance

    weight = np.zeros(n)
    for i in range(n):
        if end[i] and months[i] <= 36:
            weight[i] = 1 / stays(months[i])
        elif months[i] >= 36:
            weight[i] = 1 / stays(36)
    case = (end == 1) & (months <= 36)
    assert brier_at(months, 36, died)(event, risk) == pytest.approx(
        np.sum(weight * (case - risk) ** 2) / n
    )
    pairs = [(i, j) for i, j in product(range(n), range(n)) if case[i] and not case[j]]
    right = [(risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]) for i, j in pairs]
    expected = np.average(right, weights=[weight[i] * weight[j] for i, j in pairs])
    assert auroc_at(months, 36, None, died)(event, risk) == pytest.approx(expected)

    persons = np.repeat(np.arange(n // 2), 2).astype(str)
    weights = bootstrap_weights(persons, n_boot=5, seed=0)
    rows = bootstrap_rows(persons, n_boot=5, seed=0)
    found = resample(auroc_at(months, 36, None, died), event, risk, weights).draws
    drawn = [auroc_at(months[r], 36, None, died[r])(event[r], risk[r]) for r in rows]
    assert found == pytest.approx(drawn, rel=1e-6)


def rows_of(*knees, outcome=OUTCOME):
    names = ("event_observed", "lower_months", "upper_months")
    table = pd.DataFrame(
        [dict(zip([f"{outcome}_{name}" for name in names], knee, strict=False)) for knee in knees]
    )
    table["death_months"] = [knee[3] for knee in knees]
    table["tkr_event_observed"] = [int(knee[4] is not None) for knee in knees]
    table["tkr_upper_months"] = [knee[4] for knee in knees]
    subjects = [f"{number:04d}" for number in range(len(knees))]
    return table.assign(subject_id=subjects, knee_id=[f"t:{s}:0:L" for s in subjects]).astype(
        {"death_months": float, "tkr_upper_months": float}
    )


def test_a_rival_ends_a_knee_up_to_the_next_film_and_not_after_a_film_was_skipped():
    """Films at 12, 24 and 36 months; times of each knee as a person would write them down."""
    cohort = rows_of(
        (1, 12.0, 24.0, None, None),  # progression
        (0, 36.0, None, None, None),  # free to the end
        (0, 12.0, None, 20.0, None),  # died before the film of 24
        (0, 12.0, None, None, 30.0),  # replaced at 30, and not filmed at 24: progression first?
        (0, 0.0, None, None, 7.0),  # replaced before the first film
        (0, 24.0, None, 23.5, None),  # died on a day before the film that has its visit's date
        (0, 12.0, None, 40.0, 15.0),  # replaced, then died
    )
    data = read_time_to_event(until_rivals(cohort, OUTCOME), OUTCOME, where="")
    found, ended = with_rivals(data)
    assert found.months.tolist() == [24.0, 36.0, 20.0, 12.0, 7.0, 24.0, 15.0]
    assert ended.tolist() == [False, False, True, False, True, True, True]


def test_the_day_of_a_replacement_that_is_the_event_is_no_film():
    """Films at 12, 24, 36 and 48 months: at 24.5 none was due, and a death at 30 came before 36."""
    composite = Outcome.JSL_OR_KR_48M
    cohort = rows_of(
        (0, 24.0, None, 30.0, None),  # died before the film of 36
        (1, 24.0, 24.5, None, 24.5),  # replaced
        (1, 13.0, 13.0, None, 13.0),  # replaced, by a table that gives the day alone
        (0, 12.0, None, 23.0, None),  # died before the film of 24
        (1, 24.0, 36.0, None, None),
        (0, 24.0, None, 37.0, None),  # died after the film of 36 was skipped
        (0, 48.0, None, None, 60.0),
        outcome=composite,
    )
    data = read_time_to_event(until_rivals(cohort, composite), composite, where="")
    found, ended = with_rivals(data)
    assert found.months.tolist() == [30.0, 24.5, 13.0, 23.0, 36.0, 24.0, 48.0]
    assert ended.tolist() == [True, False, False, True, False, False, False]


def test_replacement_is_no_rival_of_an_outcome_that_counts_it():
    composite = Outcome.JSL_OR_KR_48M
    cohort = rows_of((1, 12.0, 24.0, None, None), (0, 12.0, None, None, 20.0), outcome=composite)
    assert (
        with_rivals(read_time_to_event(until_rivals(cohort, composite), composite, where=""))
        is None
    )


def life_courses(n, seed=0):
    """Knees of four grades whose hazards each year are known, filmed at every visit."""
    generator = np.random.default_rng(seed)
    grade = np.arange(n) % 4
    progress, replaced, died = 0.03 + 0.04 * grade, 0.02 + 0.03 * grade, np.full(n, 0.03)
    hazard = np.stack([progress, replaced, died], axis=1)
    truth = progress / hazard.sum(axis=1) * (1 - (1 - hazard.sum(axis=1)) ** len(VISITS))
    knees = []
    for k in range(n):
        knee = (0, float(VISITS[-1]), None, None, None)
        for months in VISITS:
            end = generator.choice(4, p=[1 - hazard[k].sum(), *hazard[k]])
            day = months - 12 * generator.uniform(0.01, 0.99)
            before = float(months - 12)
            if end:
                knee = [
                    (1, before, float(months), None, None),
                    (0, before, None, None, day),
                    (0, before, None, day, None),
                ][end - 1]
                break
            if generator.random() < 0.03:
                knee = (0, float(months), None, None, None)
                break
        knees.append(knee)
    return rows_of(*knees).assign(kl_grade=grade), truth


def test_true_incidences_are_calibrated_and_no_model_beats_them():
    """Simulation with the truth known: where rivals are censoring, true risks look far too low."""
    cohort, truth = life_courses(6_000)
    data = read_time_to_event(until_rivals(cohort, OUTCOME), OUTCOME, where="")
    risks = pd.DataFrame({HORIZON: truth}, index=cohort["knee_id"])

    def judged(is_incidence):
        given = Predicted(risks, None, is_incidence)
        return judge_models(data, ["kl_grade"], given, horizon_months=HORIZON, n_boot=0, seed=0)

    found = judged(True).document
    for row in found["calibration"]:
        observed = row["observed"]
        margin = 1.3 * (observed["ci_high"] - observed["ci_low"]) / 2
        assert row["predicted"] == pytest.approx(observed["value"], abs=margin)
    assert any("cumulative incidences" in text for text in found["estimand"])
    censored = judged(False).document["calibration"][-1]
    assert censored["observed"]["ci_low"] > censored["predicted"] + 0.03, "the test would notice"
    # the model of the grade is close to the truth, once its risks are incidences
    models = found["models"]
    assert models["kl_grade"]["brier"]["value"] == pytest.approx(
        models["predictions"]["brier"]["value"], abs=1e-3
    )
    plain = np.average(truth * (1 - truth))
    assert models["predictions"]["brier"]["value"] == pytest.approx(plain, abs=0.006)


def test_a_model_without_covariates_foretells_the_estimate_of_aalen_and_johansen():
    """Oracle: the curve of the knees that it learns from, whose ties are few."""
    generator = np.random.default_rng(2)
    n = 600
    months, end = generator.exponential(40, n), generator.choice(3, n, p=[0.2, 0.5, 0.3])
    rows = pd.DataFrame({"knee_id": np.arange(n).astype(str)})
    cohort = rows_of(*[(1, 1.0, 1.0, None, None)] * n).assign(knee_id=rows["knee_id"])
    data = read_time_to_event(cohort, OUTCOME, where="")
    data = type(data)(OUTCOME, data.rows, months, (end == 1).astype(int), data.persons, {})
    learns = np.arange(n) < 500
    _, risk = cox_incidences(np.empty((n, 0)), data, end == 2, learns, (24.0, 48.0))
    curve = cumulative_incidence(months[learns], end[learns], data.persons[learns])
    expected = [curve.at(24).value, curve.at(48).value]
    np.testing.assert_allclose(risk, np.tile(expected, (100, 1)), atol=0.002)


def test_predictions_are_judged_on_knees_that_lack_a_covariate_too():
    """Oracle: a table in which no covariate is lacking. Cox models keep to their own knees."""
    cohort, truth = life_courses(400)
    risks = pd.DataFrame({HORIZON: truth}, index=cohort["knee_id"])
    gaps = cohort.assign(kl_grade=cohort["kl_grade"].where(np.arange(400) % 5 > 0).astype("Int64"))

    def judged(table):
        data = read_time_to_event(until_rivals(table, OUTCOME), OUTCOME, where="")
        given = Predicted(risks, None, is_incidence=True)
        found = judge_models(data, ["kl_grade"], given, horizon_months=HORIZON, n_boot=0, seed=0)
        return found.document, len(data.event)

    (whole, n), (found, _) = judged(cohort), judged(gaps)
    assert found["left_out"]["no_covariate"] == n - found["models"]["kl_grade"]["knees"] > 50
    assert found["models"]["predictions"] == whole["models"]["predictions"]
    assert found["models"]["predictions"]["knees"] == n == found["knees"]
    assert found["calibration"] == whole["calibration"]
    apart = found["differences"]["predictions-kl_grade"]["brier"]
    assert apart["n"] == found["models"]["kl_grade"]["knees"]


def test_risks_of_a_model_of_times_alone_are_taken_for_incidences(
    make_predictions, write_predictions
):
    table = make_predictions(n_persons=5)
    timed = table.assign(jsl_48m_cif_48=table["jsl_48m_prob"])
    for given, is_incidence in ((timed, True), (table, False)):
        read = read_given(
            write_predictions(given), Outcome.JSL_48M, horizon_months=48, defined=None
        )
        assert read.predicted.is_incidence is is_incidence
        assert read.predicted.of(table["knee_id"].iloc[:3]).is_incidence is is_incidence


def test_incidences_of_replacement_are_held_against_a_world_with_death(
    make_cohort, make_predictions, write_cohort, write_predictions, monkeypatch, tmp_path
):
    """Oracle: Aalen-Johansen on the third of lowest risk, whose dead are in the cohort's table."""
    monkeypatch.setattr(survival, "_draw", lambda *_: ())
    cohort = make_cohort()
    risk = np.random.default_rng(0).random(len(cohort))
    table = make_predictions(n_persons=120).assign(tkr_prob=risk, tkr_cif_48=risk)
    survival.survive(
        write_cohort(cohort),
        tmp_path / "out",
        outcome="tkr",
        predictions=write_predictions(table),
        n_boot=0,
    )
    found = json.loads((tmp_path / "out" / "survival.json").read_text())["prognosis"]
    third = cohort[risk <= np.quantile(risk, 1 / 3)]
    event = third["tkr_event_observed"].to_numpy(int)
    months = third["tkr_upper_months"].fillna(third["tkr_lower_months"]).to_numpy()
    died = (event == 0) & third["death_months"].notna().to_numpy()
    persons = third["subject_id"].to_numpy(str)
    competing = cumulative_incidence(months, np.where(died, 2, event), persons)
    (row,) = [row for row in found["calibration"] if row["group"] == "lowest third"]
    assert row["observed"]["value"] == pytest.approx(competing.at(48).value)
    assert row["observed"]["value"] < cumulative_incidence(months, event, persons).at(48).value


@pytest.mark.parametrize("is_incidence", [True, False])
def test_curves_by_predicted_risk_are_called_what_they_are(
    make_cohort,
    make_predictions,
    write_cohort,
    write_predictions,
    monkeypatch,
    tmp_path,
    is_incidence,
):
    """Of joint-space loss death competes with incidences alone; no curve by group knows of it."""
    called = []
    monkeypatch.setattr(
        survival.figures, "incidence", lambda _, title, ylabel, **__: called.append((title, ylabel))
    )
    monkeypatch.setattr(survival, "save", lambda *_: None)
    table = make_predictions(n_persons=120)
    timed = table.assign(jsl_48m_cif_48=table["jsl_48m_prob"])
    survival.survive(
        write_cohort(make_cohort()),
        tmp_path / "out",
        outcome="jsl_48m",
        predictions=write_predictions(timed if is_incidence else table),
        n_boot=0,
    )
    by_risk = [label for title, label in called if title.endswith("predicted risk")]
    limits = json.loads((tmp_path / "out" / "survival.json").read_text())["limits"]
    assert any("Aalen-Johansen" in label for label in by_risk) is is_incidence
    assert any("in curves by predicted risk it competes" in text for text in limits) is is_incidence
    assert "1 - Kaplan-Meier" in dict(called)["Joint-space loss: Kaplan-Meier"]
