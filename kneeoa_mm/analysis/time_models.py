"""What a regression of times to events found, or why it found nothing."""

from __future__ import annotations

from dataclasses import dataclass

from kneeoa_mm.analysis.covariates import Term
from kneeoa_mm.records import Estimate


@dataclass(frozen=True)
class CoxTerm:
    """One line of a Cox model.

    Attributes:
        term: What the hazard ratio belongs to.
        ratio: Hazard ratio with its person-clustered 95 % interval, or why there is none.
        p_value: Wald test, person-clustered.
        changes_with_time: P value of the test for a ratio that changes with time.
    """

    term: Term
    ratio: Estimate
    p_value: float | None = None
    changes_with_time: float | None = None


@dataclass(frozen=True)
class CoxModel:
    """A Cox model, or the reason why there is none.

    Attributes:
        terms: Its lines, also of terms that cannot be estimated.
        knees: Knees in the model.
        events: Their events.
        notes: What was left out, and what to be careful about.
        harrell_c: Concordance on the knees of the fit.
        reason: Why there is no model.
        changes_with_time: P value of the test for any ratio that changes with time.
    """

    terms: tuple[CoxTerm, ...]
    knees: int
    events: int
    notes: tuple[str, ...]
    harrell_c: Estimate | None = None
    reason: str | None = None
    changes_with_time: float | None = None


@dataclass(frozen=True)
class AftTerm:
    """One line of an accelerated-failure-time model.

    Attributes:
        term: What the time ratio belongs to.
        ratio: Factor on the time to the event with its person-clustered 95 % interval; below 1 the
            event comes earlier.
        p_value: Wald test, person-clustered.
    """

    term: Term
    ratio: Estimate
    p_value: float | None = None


@dataclass(frozen=True)
class AftModel:
    """A Weibull accelerated-failure-time model, or the reason why there is none.

    Attributes:
        terms: Its lines, also of terms that cannot be estimated.
        knees: Knees in the model.
        events: Their events.
        notes: What was left out, and what to be careful about.
        shape: Of the Weibull distribution; above 1 the hazard rises with time.
        reason: Why there is no model.
    """

    terms: tuple[AftTerm, ...]
    knees: int
    events: int
    notes: tuple[str, ...]
    shape: Estimate | None = None
    reason: str | None = None
