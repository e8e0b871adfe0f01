"""The best AUROC that anybody can reach on the synthetic cohort, from its stated model.

Nobody can rank knees better than by their true probability of the outcome given what is known
(Neyman and Pearson 1933). From the film that is the probability given ``x_image``, from the tables
the probability given ``x_clinical``, each averaged over what is then unknown.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from kneeoa_mm import metrics
from kneeoa_mm.synthetic.population import Array, Population, draw
from kneeoa_mm.synthetic.progression import COEFFICIENTS, Coefficients, Scenario, simulate

PERSONS = 200_000
_SEED = 20_240_229
_QUANTILES = 200
_KNOTS = 400


def expected_auroc(score: Array, probability: Array) -> float:
    """AUROC of a score when each knee is an event with a known probability.

    Every knee counts as an event with weight p and as a non-event with weight 1 - p; this leaves
    out the chance of the draw and so needs fewer knees than counting simulated events.

    Args:
        score: What ranks the knees, (n,).
        probability: Their true probabilities, (n,).
    """
    values, group = np.unique(score, return_inverse=True)
    events = np.bincount(group, probability, minlength=len(values))
    others = np.bincount(group, 1 - probability, minlength=len(values))
    below = np.cumsum(others) - others
    return float((events * (below + others / 2)).sum() / (events.sum() * others.sum()))


class Oracle:
    """True probabilities given the film, the clinical factors, or both.

    Args:
        coefficients: The model.
        x_image: ``x_image`` of a large population at risk.
        x_clinical: Its ``x_clinical``; the model draws both independently.
    """

    def __init__(self, coefficients: Coefficients, x_image: Array, x_clinical: Array) -> None:
        share = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
        knots = np.linspace(-6.0, 6.0, _KNOTS)
        unknown_clinical = np.quantile(x_clinical, share)
        unknown_image = np.quantile(x_image, share)
        self._coefficients = coefficients
        self._knots = knots
        self._given_image = coefficients.probability(knots[:, None], unknown_clinical).mean(axis=1)
        self._given_clinical = coefficients.probability(unknown_image, knots[:, None]).mean(axis=1)

    def probabilities(self, x_image: Array, x_clinical: Array) -> dict[str, Array]:
        """Probability of ``jsl_48m`` by what is known, each (n,)."""
        return {
            "image": np.interp(x_image, self._knots, self._given_image),
            "clinical": np.interp(x_clinical, self._knots, self._given_clinical),
            "both": self._coefficients.probability(x_image, x_clinical),
        }


def best_possible(
    scenario: Scenario, cohort: Population, *, persons: int = PERSONS
) -> dict[str, Any]:
    """AUROC of the true probabilities: in a large population, and on this cohort's own labels.

    Args:
        scenario: The model that made the cohort.
        cohort: The cohort.
        persons: Size of the simulated population.

    Returns:
        ``jsl_48m`` (population at risk), ``jsl_48m_labelled_population`` (those of them whose
        outcome was measured) and ``jsl_48m_this_cohort``, each by what is known.
    """
    oracle, figures = _reference(scenario, persons)
    return {**figures, "jsl_48m_this_cohort": _empirical(oracle, cohort)}


@cache
def _reference(scenario: Scenario, persons: int) -> tuple[Oracle, dict[str, Any]]:
    population = simulate(draw(np.random.default_rng(_SEED), persons), scenario)
    at_risk = population.at_risk
    x_image, x_clinical = population.x_image[at_risk], population.x_clinical[at_risk]
    oracle = Oracle(COEFFICIENTS[scenario], x_image, x_clinical)
    known = oracle.probabilities(x_image, x_clinical)
    return oracle, {
        "jsl_48m": {name: round(expected_auroc(p, known["both"]), 4) for name, p in known.items()},
        "jsl_48m_labelled_population": _empirical(oracle, population),
        "prevalence_at_risk": round(float(known["both"].mean()), 4),
        "persons_simulated": persons,
    }


def _empirical(oracle: Oracle, population: Population) -> dict[str, float | int | None]:
    """AUROC of the true probabilities against the outcomes of the knees that have one."""
    chosen = population.labelled
    truth = population.loses_joint_space[chosen].astype(np.int64)
    known = oracle.probabilities(population.x_image[chosen], population.x_clinical[chosen])
    defined = len(np.unique(truth)) == 2
    return {
        **{
            name: round(metrics.auroc(truth, p), 4) if defined else None
            for name, p in known.items()
        },
        "knees": len(truth),
        "events": int(truth.sum()),
    }
