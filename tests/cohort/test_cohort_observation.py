"""Weights for dropout against known risks: simulated, worked by hand, and of real knees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kneeoa_mm.cohort.assemble import assemble
from kneeoa_mm.cohort.history import KneeHistory, OutcomeRecord
from kneeoa_mm.cohort.joint_space_loss import jsl_48m, jsl_fnih, jsl_or_kr_48m
from kneeoa_mm.cohort.observation import add_weights
from kneeoa_mm.cohort.outcomes import from_label, kl_progression, tkr
from kneeoa_mm.cohort.pain import pain_progression
from kneeoa_mm.cohort_spec import CohortSpec, read_cohort_spec
from kneeoa_mm.identifiers import KEEP, read_identifiers
from kneeoa_mm.records import Outcome

_VISITS = (12, 24, 36, 48)


def _weighed(
    records: list[OutcomeRecord], age_years: Any = 62.0, outcome: Outcome = Outcome.KL_PROGRESSION
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Weights of one outcome; all others have no values."""
    n = len(records)
    frame = pd.DataFrame({"age_years": np.broadcast_to(age_years, n), "sex": "F", "kl_grade": 1})
    frame["race"] = None
    for name in ("bmi_kg_m2", "knee_injury", "fta_deg", "womac_total", "mjsw_medial_mm"):
        frame[name] = np.nan
    for each in Outcome:
        frame[each], frame[f"{each}_reason"] = pd.array([None] * n, dtype="Int64"), None
    frame[outcome] = pd.array([record.value for record in records], dtype="Int64")
    frame[f"{outcome}_reason"] = [record.reason for record in records]
    followed = pd.DataFrame({each: [r.followed_months for r in records] for each in Outcome})
    weighted, document = add_weights(frame, followed.astype(float))
    return weighted, document[outcome]


def _risks(frame: pd.DataFrame, outcome: Outcome = Outcome.KL_PROGRESSION) -> tuple[float, float]:
    """Of the knees with a value: as they are, and weighted."""
    known = frame[frame[outcome].notna()]
    value = known[outcome].to_numpy(float)
    return float(value.mean()), float(np.average(value, weights=known[f"{outcome}_weight"]))


def _simulated(n: int, seed: int) -> tuple[list[OutcomeRecord], Any, float]:
    """Old knees progress and the young drop out; and the risk if nobody dropped out."""
    rng = np.random.default_rng(seed)
    age = rng.normal(62, 9, n)
    z = (age - 62) / 9
    progresses = rng.random((n, 4)) < 1 / (1 + np.exp(3.2 - 0.8 * z))[:, None]
    drops = rng.random((n, 4)) < 1 / (1 + np.exp(1.8 + 0.8 * z))[:, None]
    has_progressed = progresses.cumsum(axis=1) > 0
    is_followed = drops.cumsum(axis=1) == 0
    records = []
    for grades, seen in zip(1 + has_progressed, is_followed, strict=True):
        films = {m: int(g) for m, g, s in zip(_VISITS, grades, seen, strict=True) if s}
        last = float(max(films, default=0))
        records.append(kl_progression(KneeHistory({0: 1, **films}, last_contact_months=last)))
    return records, age, float(has_progressed[:, -1].mean())


def test_weights_find_the_risk_where_events_are_seen_before_the_dropout() -> None:
    """Cases are known early and others must stay to the end, so complete cases have too many."""
    records, age, truth = _simulated(8000, 0)
    frame, document = _weighed(records, age)
    complete_cases, mended = _risks(frame)
    assert complete_cases > truth + 0.04
    assert mended == pytest.approx(truth, abs=0.015)
    balance = document["standardised_difference_of_seen_from_eligible"]["age_years"]
    assert abs(balance["after"]) < 0.25 * abs(balance["before"])
    assert document["effective_n"] < document["seen"]
    assert frame.loc[frame["kl_progression"].isna(), "kl_progression_weight"].isna().all()


def test_where_nobody_is_followed_to_the_horizon_events_seen_before_all_left_weigh_one() -> None:
    """A study that ended after a year, of an outcome by 48 months: nobody is left to learn from."""
    frame, document = _weighed([*_knees(20, {6: 2}), *_knees(30, {6: 1})])
    known = frame["kl_progression"].notna()
    assert (document["seen"], document["weighted"]) == (20, True)
    assert frame.loc[known, "kl_progression_weight"].eq(1).all()


def test_weights_find_the_risk_where_one_film_decides() -> None:
    rng = np.random.default_rng(2)
    age = rng.normal(62, 9, 6000)
    loses = rng.random(6000) < 1 / (1 + np.exp(-(age - 68) / 6))
    stays = rng.random(6000) < 1 / (1 + np.exp((age - 66) / 6))
    records = [
        jsl_48m(KneeHistory({0: 2}, {0: 4.0, **({48: 3.0 if lost else 4.0} if stayed else {})}))
        for lost, stayed in zip(loses, stays, strict=True)
    ]
    frame, _ = _weighed(records, age, Outcome.JSL_48M)
    complete_cases, mended = _risks(frame, Outcome.JSL_48M)
    assert abs(mended - loses.mean()) < 0.25 * abs(complete_cases - loses.mean())


def _knees(n: int, films: dict[int, int], **more: Any) -> list[OutcomeRecord]:
    knee = KneeHistory({0: 1, **films}, last_contact_months=float(max(films, default=0)), **more)
    return [kl_progression(knee)] * n


def test_without_factors_a_weight_is_the_inverse_of_the_share_that_stayed() -> None:
    """Of 8000 knees 2000 are lost at once; of 3000 left after the events and deaths of year 1, 600.

    Events weigh 1 / (6000 / 8000), the others 1 / (0.75 * 2400 / 3000), and the weighted risk is
    that of all whose value dropping out could hide.
    """
    dead = {"is_dead": True, "death_months": 20.0}
    records = [
        *_knees(2000, {}),
        *_knees(2000, {12: 2}),
        *_knees(1000, {12: 1}, **dead),
        *_knees(600, {12: 1}),
        *_knees(2400, {12: 1, 24: 1, 36: 1, 48: 1}),
    ]
    frame, document = _weighed(records)
    weights = frame["kl_progression_weight"]
    assert weights[2000:4000].to_numpy() == pytest.approx(8 / 6, rel=0.005)
    assert weights[5600:].to_numpy() == pytest.approx(8 / 6 * 3000 / 2400, rel=0.005)
    assert weights.notna().sum() == document["seen"] == 4400
    by_hand = (2000 * 8 / 6) / (2000 * 8 / 6 + 2400 * 5 / 3)
    assert _risks(frame)[1] == pytest.approx(by_hand, rel=0.005)


def test_when_a_knee_was_lost_means_nothing_where_one_film_decides() -> None:
    def records(last_film: int) -> list[OutcomeRecord]:
        seen = jsl_48m(KneeHistory({0: 2}, {0: 4.0, 24: 3.0, 48: 3.0}))
        lost = jsl_48m(KneeHistory({0: 2}, {0: 4.0, last_film: 4.0}))
        return [seen] * 60 + [lost] * 40

    early, late = (_weighed(records(m), outcome=Outcome.JSL_48M)[0] for m in (12, 36))
    pd.testing.assert_frame_equal(early, late)
    assert early["jsl_48m_weight"][:60].to_numpy() == pytest.approx(100 / 60, rel=0.01)


def test_knees_that_died_or_were_replaced_are_no_missing_data() -> None:
    records = [
        *_knees(100, {12: 1, 24: 1, 36: 1, 48: 1}),
        *_knees(100, {12: 1}, is_dead=True, death_months=20.0),
        *_knees(100, {12: 1}, is_replaced=True, replacement_months=20.0),
    ]
    frame, document = _weighed(records)
    assert not document["weighted"]
    assert (frame.loc[:99, "kl_progression_weight"] == 1).all()


_AT_30 = {"is_replaced": True, "replacement_months": 30.0}


@pytest.mark.parametrize(
    ("record", "months"),
    [
        # decided: by the event, or else by the horizon
        (kl_progression(KneeHistory({0: 1, 24: 2, 36: 2})), 24),
        (kl_progression(KneeHistory({0: 1, 24: 1, 48: 1, 72: 2})), 48),
        (kl_progression(KneeHistory({0: 1, 24: 1})), 24),
        # a film after the horizon decides nothing
        (kl_progression(KneeHistory({0: 1, 24: 1, 72: 2})), 24),
        (kl_progression(KneeHistory({0: 1, 24: 1, 72: 1})), 24),
        (jsl_48m(KneeHistory({0: 2}, {0: 4.0, 24: 3.0, 48: 3.0})), 48),
        (jsl_fnih(KneeHistory({0: 2}, {0: 4.0, 24: 3.0, 48: 4.0})), 24),
        (jsl_fnih(KneeHistory({0: 2}, {0: 4.0, 24: 4.0, 48: 4.0})), 48),
        # a loss still needs the film of 48 months, a replacement does not
        (jsl_or_kr_48m(KneeHistory({0: 2}, {0: 4.0, 24: 3.0, 48: 3.0})), 48),
        (jsl_or_kr_48m(KneeHistory({0: 2}, {0: 4.0, 24: 3.0}, **_AT_30)), 30),
        # it would have been known of until the last contact
        (jsl_or_kr_48m(KneeHistory({0: 2}, {0: 4.0, 12: 4.0}, last_contact_months=36.0)), 36),
        (jsl_or_kr_48m(KneeHistory({0: 2}, {0: 4.0, 12: 4.0}, last_contact_months=72.0)), 47),
        (tkr(KneeHistory(last_contact_months=72.0, **_AT_30), horizon_months=48), 30),
        (tkr(KneeHistory(last_contact_months=72.0), horizon_months=48), 48),
        (tkr(KneeHistory(last_contact_months=36.0), horizon_months=48), 36),
        # the second rise confirms the first; two visits without one rule it out
        (pain_progression(KneeHistory(womac_pain={0: 2, 24: 9, 36: 9})), 36),
        (pain_progression(KneeHistory(womac_pain={0: 2, 24: 2, 36: 2})), 36),
        (pain_progression(KneeHistory(womac_pain={0: 2, 24: 9, 36: 2})), 36),
        (pain_progression(KneeHistory(womac_pain={0: 2, 24: 9, 48: 2})), 24),
        (from_label(None, 1, 12.0, 36.0, horizon_months=48), 36),
        (from_label(None, 1, 12.0, 60.0, horizon_months=48), 12),
        (from_label(None, 0, 60.0, None, horizon_months=48), 48),
        (from_label(None, 0, 24.0, None, horizon_months=48), 24),
        (kl_progression(KneeHistory({0: 4})), None),
    ],
)
def test_a_knee_is_followed_until_its_value_is_decided_or_it_is_lost(
    record: OutcomeRecord, months: float | None
) -> None:
    assert record.followed_months == months


def _npmle_risk(table: pd.DataFrame, visits: tuple[int, ...]) -> float:
    """Risk by the last visit, from the self-consistent masses of the bins between visits."""
    ends = np.array([*visits, np.inf])
    starts = np.array([0, *visits])
    upper = table["upper_months"].fillna(np.inf).to_numpy()[:, None]
    may_lie = (starts >= table["lower_months"].to_numpy()[:, None]) & (ends <= upper)
    mass = np.full(len(ends), 1 / len(ends))
    for _ in range(1000):
        shares = may_lie * mass
        mass = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
    return float(mass[:-1].sum())


@pytest.mark.real_data
def test_the_weighted_risk_of_real_knees_is_that_of_their_intervals(real_data: Path) -> None:
    """Oracle: the nonparametric maximum likelihood of the intervals, by its own EM."""
    document = read_cohort_spec("mendeley").model_dump()
    document["tables"]["enrollees"]["columns"].pop("image_path")
    spec = CohortSpec.model_validate(document)
    made = assemble(real_data, spec, read_identifiers(KEEP))
    frame, _ = add_weights(made.cohort, made.followed_months)
    complete_cases, mended = _risks(frame)
    truth = _npmle_risk(pd.read_csv(real_data / "kl_time_to_progression.csv"), _VISITS)
    assert complete_cases > truth + 0.015
    assert mended == pytest.approx(truth, abs=0.003)
