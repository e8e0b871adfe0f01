"""Subgroups: bands, those that say nothing, and the figures of the rest."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from kneeoa_mm.analysis.evaluation import evaluate
from kneeoa_mm.analysis.subgroups import BANDS, factor_of, subgroups_of
from kneeoa_mm.analysis.targets import Target

OPTIONS = {"n_boot": 60, "overwrite": True}


@pytest.fixture
def judge(write_predictions, tmp_path, monkeypatch):
    monkeypatch.setattr("kneeoa_mm.analysis.evaluation.draw", lambda *_: ())

    def run(table: pd.DataFrame, **options):
        evaluate(write_predictions(table), tmp_path / "out", **OPTIONS | options)
        return json.loads((tmp_path / "out" / "metrics.json").read_text())

    return run


@pytest.fixture
def table(make_predictions):
    """120 persons, two knees each, with factors of the person beside their predictions."""
    predictions = make_predictions(n_persons=120)
    generator = np.random.default_rng(3)
    return predictions.assign(
        sex=np.repeat(generator.choice(["F", "M"], 120), 2),
        age_years=np.repeat(generator.uniform(45, 80, 120), 2),
    )


def test_a_bound_belongs_to_the_band_above_it_and_missing_is_a_level():
    rows = pd.DataFrame({"age_years": [54.9, 55, 75, np.nan]}, index=list("abcd"))
    found = factor_of("age_years", rows, np.array(list("abcde")), BANDS)
    assert found.levels.tolist() == ["< 55", "55 to < 65", ">= 75", "missing", "missing"]
    assert found.order == ("< 55", "55 to < 65", ">= 75", "missing")


def test_codes_of_many_digits_are_levels_of_their_own():
    sites = pd.DataFrame({"site": [1_000_001, 1_000_002]}, index=["a", "b"])
    assert factor_of("site", sites, np.array(["a", "b"]), BANDS).order == ("1000001", "1000002")


def test_a_factor_that_is_no_number_has_no_bands_and_one_of_dates_has_levels():
    rows = pd.DataFrame({"race": list("xy"), "seen": pd.to_datetime(["2020-01-01"] * 2)})
    knees = np.array([0, 1])
    assert "no number" in factor_of("race", rows, knees, {"race": (1.0,)}).reason
    assert factor_of("seen", rows, knees, BANDS).reason is None


def test_figures_of_a_level_are_those_of_its_knees_alone(judge, table):
    """Oracle: scikit-learn on the rows of the level."""
    sex = judge(table)["subgroups"]["jsl_48m"]["sex"]
    for level in ("F", "M"):
        rows = table[table["sex"] == level]
        found = sex["levels"][level]
        expected = roc_auc_score(rows["jsl_48m"].astype(int), rows["jsl_48m_prob"])
        assert found["auroc"]["value"] == pytest.approx(expected)
        assert found["auroc"]["ci_low"] < expected < found["auroc"]["ci_high"]
        assert found["knees"] == len(rows)
        assert found["persons"] == rows["subject_id"].nunique()
        assert found["events"] == rows["jsl_48m"].sum()
    assert 0 <= sex["heterogeneity"]["auroc"]["p_value"] <= 1
    assert sex["heterogeneity"]["auroc"]["levels"] == ["F", "M"]


def test_a_difference_that_is_there_is_found(judge, table):
    """Ranking is perfect in men and chance in women."""
    chance = np.random.default_rng(0).random(len(table))
    risk = np.where(table["sex"] == "M", 0.1 + 0.8 * table["jsl_48m"].astype(int), chance)
    noise = 0.05 * np.random.default_rng(1).random(len(table))
    # one man in ten the wrong way round, or the draws would not vary
    wrong = (table["sex"] == "M") & (np.arange(len(table)) % 10 == 0)
    document = judge(table.assign(jsl_48m_prob=0.9 * np.where(wrong, 0.5, risk) + noise))
    test = document["subgroups"]["jsl_48m"]["sex"]["heterogeneity"]["auroc"]
    assert test["p_value"] < 0.001
    assert any("not adjusted" in note for note in document["notes"])


def test_knees_without_the_factor_are_a_row_of_their_own_and_not_tested(judge, table):
    table.loc[:39, "sex"] = None
    sex = judge(table)["subgroups"]["jsl_48m"]["sex"]
    assert sex["levels"]["missing"]["knees"] == 40
    assert sex["levels"]["missing"]["auroc"]["value"] is not None
    assert "missing" not in sex["heterogeneity"]["auroc"]["levels"]


def test_a_subgroup_of_three_has_counts_and_a_reason_but_no_figures(judge, table):
    table["site"] = ["A"] * 3 + ["B"] * (len(table) - 3)
    site = judge(table)["subgroups"]["jsl_48m"]["site"]
    assert site["levels"]["A"]["knees"] == 3
    assert site["levels"]["A"]["auroc"]["value"] is None
    assert "fewer than 10 persons" in site["levels"]["A"]["auroc"]["reason"]
    assert site["levels"]["B"]["auroc"]["value"] is not None
    assert site["heterogeneity"]["auroc"]["p_value"] is None
    assert "fewer than two levels" in site["heterogeneity"]["auroc"]["reason"]


def test_a_subgroup_of_one_class_has_no_ranking_but_a_level(judge, table):
    table.loc[table["sex"] == "F", "jsl_48m"] = 0
    sex = judge(table)["subgroups"]["jsl_48m"]["sex"]
    assert sex["levels"]["F"]["auroc"]["value"] is None
    assert "one class" in sex["levels"]["F"]["auroc"]["reason"]
    assert sex["levels"]["F"]["brier"]["value"] is not None
    assert sex["heterogeneity"]["auroc"]["p_value"] is None
    assert sex["heterogeneity"]["brier"]["p_value"] is not None


def test_factors_that_are_absent_empty_or_endless_say_so(judge, table):
    table["race"] = None
    table["film"] = [f"{i}" for i in range(len(table))]
    found = judge(table, subgroups=("race", "film", "bmi_kg_m2"))["subgroups"]["kl"]
    assert found["race"]["reason"] == "no knee has a value"
    assert "too many" in found["film"]["reason"]
    assert "no column bmi_kg_m2" in found["bmi_kg_m2"]["reason"]
    assert all(factor["levels"] == {} for factor in found.values())


def test_factors_come_from_the_cohort_by_knee(judge, table, make_cohort, write_cohort):
    cohort = make_cohort(n_persons=110)
    predictions = table.drop(columns=["sex", "age_years"])
    document = judge(predictions, cohort=write_cohort(cohort))
    sex = document["subgroups"]["jsl_48m"]["sex"]["levels"]
    assert sex["F"]["knees"] == (cohort["sex"] == "F").sum()
    assert sex["missing"]["knees"] == 20
    assert len(document["provenance"]["cohort_sha256"]) == 64


def test_the_true_grade_is_no_subgroup_of_a_grader(judge, table):
    document = judge(table)
    assert "kl_grade" not in document["subgroups"]["kl"]
    assert set(document["subgroups"]["jsl_48m"]["kl_grade"]["levels"]) <= set("01234")


def test_without_draws_there_is_no_test_but_a_reason(judge, table):
    sex = judge(table, n_boot=0)["subgroups"]["jsl_48m"]["sex"]
    assert sex["levels"]["F"]["auroc"]["value"] is not None
    assert "interval" in sex["heterogeneity"]["auroc"]["reason"]


def test_the_table_of_subgroups_has_a_row_a_level_and_metric(judge, table, tmp_path):
    judge(table)
    rows = pd.read_csv(tmp_path / "out" / "subgroups.csv")
    women = rows[(rows["factor"] == "sex") & (rows["level"] == "F")]
    assert set(women[women["target"] == "jsl_48m"]["metric"]) == {
        "auroc",
        "brier",
        "calibration_in_the_large",
    }
    assert women["heterogeneity_p"].notna().all()


def _auroc_of_four_sites(seed: int):
    """A target without any difference between sites, of knees that are alike within persons."""
    generator = np.random.default_rng(seed)
    n = 240
    site = np.repeat(generator.integers(0, 4, n).astype(str), 2)
    event = (generator.random(2 * n) < 0.12).astype(np.int64)
    alike = np.repeat(generator.normal(size=n), 2)
    score = 1.2 * event + np.sqrt(0.6) * alike + np.sqrt(0.4) * generator.normal(size=2 * n)
    persons = np.repeat(np.arange(n).astype(str), 2)
    knees = np.arange(2 * n).astype(str)
    risk = 1 / (1 + np.exp(-score))
    target = Target("jsl_48m", event, event, risk, knees, persons, {})
    return target, pd.DataFrame({"site": site}, index=knees)


def test_the_test_of_aurocs_rejects_no_more_often_than_it_says():
    """Simulation without a difference: at most 5 % of 200 studies have a P below 0.05.

    With chi-squared on the areas themselves, and sites of any size, it were one in ten.
    """
    rejected = tested = 0
    for seed in range(200):
        target, table = _auroc_of_four_sites(seed)
        weights = target.draws(n_boot=150, seed=seed)
        options = {"factors": ("site",), "bands": {}, "min_persons": 10}
        found = subgroups_of(target, table, weights, **options)["site"]["heterogeneity"]["auroc"]
        if found["p_value"] is not None:
            tested += 1
            rejected += found["p_value"] < 0.05
    assert tested > 190
    assert rejected <= binom.ppf(0.999, tested, 0.05)


def test_a_level_with_events_of_few_persons_takes_no_part_in_the_test(judge, table):
    rare = table["sex"].eq("M") & table["jsl_48m"].eq(1)
    few = table.assign(jsl_48m=table["jsl_48m"].mask(rare & (rare.cumsum() > 7), 0))
    sex = judge(few)["subgroups"]["jsl_48m"]["sex"]
    assert "persons have a knee with the event" in sex["levels"]["M"]["auroc"]["note"]
    assert sex["heterogeneity"]["auroc"]["p_value"] is None
    assert "10 persons of each class" in sex["heterogeneity"]["auroc"]["reason"]


def test_a_level_with_osteoarthritis_of_few_persons_takes_no_part_in_the_test(judge, table):
    rare = table["sex"].eq("M") & table["kl_grade"].ge(2)
    few = table.assign(kl_grade=table["kl_grade"].mask(rare & (rare.cumsum() > 7), 1))
    sex = judge(few)["subgroups"]["kl"]["sex"]
    assert "persons have a knee with KL 2 or more" in sex["levels"]["M"]["auroc_kl2"]["note"]
    assert sex["heterogeneity"]["auroc_kl2"]["p_value"] is None
    assert "10 persons of each class" in sex["heterogeneity"]["auroc_kl2"]["reason"]
    assert "note" not in sex["levels"]["M"]["qwk"]


def test_p_values_of_the_first_metric_are_adjusted_for_the_number_of_factors(judge, table):
    """Oracle: of two factors, twice the smaller P, and the larger or that (Holm 1979)."""
    factors = judge(table, subgroups=("sex", "age_years"))["subgroups"]["jsl_48m"]
    raw = {
        name: factors[name]["heterogeneity"]["auroc"]["p_value"] for name in ("sex", "age_years")
    }
    low, high = sorted(raw, key=raw.get)
    adjusted = {n: factors[n]["heterogeneity"]["auroc"]["adjusted_p_value"] for n in raw}
    assert adjusted[low] == pytest.approx(min(1, 2 * raw[low]))
    assert adjusted[high] == pytest.approx(max(raw[high], min(1, 2 * raw[low])))
    assert "adjusted_p_value" not in factors["sex"]["heterogeneity"]["brier"]


def test_knees_of_a_level_are_ranked_within_their_fold(judge, table):
    """Oracle: scikit-learn's areas of each fold of the level, weighted by their pairs."""
    fold = table.groupby("subject_id").ngroup() % 3
    moved = table.assign(fold=fold, jsl_48m_prob=(table["jsl_48m_prob"] + fold) / 4)
    found = judge(moved)["subgroups"]["jsl_48m"]["sex"]["levels"]["F"]["auroc"]["value"]
    rows = moved[moved["sex"] == "F"].astype({"jsl_48m": int})
    areas, pairs = [], []
    for _, part in rows.groupby("fold"):
        events = part["jsl_48m"].sum()
        areas.append(roc_auc_score(part["jsl_48m"], part["jsl_48m_prob"]))
        pairs.append(events * (len(part) - events))
    assert found == pytest.approx(np.average(areas, weights=pairs))
