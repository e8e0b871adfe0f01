"""Intervals of a cohort become bins of time, and known hazards come back out of them."""

import numpy as np
import pandas as pd
import pytest
import torch

from kneeoa_mm.learning.event_times import observed_of
from kneeoa_mm.learning.hazards import Cause, hazard_loss, survival
from kneeoa_mm.learning.study import labels_of
from kneeoa_mm.learning.time_heads import HazardHead
from kneeoa_mm.records import Outcome
from kneeoa_mm.settings import TrainJSLConfig

VISITS = (12, 24, 36, 48)
OUTCOME = Outcome.KL_PROGRESSION


def one(outcome=OUTCOME, **cells):
    """What is seen of one knee, as (free until, event by, causes)."""
    observed = observed_of(pd.DataFrame([cells]), outcome, VISITS)
    return observed.free_until.item(), observed.event_by.item(), observed.causes[0].tolist()


def interval(lower, upper=None, outcome=OUTCOME, **more):
    return {
        f"{outcome}_event_observed": int(upper is not None),
        f"{outcome}_lower_months": lower,
        f"{outcome}_upper_months": upper,
        **more,
    }


PROGRESSION, REPLACEMENT, DEATH = ([float(k == cause) for k in Cause] for cause in Cause)
NOTHING = [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("cells", "seen"),
    [
        (interval(0.0, 12.0), (0, 1, PROGRESSION)),
        (interval(12.0, 48.0), (1, 4, PROGRESSION)),
        (interval(48.0), (4, 0, NOTHING)),
        (interval(30.0), (2, 0, NOTHING)),
        (interval(0.0), (0, 0, NOTHING)),
        (interval(None), (-1, 0, NOTHING)),
        # after the last visit
        (interval(48.0, 60.0), (4, 0, NOTHING)),
        (interval(24.0, 60.0), (2, 0, NOTHING)),
        # replacement and death right after the last film, and after a gap
        (interval(24.0, tkr_event_observed=1, tkr_upper_months=30.0), (2, 3, REPLACEMENT)),
        (interval(12.0, tkr_event_observed=1, tkr_upper_months=30.0), (1, 3, [1.0, 1.0, 0.0])),
        (interval(24.0, death_months=25.0), (2, 3, DEATH)),
        (interval(12.0, death_months=30.0), (1, 3, NOTHING)),
        # a day before the film that carries its visit's date
        (interval(24.0, death_months=23.5), (2, 3, DEATH)),
        (interval(48.0, death_months=47.5), (4, 0, NOTHING)),
    ],
)
def test_a_knee_is_put_into_the_bins_that_a_person_would_choose(cells, seen):
    assert one(**cells) == seen


def test_a_replacement_on_a_known_day_is_the_event_of_its_own_outcome():
    cells = interval(30.0, 30.0, Outcome.TKR, death_months=40.0)
    assert one(Outcome.TKR, **cells) == (2, 3, PROGRESSION)
    on_a_visit = interval(24.0, 24.0, Outcome.TKR)
    assert one(Outcome.TKR, **on_a_visit) == (1, 2, PROGRESSION)


def test_replacement_is_no_rival_of_an_outcome_that_counts_it():
    cells = {"tkr_event_observed": 1, "tkr_upper_months": 30.0}
    composite = Outcome.JSL_OR_KR_48M
    assert one(composite, **interval(24.0, outcome=composite), **cells) == (2, 0, NOTHING)


@pytest.mark.parametrize("outcome", sorted({*Outcome} - {Outcome.TKR, Outcome.JSL_OR_KR_48M}))
def test_replacement_is_a_rival_of_every_outcome_that_does_not_count_it(outcome):
    cells = {"tkr_event_observed": 1, "tkr_upper_months": 30.0}
    assert one(outcome, **interval(24.0, outcome=outcome), **cells) == (2, 3, REPLACEMENT)


@pytest.mark.parametrize(("choice", "causes"), [("censor", NOTHING), ("either", [1.0, 0.0, 1.0])])
def test_a_recipe_chooses_what_a_death_after_skipped_films_says(choice, causes):
    config = TrainJSLConfig(
        time_head="hazard", outcome=OUTCOME, visits_months=VISITS, death_after_gap=choice
    )
    knee = interval(12.0, death_months=30.0, kl_grade=2, **{str(OUTCOME): None})
    labels = labels_of(pd.DataFrame([knee]), config)
    assert labels["causes"][0].tolist() == causes


def life_courses(n, hazards, *, skipped, seed=0):
    """A cohort of n knees with known hazards (J, 3), films missed at random: its columns."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        films, row = [0.0], {"death_months": np.nan, "tkr_event_observed": 0}
        progressed = None
        for j, months in enumerate(VISITS):
            draw = rng.choice(4, p=[1 - hazards[j].sum(), *hazards[j]]) if progressed is None else 0
            day = months - 12 * rng.uniform(0, 0.99)
            if draw == 1 + Cause.REPLACEMENT:
                row |= {"tkr_event_observed": 1, "tkr_upper_months": day}
                break
            if draw == 1 + Cause.DEATH:
                row["death_months"] = day
                break
            if draw == 1 + Cause.PROGRESSION:
                progressed = months
            if rng.random() > skipped:
                films.append(float(months))
                if progressed is not None:
                    break
        upper = films.pop() if progressed is not None and films[-1] >= progressed else None
        rows.append(interval(films[-1], upper) | row)
    return pd.DataFrame(rows)


def test_known_hazards_are_recovered_through_the_columns_of_a_cohort():
    """With 30 % of the visits skipped, a likelihood of the last bin alone would be far off."""
    true = np.array(
        [[0.06, 0.01, 0.01], [0.12, 0.02, 0.01], [0.05, 0.02, 0.02], [0.10, 0.02, 0.02]]
    )
    cohort = life_courses(8_000, true, skipped=0.3)
    seen = observed_of(cohort, OUTCOME, VISITS)
    head = HazardHead(VISITS, 48)
    head.start(vars(seen))
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = hazard_loss(head(torch.zeros(len(cohort), 3)), seen)
        loss.backward()
        return loss

    optimiser.step(closure)
    logits = head(torch.zeros(1, 3)).detach()
    found = logits.softmax(dim=2)[0, :, 1:].numpy()
    np.testing.assert_allclose(found[:, Cause.PROGRESSION], true[:, Cause.PROGRESSION], atol=0.015)
    last_bin = cohort[f"{OUTCOME}_upper_months"].value_counts(normalize=False).sort_index()
    naive = last_bin.to_numpy() / len(cohort)
    assert np.abs(naive - true[:, Cause.PROGRESSION]).max() > 0.03, "the test would notice"


def test_incidences_at_the_visits_and_the_horizon_are_what_survival_leaves():
    head = HazardHead(VISITS, 24)
    torch.nn.init.normal_(head.intercepts, generator=torch.Generator().manual_seed(0))
    logits = head(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)))
    probabilities = head.probabilities(logits)
    assert head.columns("tkr") == (
        "tkr_cif_12",
        "tkr_cif_24",
        "tkr_cif_36",
        "tkr_cif_48",
        "tkr_prob",
    )
    torch.testing.assert_close(probabilities[:, 4], probabilities[:, 1])
    assert (probabilities[:, :4].diff(dim=1) >= 0).all()
    assert (probabilities[:, :4] <= 1 - survival(logits)).all()
    torch.testing.assert_close(head.risk_logit(logits).sigmoid(), probabilities[:, 4])


def test_the_head_starts_at_the_hazards_of_a_life_table():
    """Complete films: of 10 knees, 2 progress by 12 months and 4 of the other 8 by 24."""
    rows = [interval(0.0, 12.0)] * 2 + [interval(12.0, 24.0)] * 4 + [interval(48.0)] * 4
    head = HazardHead(VISITS, 48)
    head.start(vars(observed_of(pd.DataFrame(rows), OUTCOME, VISITS)))
    hazards = head(torch.zeros(1, 3)).softmax(dim=2)[0, :, 1 + Cause.PROGRESSION]
    np.testing.assert_allclose(hazards.detach()[:2], [0.2, 0.5], atol=1e-3)
    assert hazards[2:].max() < 1e-3


def test_the_head_starts_at_the_incidence_that_films_at_either_end_alone_tell():
    """A knee that will progress is at risk in all bins before, wherever among them it does."""
    rows = [interval(0.0, 48.0)] + [interval(48.0)] * 3
    head = HazardHead(VISITS, 48)
    head.start(vars(observed_of(pd.DataFrame(rows), OUTCOME, VISITS)))
    incidence = head.probabilities(head(torch.zeros(1, 3))).detach()[0]
    np.testing.assert_allclose(incidence[:4], [0.0625, 0.125, 0.1875, 0.25], atol=1e-3)
