"""The Cox model against its likelihood, what survival.json says, and which input is refused."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
from efron_likelihood import maximum
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from kneeoa_mm.analysis import survival
from kneeoa_mm.analysis.covariates import design
from kneeoa_mm.analysis.nonparametric import cumulative_incidence
from kneeoa_mm.analysis.regression import fit_cox
from kneeoa_mm.analysis.survival import survive
from kneeoa_mm.analysis.time_to_event import TimeToEvent, groups_of
from kneeoa_mm.analysis.turnbull import interval_incidence
from kneeoa_mm.cli import app
from kneeoa_mm.errors import ConfigError, InputError, OutputExistsError, TableError
from kneeoa_mm.records import Outcome


def _data(n_persons: int = 100, seed: int = 0, **columns) -> TimeToEvent:
    """Two knees a person with hazards exp(0.7 x + 0.4 z) and times rounded to visits."""
    generator = np.random.default_rng(seed)
    persons = np.repeat(np.arange(n_persons), 2).astype(str)
    x, z = generator.normal(size=2 * n_persons), np.repeat(generator.normal(size=n_persons), 2)
    months = np.ceil(generator.exponential(60 / np.exp(0.7 * x + 0.4 * z)) / 12) * 12
    event = (months <= 60).astype(int)
    rows = pd.DataFrame({"x": x, "z": z, **columns})
    return TimeToEvent(Outcome.JSL_48M, rows, np.minimum(months, 60), event, persons, {})


def _ratios(model):
    return {line.term.name: line.ratio.value for line in model.terms}


def test_hazard_ratios_maximise_efrons_likelihood_with_ties():
    """Oracle: Efron's likelihood written out."""
    data = _data()
    model = fit_cox(data, ["x", "z"])
    expected = maximum(data.rows[["x", "z"]].to_numpy(), data.months, data.event)
    assert np.log([_ratios(model)["x"], _ratios(model)["z"]]) == pytest.approx(expected, abs=1e-4)


def test_hazard_ratios_of_a_known_model_lie_in_their_intervals():
    """Oracle: the hazards that the knees were drawn from."""
    model = fit_cox(_data(n_persons=400, seed=3), ["x", "z"])
    for line, truth in zip(model.terms, (0.7, 0.4), strict=True):
        # rounding to visits blurs the times a little, well inside the interval
        assert line.ratio.ci_low < np.exp(truth) < line.ratio.ci_high
        assert line.p_value < 0.001


def test_a_second_knee_that_repeats_the_first_adds_no_certainty():
    data = _data(n_persons=100, seed=2)
    single = TimeToEvent(
        data.outcome, data.rows, data.months, data.event, np.arange(200).astype(str), {}
    )
    doubled = TimeToEvent(
        data.outcome,
        pd.concat([data.rows] * 2, ignore_index=True),
        np.tile(data.months, 2),
        np.tile(data.event, 2),
        np.tile(np.arange(200).astype(str), 2),
        {},
    )
    width = [
        np.log(fit_cox(each, ["x"]).terms[0].ratio.ci_high)
        - np.log(fit_cox(each, ["x"]).terms[0].ratio.ci_low)
        for each in (single, doubled)
    ]
    # Efron's correction sees the doubled ties, hence not exactly
    assert width[1] == pytest.approx(width[0], rel=0.05)


def test_row_order_does_not_matter():
    data = _data(seed=4)
    order = np.random.default_rng(0).permutation(len(data.event))
    shuffled = TimeToEvent(
        data.outcome,
        data.rows.iloc[order].reset_index(drop=True),
        data.months[order],
        data.event[order],
        data.persons[order],
        {},
    )
    first, second = fit_cox(data, ["x", "z"]), fit_cox(shuffled, ["x", "z"])
    for a, b in zip(first.terms, second.terms, strict=True):
        assert (b.ratio.value, b.ratio.ci_low) == pytest.approx((a.ratio.value, a.ratio.ci_low))


def test_a_ratio_that_changes_with_time_is_noticed_and_a_constant_one_is_not():
    """Oracle: Weibull hazards whose ratio is known to change, or not."""
    generator = np.random.default_rng(0)
    n = 1500
    x = generator.integers(0, 2, n).astype(float) + generator.normal(0, 0.01, n)
    # Weibull shapes differ, so the hazards of the two kinds of knee cross
    crossing = generator.weibull(np.where(x > 0.5, 2.5, 0.8)) * 30
    constant = generator.exponential(30 / np.exp(0.7 * x))
    p_values = [
        fit_cox(
            TimeToEvent(
                Outcome.TKR,
                pd.DataFrame({"x": x}),
                months,
                np.ones(n, dtype=int),
                np.arange(n).astype(str),
                {},
            ),
            ["x"],
        )
        .terms[0]
        .changes_with_time
        for months in (crossing, constant)
    ]
    assert p_values[0] < 1e-6
    assert p_values[1] > 0.01


def test_a_level_without_events_is_the_limit_of_the_model_without_its_knees():
    """Oracle: Efron's likelihood of the other knees, written out."""
    data = _data(seed=5)
    generator = np.random.default_rng(1)
    levels = generator.choice(["a", "b", "c"], 200)
    data.event[levels == "c"] = 0
    rows = data.rows.assign(level=levels)
    model = fit_cox(TimeToEvent(*_replaced(data, rows)), ["x", "level"])
    keep = levels != "c"
    indicator = (levels == "b").astype(float)
    expected = maximum(
        np.column_stack([rows["x"], indicator])[keep], data.months[keep], data.event[keep]
    )
    found = _ratios(model)
    assert np.log([found["x"], found["level b vs a"]]) == pytest.approx(expected, abs=1e-4)
    assert found["level c vs the rest"] is None
    assert any("none of its" in note for note in model.notes)


def _replaced(data, rows):
    return data.outcome, rows, data.months, data.event, data.persons, data.left_out


def test_useless_columns_are_dropped_and_said():
    data = _data(seed=6)
    rows = data.rows.assign(flat=1.5, twice=2 * data.rows["x"] + 3, empty=np.nan)
    model = fit_cox(TimeToEvent(*_replaced(data, rows)), ["x", "flat", "twice", "empty"])
    assert {line.term.name for line in model.terms if line.ratio.value} == {"x"}
    text = " ".join(model.notes)
    for word in ("flat", "constant", "twice", "follows from", "empty has no values"):
        assert word in text


def test_knees_that_lack_a_covariate_are_left_out_and_counted():
    data = _data(seed=7)
    rows = data.rows.copy()
    rows.loc[:24, "z"] = np.nan
    model = fit_cox(TimeToEvent(*_replaced(data, rows)), ["x", "z"])
    assert model.knees == 175
    assert any("25 knees lack" in note for note in model.notes)


def test_too_few_events_give_a_reason_instead_of_a_model():
    data = _data(n_persons=10, seed=8)
    data.event[:] = 0
    data.event[:2] = 1
    model = fit_cox(data, ["x", "z"])
    assert "2 events are too few" in model.reason
    assert all(line.ratio.value is None for line in model.terms)


def test_a_grade_is_a_category_and_its_first_level_the_reference():
    rows = pd.DataFrame({"kl_grade": pd.array([0, 1, 2, 2, 0, 1], dtype="Int64")})
    matrix = design(rows, ["kl_grade"], np.array([1, 1, 1, 0, 0, 0]), where="")
    assert [term.name for term in matrix.terms] == ["kl_grade 1 vs 0", "kl_grade 2 vs 0"]
    assert matrix.columns[:, 1].tolist() == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    "name", ["kl_grade", "contralateral_kl_grade", "oarsi_jsn_medial", "oarsi_jsn_lateral"]
)
def test_every_grade_of_a_cohort_is_a_category(name):
    """As numbers, a step from 0 to 1 would have to be worth as much as one from 2 to 3."""
    rows = pd.DataFrame({name: pd.array([0, 1, 2, 3, 0, 1], dtype="Int64")})
    matrix = design(rows, [name], None, where="")
    assert [term.name for term in matrix.terms] == [f"{name} {k} vs 0" for k in (1, 2, 3)]


# the stage


@pytest.fixture
def without_figures(monkeypatch):
    """Most tests are about the numbers, and figures take far longer than they do."""
    monkeypatch.setattr(survival, "_draw", lambda *_: ())


def test_survival_writes_curves_ratios_and_limits(make_cohort, write_cohort, tmp_path):
    result = survive(
        write_cohort(make_cohort()), tmp_path / "out", outcome="kl_progression", n_boot=50
    )
    document = json.loads((tmp_path / "out" / "survival.json").read_text())
    assert document["counts"]["knees"] == sum(g["knees"] for g in document["groups"].values())
    assert document["cox"]["harrell_c"]["ci_low"] > 0.5
    assert any("visit that first showed it" in limit for limit in document["limits"])
    assert any("Death is treated as censoring" in limit for limit in document["limits"])
    assert document["curves"]["aalen_johansen"] == {}
    assert document["weibull_aft"]["shape"]["ci_low"] > 0
    assert all(path.exists() for path in result.outputs.values())
    assert (tmp_path / "out" / "figures" / "kaplan_meier.png").exists()
    drawn = {path.stem for path in (tmp_path / "out" / "figures").glob("*.svg")}
    assert drawn == {
        "kaplan_meier",
        "turnbull",
        "by_predicted_risk",
        "turnbull_by_predicted_risk",
        "cox",
        "weibull_aft",
        "auroc_by_months",
    }


@pytest.mark.usefixtures("without_figures")
def test_events_are_dated_at_the_upper_bound_and_censorings_at_the_lower(
    make_cohort, write_cohort, tmp_path
):
    cohort = make_cohort()
    survive(write_cohort(cohort), tmp_path / "out", outcome="jsl_48m", group="sex")
    document = json.loads((tmp_path / "out" / "survival.json").read_text())
    of_women = cohort["sex"] == "F"
    events = cohort[of_women & (cohort["jsl_48m_event_observed"] == 1)]
    expected = events["jsl_48m_upper_months"].value_counts().sort_index()
    curve = document["curves"]["kaplan_meier"]["F"]
    assert dict(zip(curve["months"], curve["events"], strict=True)) == expected.to_dict()


@pytest.mark.usefixtures("without_figures")
def test_death_competes_with_replacement(make_cohort, write_cohort, tmp_path):
    survive(write_cohort(make_cohort()), tmp_path / "out", outcome="tkr")
    document = json.loads((tmp_path / "out" / "survival.json").read_text())
    risk = {
        (row["estimator"], row["group"]): row["incidence"]
        for row in document["incidence"]
        if row["months"] == 84
    }
    for group in document["groups"]:
        # treating death as censoring can only overstate the risk
        assert risk["aalen_johansen", group] <= risk["kaplan_meier", group]
    assert any("competing" in limit for limit in document["limits"])


@pytest.mark.usefixtures("without_figures")
def test_curves_by_predicted_risk_let_death_compete_and_calibration_does_not(
    make_cohort, make_predictions, write_cohort, write_predictions, tmp_path
):
    """Oracle: each estimator on the third of the knees with the lowest risk."""
    cohort = make_cohort()
    risk = np.random.default_rng(0).random(len(cohort))
    predictions = write_predictions(make_predictions(n_persons=120).assign(tkr_prob=risk))
    survive(
        write_cohort(cohort), tmp_path / "out", outcome="tkr", predictions=predictions, n_boot=10
    )
    document = json.loads((tmp_path / "out" / "survival.json").read_text())
    third = cohort[risk <= np.quantile(risk, 1 / 3)]
    event = third["tkr_event_observed"].to_numpy(int)
    months = third["tkr_upper_months"].fillna(third["tkr_lower_months"]).to_numpy()
    died = (event == 0) & third["death_months"].notna().to_numpy()
    persons = third["subject_id"].to_numpy(str)
    competing = cumulative_incidence(months, np.where(died, 2, event), persons)
    alone = cumulative_incidence(months, event, persons)
    found = document["curves"]["by_predicted_risk"]["lowest third"]
    assert found["incidence"] == pytest.approx(competing.incidence)
    (observed,) = [
        row["observed"]
        for row in document["prognosis"]["calibration"]
        if row["group"] == "lowest third"
    ]
    assert observed["value"] == pytest.approx(alone.at(48).value)
    assert observed["value"] > competing.at(48).value


@pytest.mark.usefixtures("without_figures")
def test_models_are_judged_on_knees_of_grades_without_events_too(
    make_cohort, write_cohort, tmp_path
):
    """To leave them out, as the Cox model must, would choose knees by what became of them."""
    cohort = make_cohort()
    healthy = (cohort["kl_grade"] == 0).to_numpy()
    cohort.loc[healthy, ["tkr", "tkr_event_observed"]] = 0
    cohort.loc[healthy, "tkr_lower_months"] = 96.0
    cohort.loc[healthy, "tkr_upper_months"] = np.nan
    survive(write_cohort(cohort), tmp_path / "out", outcome="tkr", n_boot=10)
    document = json.loads((tmp_path / "out" / "survival.json").read_text())
    assert document["cox"]["knees"] == len(cohort) - healthy.sum()
    assert document["prognosis"]["knees"] == len(cohort)
    assert document["prognosis"]["models"]["kl_grade"]["auroc"]["value"] > 0.6


@pytest.mark.usefixtures("without_figures")
def test_the_command_asks_all_of_it(make_cohort, write_cohort, tmp_path):
    words = ["survival", write_cohort(make_cohort()), "--out", tmp_path / "out", "--outcome", "tkr"]
    words += ["--covariate", "sex", "--covariate", "age_years", "--time-scale", "age"]
    words += ["--horizon-months", 72, "--n-boot", 10, "--seed", 3]
    assert CliRunner().invoke(app, [str(word) for word in words]).exit_code == 0
    asked = json.loads((tmp_path / "out" / "survival.json").read_text())["provenance"]
    assert asked["covariates"] == ["sex", "age_years"]
    assert (asked["time_scale"], asked["horizon_months"]) == ("age", 72)
    assert (asked["n_boot"], asked["seed"]) == (10, 3)


@pytest.mark.usefixtures("without_figures")
def test_a_death_after_the_last_contact_does_not_compete(make_cohort, write_cohort, tmp_path):
    cohort = make_cohort()
    cohort["death_months"] = np.where(cohort["death_months"].notna(), 90.0, np.nan)
    free = (cohort["tkr_event_observed"] == 0) & cohort["death_months"].notna()
    cohort.loc[free, "tkr_lower_months"] = 40.0
    survive(write_cohort(cohort), tmp_path / "out", outcome="tkr")
    document = json.loads((tmp_path / "out" / "survival.json").read_text())
    assert document["curves"]["aalen_johansen"] == {}


@pytest.mark.usefixtures("without_figures")
def test_knees_that_were_never_seen_again_are_left_out_and_counted(
    make_cohort, write_cohort, tmp_path
):
    cohort = make_cohort()
    free = cohort.index[cohort["jsl_48m_event_observed"] == 0]
    cohort.loc[free[:3], "jsl_48m_lower_months"] = 0.0
    cohort.loc[free[3:7], "jsl_48m_event_observed"] = pd.NA
    cohort.loc[free[3:7], "jsl_48m"] = pd.NA
    # not at risk is another thing than not known
    cohort["jsl_48m_reason"] = None
    cohort.loc[free[3:6], "jsl_48m_reason"] = "baseline_kl_4"
    cohort.loc[free[6], "jsl_48m_reason"] = "no_baseline_reading"
    result = survive(write_cohort(cohort), tmp_path / "out", outcome=Outcome.JSL_48M)
    assert result.counts["knees"] == len(cohort) - 7
    document = json.loads((tmp_path / "out" / "survival.json").read_text())
    assert document["left_out"]["no_follow_up"] == 3
    assert document["left_out"]["unknown"] == 4
    assert document["unknown_by_reason"] == {"baseline_kl_4": 3, "no_baseline_reading": 1}
    assert any("3 baseline_kl_4, 1 no_baseline_reading" in note for note in result.notes)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("jsl_48m_upper_months", np.nan, "an event without jsl_48m_upper_months: row"),
        ("jsl_48m_upper_months", 0.0, "an event at baseline.*row"),
        ("jsl_48m_lower_months", 99.0, "before jsl_48m_lower_months: row"),
        ("jsl_48m_upper_months", -12.0, "greater_than_or_equal_to"),
        ("jsl_48m_event_observed", 2, "must be 0 or 1"),
        ("jsl_48m_event_observed", 0, "no event, yet jsl_48m_upper_months says when: row"),
    ],
)
def test_impossible_times_and_event_codes_are_refused_with_their_rows(
    column, value, message, make_cohort, write_cohort, tmp_path
):
    cohort = make_cohort()
    row = int(cohort.index[cohort["jsl_48m_event_observed"] == 1][5])
    cohort.loc[row, column] = value
    path = tmp_path / "cohort.csv"
    cohort.to_csv(path, index=False)
    with pytest.raises(TableError, match=message) as raised:
        survive(path, tmp_path / "out", outcome="jsl_48m")
    assert str(row) in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_an_outcome_without_events_is_refused(make_cohort, write_cohort, tmp_path):
    cohort = make_cohort().assign(tkr_event_observed=0, tkr=0, tkr_upper_months=np.nan)
    with pytest.raises(InputError, match="No knee has the event"):
        survive(write_cohort(cohort), tmp_path / "out", outcome="tkr")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"group": "colour"}, InputError, "group by"),
        ({"group": "subject_id"}, InputError, "cannot group"),
        ({"covariates": ["age_years", "colour"]}, InputError, "colour"),
        ({"covariates": ["subject_id"]}, InputError, "too many levels"),
        ({"outcome": "death"}, ConfigError, "outcome"),
        ({"horizon_months": float("inf")}, ConfigError, "horizon_months"),
        ({"seed": -1}, ConfigError, "seed"),
        ({"seed": 2**32}, ConfigError, "seed"),
    ],
)
def test_impossible_questions_are_refused(
    options, error, message, make_cohort, write_cohort, tmp_path
):
    with pytest.raises(error, match=message):
        survive(write_cohort(make_cohort()), tmp_path / "out", **{"outcome": "tkr"} | options)
    assert not (tmp_path / "out").exists()


def test_many_numbers_are_grouped_by_thirds_in_their_order(make_cohort):
    rows = make_cohort()
    groups = groups_of(rows, "bmi_kg_m2", where="")
    assert len(groups.labels) == 3
    means = [rows.loc[groups.of_knee == label, "bmi_kg_m2"].mean() for label in groups.labels]
    assert means == sorted(means)
    sizes = [np.sum(groups.of_knee == label) for label in groups.labels]
    assert max(sizes) - min(sizes) <= 4


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("n_values", [3, 30])
def test_numbers_that_round_to_the_same_stay_groups_of_their_own(n_values):
    """Codes of seven digits, and thirds of a narrow range: as one group nothing was compared."""
    codes = 1_000_000 + np.arange(30) % n_values
    groups = groups_of(pd.DataFrame({"code": codes}), "code", where="")
    assert [np.sum(groups.of_knee == label) for label in groups.labels] == [10, 10, 10]
    assert len(set(groups.labels)) == 3


def test_knees_without_a_group_have_no_curve_and_are_counted(make_cohort, write_cohort, tmp_path):
    cohort = make_cohort()
    cohort.loc[:9, "race"] = None
    survive(write_cohort(cohort), tmp_path / "out", outcome="tkr", group="race")
    document = json.loads((tmp_path / "out" / "survival.json").read_text())
    assert document["left_out"]["no_race"] == 10
    assert sum(g["knees"] for g in document["groups"].values()) == document["counts"]["knees"] - 10


@pytest.mark.usefixtures("without_figures")
def test_a_group_name_that_is_a_formula_is_made_harmless_in_the_csv(
    make_cohort, write_cohort, tmp_path
):
    cohort = make_cohort()
    cohort["race"] = cohort["race"].replace("Asian", "=HYPERLINK(1)")
    survive(write_cohort(cohort), tmp_path / "out", outcome="tkr", group="race")
    with (tmp_path / "out" / "incidence.csv").open(newline="") as stream:
        groups = {row["group"] for row in csv.DictReader(stream)}
    assert "'=HYPERLINK(1)" in groups
    assert "=HYPERLINK(1)" not in groups


@pytest.mark.usefixtures("without_figures")
def test_an_earlier_analysis_is_kept_unless_told_otherwise(make_cohort, write_cohort, tmp_path):
    path = write_cohort(make_cohort())
    survive(path, tmp_path / "out", outcome="tkr")
    with pytest.raises(OutputExistsError):
        survive(path, tmp_path / "out", outcome="tkr")
    survive(path, tmp_path / "out", outcome="tkr", overwrite=True)


@pytest.mark.usefixtures("without_figures")
def test_intervals_get_the_estimate_of_turnbull_and_exact_days_do_not(
    make_cohort, write_cohort, tmp_path
):
    cohort = make_cohort()
    # one in four films of 24 months is not there, so that intervals overlap
    skipped = (cohort["jsl_48m_upper_months"] == 36) & (np.arange(len(cohort)) % 4 == 0)
    cohort.loc[skipped, "jsl_48m_lower_months"] = 12.0
    path = write_cohort(cohort)
    survive(path, tmp_path / "jsl", outcome="jsl_48m", group="sex", n_boot=50)
    survive(path, tmp_path / "tkr", outcome="tkr", n_boot=50)
    visits, days = (
        json.loads((tmp_path / name / "survival.json").read_text()) for name in ("jsl", "tkr")
    )
    assert days["curves"]["turnbull"] == {}
    women = cohort[cohort["sex"] == "F"]
    seen = women[(women["jsl_48m_event_observed"] == 1) | (women["jsl_48m_lower_months"] > 0)]
    expected = interval_incidence(
        seen["jsl_48m_lower_months"].to_numpy(),
        seen["jsl_48m_upper_months"].fillna(np.inf).to_numpy(),
        seen["subject_id"].to_numpy(str),
        n_boot=50,
    )
    found = visits["curves"]["turnbull"]["F"]
    assert found["incidence"] == expected.incidence.tolist()
    assert found["ci_high"] == expected.ci_high.tolist()


@pytest.mark.usefixtures("without_figures")
def test_with_age_as_time_it_is_no_covariate_and_curves_stay(make_cohort, write_cohort, tmp_path):
    path = write_cohort(make_cohort())
    survive(path, tmp_path / "study", outcome="tkr", n_boot=0)
    survive(path, tmp_path / "age", outcome="tkr", time_scale="age", n_boot=0)
    study, age = (
        json.loads((tmp_path / name / "survival.json").read_text()) for name in ("study", "age")
    )
    assert age["curves"] == study["curves"]
    names = {line["term"] for line in study["cox"]["terms"]}
    assert {line["term"] for line in age["cox"]["terms"]} == names - {"age_years"}


@pytest.mark.usefixtures("without_figures")
def test_one_group_only_says_that_there_is_nothing_to_compare(make_cohort, write_cohort, tmp_path):
    path = write_cohort(make_cohort().assign(sex="F"))
    result = survive(path, tmp_path / "out", outcome="tkr", group="sex", n_boot=0)
    assert any("one group of sex" in note for note in result.notes)


@pytest.mark.usefixtures("without_figures")
def test_a_horizon_that_is_no_year_is_judged_and_not_the_year_before(
    make_cohort, make_predictions, write_cohort, write_predictions, tmp_path
):
    """Oracle: nobody is censored by 30 months, so shares and scikit-learn's area of events."""
    cohort = make_cohort()
    assert cohort["tkr_lower_months"][cohort["tkr_event_observed"] == 0].min() > 30
    risk = np.random.default_rng(0).random(len(cohort))
    predictions = write_predictions(make_predictions(n_persons=120).assign(tkr_prob=risk))
    survive(
        write_cohort(cohort),
        tmp_path / "out",
        outcome="tkr",
        predictions=predictions,
        horizon_months=30,
        n_boot=0,
    )
    document = json.loads((tmp_path / "out" / "survival.json").read_text())
    happened = (cohort["tkr_upper_months"] <= 30).to_numpy(int)
    prognosis = document["prognosis"]
    assert prognosis["horizon_months"] == 30
    found = prognosis["models"]["predictions"]
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(happened, risk))
    assert found["brier"]["value"] == pytest.approx(np.mean((risk - happened) ** 2))
    assert 30 in [row["months"] for row in found["auroc_by_months"]]
    incidence = {
        row["group"]: row["incidence"]
        for row in document["incidence"]
        if (row["estimator"], row["months"]) == ("kaplan_meier", 30)
    }
    by_grade = pd.Series(happened).groupby(cohort["kl_grade"]).mean()
    assert incidence == pytest.approx({f"{k}": share for k, share in by_grade.items()})


@pytest.mark.usefixtures("without_figures")
def test_knees_without_an_age_are_counted_where_age_is_the_time(
    make_cohort, write_cohort, tmp_path
):
    cohort = make_cohort()
    cohort.loc[:9, "age_years"] = np.nan
    path = write_cohort(cohort)
    result = survive(path, tmp_path / "age", outcome="tkr", time_scale="age", n_boot=0)
    document = json.loads((tmp_path / "age" / "survival.json").read_text())
    assert document["left_out"]["no_age"] == 10
    assert document["cox"]["knees"] == document["counts"]["knees"] - 10
    assert any(note.startswith("10 knees have no age") for note in result.notes)
    survive(path, tmp_path / "study", outcome="tkr", n_boot=0)
    study = json.loads((tmp_path / "study" / "survival.json").read_text())
    assert "no_age" not in study["left_out"]


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("time_scale", ["study", "age"])
def test_where_no_knee_has_all_covariates_that_is_what_is_said(
    make_cohort, write_cohort, tmp_path, time_scale
):
    """On the scale of age no knee is left at all; no covariate is constant, or without a value."""
    cohort = make_cohort()
    cohort["age_years"] = np.nan
    cohort.loc[::2, "bmi_kg_m2"] = np.nan
    cohort.loc[1::2, "fta_deg"] = np.nan
    survive(
        write_cohort(cohort),
        tmp_path / "out",
        outcome="tkr",
        covariates=["bmi_kg_m2", "fta_deg"],
        time_scale=time_scale,
        n_boot=0,
    )
    document = json.loads((tmp_path / "out" / "survival.json").read_text())
    for model in ("cox", "weibull_aft"):
        assert document[model]["reason"] == "no knee with all covariates has the event"
    assert document["prognosis"]["reason"] == "no knee has all covariates"
    assert not any("constant" in note or "has no values" in note for note in document["notes"])


@pytest.mark.usefixtures("without_figures")
def test_without_a_model_the_headline_says_why_there_is_no_concordance(
    make_cohort, write_cohort, tmp_path
):
    cohort = make_cohort().assign(kl_grade=pd.array([pd.NA] * 240, dtype="Int64"))
    options = {"group": "sex", "covariates": ["kl_grade"], "n_boot": 0}
    result = survive(write_cohort(cohort), tmp_path / "out", outcome="tkr", **options)
    assert result.figures["uno_c"]["reason"] == "no model with a covariate could be judged"


@pytest.mark.usefixtures("without_figures")
def test_knees_that_no_model_is_judged_on_are_counted_and_said(
    make_cohort, make_predictions, write_cohort, write_predictions, tmp_path
):
    cohort = make_cohort()
    cohort.loc[:6, "bmi_kg_m2"] = np.nan
    table = make_predictions(n_persons=120).assign(tkr_prob=0.5).iloc[:-5]
    result = survive(
        write_cohort(cohort),
        tmp_path / "out",
        outcome="tkr",
        predictions=write_predictions(table),
        n_boot=0,
    )
    prognosis = json.loads((tmp_path / "out" / "survival.json").read_text())["prognosis"]
    assert prognosis["left_out"] == {"no_prediction": 5, "no_covariate": 7}
    assert prognosis["knees"] == len(cohort) - 5
    assert prognosis["models"]["predictions"]["knees"] == len(cohort) - 5
    assert prognosis["models"]["kl_grade"]["knees"] == len(cohort) - 12
    told = " ".join(result.notes)
    assert "Prognosis: 5 knees have no prediction, or the model has seen their person" in told
    assert "Prognosis: 7 knees lack a covariate, and Cox models and differences" in told


@pytest.mark.usefixtures("without_figures")
def test_turnbulls_estimate_is_named_among_those_that_censor_the_dead(
    make_cohort, write_cohort, tmp_path
):
    cohort = make_cohort()
    event = cohort["tkr_event_observed"] == 1
    survive(write_cohort(cohort), tmp_path / "days", outcome="tkr", n_boot=0)
    cohort["tkr_lower_months"] = cohort["tkr_lower_months"].where(~event, 0.0)
    survive(write_cohort(cohort), tmp_path / "visits", outcome="tkr", n_boot=0)
    censor = {
        name: next(
            limit
            for limit in json.loads((tmp_path / name / "survival.json").read_text())["limits"]
            if "as censoring" in limit
        ).split("treat death")[0]
        for name in ("days", "visits")
    }
    assert "Turnbull" in censor["visits"]
    assert "Turnbull" not in censor["days"]
