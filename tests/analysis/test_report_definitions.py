"""An outcome is told as its cohort defined it, whatever the defaults are."""

from __future__ import annotations

import pytest

from kneeoa_mm.analysis.report.words import definition_of
from kneeoa_mm.cohort_spec import CohortSpec, OutcomesSpec, read_cohort_spec
from kneeoa_mm.records import Outcome


def _cohort(**outcomes) -> dict:
    """Settings as a run of ``cohort`` writes them."""
    spec = CohortSpec(name="made-up", visits={"V00": 0}, outcomes=OutcomesSpec(**outcomes))
    return spec.model_dump(mode="json")


@pytest.mark.parametrize(
    ("outcome", "settings", "told"),
    [
        (Outcome.JSL_48M, {}, "0.7 mm of minimum medial joint-space width from baseline to 48"),
        (Outcome.JSL_48M, {"jsl_horizon_months": 60}, "to 60 months"),
        (Outcome.JSL_48M, {"jsl_threshold_mm": 0.5}, "at least 0.5 mm"),
        (Outcome.JSL_48M, {"width": "jsw_fixed_mm"}, "mm of joint-space width at a fixed location"),
        (Outcome.JSL_OR_KR_48M, {"jsl_horizon_months": 60}, "of the knee, by 60 months"),
        (Outcome.JSL_OR_KR_48M, {"width": "jsw_fixed_mm"}, "at a fixed location"),
        (Outcome.JSL_FNIH, {"fnih_months": (12, 24)}, "any film at 12 and 24 months"),
        (Outcome.JSL_FNIH, {"fnih_kl_grades": (2, 3)}, "of KL grade 2 and 3"),
        (Outcome.KL_PROGRESSION, {}, "a rise of the KL grade to 2 or more within"),
        (Outcome.KL_PROGRESSION, {"kl_step_to_doubtful_counts": True}, "the KL grade within"),
        (Outcome.KL_PROGRESSION, {"kl_horizon_months": 60}, "to 60 months"),
        (Outcome.TKR, {"tkr_horizon_months": 96}, "replacement of the knee by 96 months"),
        (Outcome.PAIN_PROGRESSION, {"pain_threshold": 3}, "at least 3 of 20 points"),
        (Outcome.PAIN_PROGRESSION, {"pain_months": (12, 24)}, "visits at 12 and 24 months"),
    ],
)
def test_a_definition_follows_the_settings_of_its_cohort(outcome, settings, told):
    assert told in definition_of(outcome, _cohort(**settings))


@pytest.mark.parametrize(
    ("cohort", "outcome", "told"),
    [
        ("mendeley/tiulpin", Outcome.KL_PROGRESSION, "its source defines it (progressor)"),
        ("mendeley/tkr", Outcome.TKR, "its source defines it (tkr_within_9_years)"),
        (
            "mendeley",
            Outcome.KL_PROGRESSION,
            "its source defines it (event_observed, lower_months, upper_months), judged at 48 "
            "months",
        ),
    ],
)
def test_a_label_that_the_source_made_is_not_told_as_ours(cohort, outcome, told):
    settings = read_cohort_spec(cohort).model_dump(mode="json")
    assert definition_of(outcome, settings) == told
    assert "rise of WOMAC" in definition_of(Outcome.PAIN_PROGRESSION, settings)


def test_without_settings_nothing_is_made_up():
    assert "48" not in definition_of(Outcome.JSL_48M, {})
    assert "lacks" in definition_of(Outcome.JSL_48M, {})
