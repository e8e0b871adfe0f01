"""Regressions of times to events, the only module that knows lifelines.

lifelines finds coefficients; intervals and tests count persons (docs/decisions/0009).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter, WeibullAFTFitter
from lifelines.exceptions import ConvergenceError, ConvergenceWarning
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, ndtr

from kneeoa_mm.analysis.covariates import Design, Term, design
from kneeoa_mm.analysis.efron import (
    clustered_variance,
    efron_cumulative_hazard,
    efron_residuals,
    proportional_hazards_p_value,
    proportional_hazards_p_values,
)
from kneeoa_mm.analysis.nonparametric import harrell_c
from kneeoa_mm.analysis.separation import (
    separates_hazards,
    separates_times,
    separation_of,
)
from kneeoa_mm.analysis.time_models import AftModel, AftTerm, CoxModel, CoxTerm
from kneeoa_mm.analysis.time_to_event import TimeToEvent
from kneeoa_mm.analysis.weibull import weibull_scores
from kneeoa_mm.metrics import ONE_PERSON, Z_95
from kneeoa_mm.records import Estimate

_FEW_EVENTS_A_TERM = 10
_PRIOR_SD = 2.0
_ROUNDING = 1e-9
_RUNAWAY = 20.0
"""Log ratio over the range of a covariate that no study finds: the fit ran towards infinity."""
_SMALL_STEPS = {"step_size": 0.5, "max_steps": 500}
"""By lifelines' own steps, a fit whose likelihood is flat, such as where no knee of grade 0 has the
event, jumps past its maximum and gives up."""
_SHAPE_OF_AGE = 5.0
"""Weibull shape from which a fit on the scale of age sets out."""
_FAILED = "failed to converge"
FIT_ERRORS = (ConvergenceError, np.linalg.LinAlgError, ValueError)

Floats = NDArray[np.float64]


def fit_cox(data: TimeToEvent, covariates: Sequence[str], *, where: object = "") -> CoxModel:
    """Fit a Cox proportional-hazards model with person-clustered standard errors.

    lifelines maximises Efron's likelihood; ``efron`` has the sandwich variance and the test for
    proportional hazards. Late entry is honoured.

    Args:
        data: Knees with follow-up.
        covariates: Columns of ``data.rows``.
        where: Named in errors.

    Raises:
        InputError: A covariate is no column, or has too many levels.
    """
    matrix = design(data.rows, covariates, data.event, where=where)
    used = data.subset(matrix.kept)
    n, events = len(used.event), int(used.event.sum())

    def without(reason: str) -> CoxModel:
        terms = tuple(CoxTerm(*line) for line in _not_estimated(matrix, n, reason))
        return CoxModel(terms, n, events, matrix.notes, reason=reason)

    refused = _refusal(matrix, used) or separation_of(matrix, used, separates_hazards)
    if refused:
        return without(refused)
    try:
        coefficients, variance, warned = _fit_cox(matrix.columns, used)
        residuals = efron_residuals(
            matrix.columns, used.months, used.event, coefficients, entry_months=used.entry_months
        )
        errors = _clustered_errors(residuals.score, used.persons, variance)
    except FIT_ERRORS as error:
        return without(f"the fit does not converge: {told_by(error)}")
    event_months = used.months[used.event == 1]
    changes = proportional_hazards_p_values(residuals.schoenfeld, event_months, variance)
    lines = [
        CoxTerm(term, *_ratio(coefficient, error, n), float(change) if change >= 0 else None)
        for term, coefficient, error, change in zip(
            matrix.terms, coefficients, errors, changes, strict=True
        )
    ]
    lines += [CoxTerm(*line) for line in _dropped(matrix, n)]
    concordance = harrell_c(
        used.months,
        used.event,
        matrix.columns @ coefficients,
        used.persons,
        entry_months=used.entry_months,
    )
    return CoxModel(
        tuple(lines),
        n,
        events,
        (*matrix.notes, *warned, *_few_events(matrix, events)),
        concordance,
        changes_with_time=proportional_hazards_p_value(
            residuals.schoenfeld, event_months, variance
        ),
    )


def fit_weibull(data: TimeToEvent, covariates: Sequence[str], *, where: object = "") -> AftModel:
    """Fit a Weibull accelerated-failure-time model to intervals, with person-clustered errors.

    Args:
        data: Knees with follow-up, whose rows hold the interval of the event.
        covariates: Columns of ``data.rows``.
        where: Named in errors.

    Raises:
        InputError: A covariate is no column, or has too many levels.
    """
    matrix = design(data.rows, covariates, data.event, where=where)
    used = data.subset(matrix.kept)
    n, events = len(used.event), int(used.event.sum())

    def without(reason: str) -> AftModel:
        terms = tuple(AftTerm(*line) for line in _not_estimated(matrix, n, reason))
        return AftModel(terms, n, events, matrix.notes, reason=reason)

    refused = _refusal(matrix, used) or separation_of(matrix, used, separates_times)
    if refused:
        return without(refused)
    spread, centre = matrix.columns.std(axis=0), matrix.columns.mean(axis=0)
    columns = (matrix.columns - centre) / spread
    lower, upper = used.bounds()
    with_ones = np.column_stack([columns, np.ones(n)])
    try:
        coefficients, log_shape, variance, warned = _fit_weibull(columns, used)
        scores = weibull_scores(
            with_ones, lower, upper, coefficients, log_shape, entry_months=used.entry_months
        )
        errors = _clustered_errors(scores, used.persons, variance)
    except FIT_ERRORS as error:
        return without(f"the fit does not converge: {told_by(error)}")
    lines = [
        AftTerm(term, *_ratio(coefficient / scale, error / scale, n))
        for term, coefficient, error, scale in zip(
            matrix.terms, coefficients[:-1], errors[:-2], spread, strict=True
        )
    ]
    lines += [AftTerm(*line) for line in _dropped(matrix, n)]
    return AftModel(
        tuple(lines),
        n,
        events,
        (*matrix.notes, *warned, *_few_events(matrix, events)),
        _ratio(log_shape, errors[-1], n)[0],
    )


def conditional_odds_ratios(
    columns: Floats,
    case: NDArray[np.int64],
    pairs: NDArray[np.int64],
    persons: NDArray[np.str_],
) -> list[Estimate]:
    """Conditional logistic regression of matched pairs, with person-clustered intervals.

    Its likelihood is that of a Cox model of one event in each stratum, the pair. A score that pairs
    were matched on is the same within each: it says nothing, and takes nothing from the others.

    Args:
        columns: Scores, shape (n, p).
        case: 1 for the case and 0 for the control of each pair, shape (n,).
        pairs: Pair of each knee, two knees each, shape (n,).
        persons: Person of each knee, shape (n,); pairs that share a person count as one.

    Returns:
        Odds ratio of one unit of each score, or why there is none.

    Source:
        Breslow and Day 1980, Statistical Methods in Cancer Research 1, chapter 7.
    """
    order = np.lexsort([-case, pairs])
    # models round: equal inputs need not give scores that are equal to the last digit
    apart = np.abs(columns[order[::2]] - columns[order[1::2]]).max(axis=0, initial=0) > _ROUNDING
    same = Estimate(None, n=len(order) // 2, reason="does not differ within any pair")
    found = iter(_odds_ratios(columns[:, apart], case, pairs, persons, order) if any(apart) else ())
    return [next(found) if differs else same for differs in apart]


def _odds_ratios(
    columns: Floats,
    case: NDArray[np.int64],
    pairs: NDArray[np.int64],
    persons: NDArray[np.str_],
    order: NDArray[np.int64],
) -> list[Estimate]:
    """The same of scores that differ; ``order`` takes rows pair by pair, the case first."""
    differences = columns[order[::2]] - columns[order[1::2]]
    n_pairs = len(differences)
    frame = pd.DataFrame(columns).add_prefix("x").assign(months=1.0, event=case, pair=pairs)
    try:
        if np.any(np.all(differences >= 0, axis=0) | np.all(differences <= 0, axis=0)):
            raise ConvergenceError("a score tells the case of every pair, or of none")
        model, _ = _recorded(lambda: CoxPHFitter().fit(frame, "months", "event", strata=["pair"]))
        variance = model.variance_matrix_.to_numpy()
        coefficients = _sound(model.params_.to_numpy(), variance, columns)
    except FIT_ERRORS as error:
        reason = f"the fit does not converge: {told_by(error)}"
        return [Estimate(None, n=n_pairs, reason=reason) for _ in range(columns.shape[1])]
    score = expit(-differences @ coefficients)[:, None] * differences
    errors = np.sqrt(np.diag(clustered_variance(score, _linked(persons[order]), variance)))
    return [
        _ratio(coefficient, error, n_pairs)[0]
        for coefficient, error in zip(coefficients, errors, strict=True)
    ]


def _linked(persons: NDArray[np.str_]) -> NDArray[np.str_]:
    """Cluster of each pair; persons stand by two, and pairs with a person in common are one."""
    names, codes = np.unique(persons, return_inverse=True)
    links = coo_array(
        (np.ones(len(codes) // 2), (codes[::2], codes[1::2])), shape=(len(names), len(names))
    )
    component = connected_components(links, directed=False)[1]
    return np.asarray(component[codes[::2]].astype(str))


def cox_risks(
    columns: Floats, data: TimeToEvent, learns: NDArray[np.bool_], horizons: Sequence[float]
) -> tuple[Floats, Floats]:
    """What a Cox model foretells of the knees that it did not learn from.

    A weak ridge, as if each standardised covariate had a coefficient of mean 0 and standard
    deviation 2, keeps finite what few events leave open.

    Args:
        columns: Covariates, shape (n, p); with no column the risk is that of all who learn.
        data: The same n knees.
        learns: Which of them the model learns from, shape (n,).
        horizons: Months.

    Returns:
        Log hazard on a scale that models of other parts share, (knees that do not learn,), and
        risk by each horizon, (knees that do not learn, horizons).

    Raises:
        ConvergenceError: The fit does not converge.
    """
    taught, at = data.subset(learns), np.asarray(horizons, dtype=float)
    coefficients = np.zeros(columns.shape[1])
    varies = columns[learns].std(axis=0) > 0
    if varies.any():
        penalizer = 1 / (len(taught.event) * _PRIOR_SD**2)
        coefficients[varies] = _fit_cox(columns[learns][:, varies], taught, penalizer)[0]
    score = (columns - columns.mean(axis=0)) @ coefficients
    hazard = np.exp(score)
    baseline = efron_cumulative_hazard(hazard[learns], taught.months, taught.event, at)
    return score[~learns], 1 - np.exp(-hazard[~learns, None] * baseline)


def _refusal(matrix: Design, used: TimeToEvent) -> str | None:
    """Why no regression is tried."""
    events, terms = int(used.event.sum()), len(matrix.terms)
    if not events:
        return "no knee with all covariates has the event"
    if not terms:
        return "no covariate is left"
    if len(np.unique(used.persons)) < 2:
        return ONE_PERSON.replace("interval", "model")
    if events <= terms:
        return f"{events} events are too few for {terms} terms"
    return None


def _not_estimated(matrix: Design, n: int, reason: str) -> list[tuple[Term, Estimate]]:
    none = [(term, Estimate(None, n=n, reason=reason)) for term in matrix.terms]
    return none + _dropped(matrix, n)


def _dropped(matrix: Design, n: int) -> list[tuple[Term, Estimate]]:
    return [(term, Estimate(None, n=n, reason=why)) for term, why in matrix.not_estimable.items()]


def _few_events(matrix: Design, events: int) -> list[str]:
    terms = len(matrix.terms)
    few = events < _FEW_EVENTS_A_TERM * terms
    return [f"{events} events for {terms} terms: ratios are unstable."] if few else []


def _ratio(coefficient: float, standard_error: float, n: int) -> tuple[Estimate, float]:
    """The exponential of a coefficient with its 95 % interval, and the P value of 1."""
    limits = coefficient + Z_95 * standard_error * np.array([-1, 1])
    ratio, low, high = (float(each) for each in np.exp([coefficient, *limits]))
    return Estimate(ratio, low, high, n), float(2 * ndtr(-abs(coefficient) / standard_error))


def _fit_cox(
    columns: Floats, data: TimeToEvent, penalizer: float = 0.0
) -> tuple[Floats, Floats, list[str]]:
    """Log hazard ratios (p,), their inverse information (p, p), and what lifelines warns of."""
    frame = pd.DataFrame(columns).add_prefix("x").assign(months=data.months, event=data.event)
    columns_of = {"duration_col": "months", "event_col": "event"}
    if data.entry_months is not None:
        frame["entry"] = data.entry_months
        columns_of["entry_col"] = "entry"
    fitter = CoxPHFitter(penalizer=penalizer)
    model, warned = _recorded(lambda: fitter.fit(frame, **columns_of, fit_options=_SMALL_STEPS))
    coefficients, variance = model.params_.to_numpy(), model.variance_matrix_.to_numpy()
    return _sound(coefficients, variance, columns), variance, warned


def _fit_weibull(columns: Floats, data: TimeToEvent) -> tuple[Floats, float, Floats, list[str]]:
    """Log time ratios and log scale (p + 1,), log shape, inverse information, and warnings."""
    lower, upper = data.bounds()
    frame = pd.DataFrame(columns).add_prefix("x").assign(lower=lower, upper=upper)
    columns_of = {"lower_bound_col": "lower", "upper_bound_col": "upper"}
    start = None
    if data.entry_months is not None:
        frame["entry"] = data.entry_months
        columns_of["entry_col"] = "entry"
        # lifelines' own start, an even hazard since birth, is too far off to be left
        level = np.log([np.median(lower), _SHAPE_OF_AGE])
        start = np.concatenate([np.zeros(columns.shape[1]), level])
    model, warned = _recorded(
        lambda: WeibullAFTFitter().fit_interval_censoring(frame, **columns_of, initial_point=start)
    )
    names = [("lambda_", f"x{k}") for k in range(columns.shape[1])]
    names += [("lambda_", "Intercept"), ("rho_", "Intercept")]
    variance = model.variance_matrix_.loc[names, names].to_numpy()
    parameters = _sound(model.params_.loc[names].to_numpy(), variance, columns)
    return parameters[:-1], float(parameters[-1]), variance, warned


def _recorded(fit: Any) -> tuple[Any, list[str]]:
    """A fit, and what lifelines warns of; raises where it warns that it found no maximum."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fit()
    told = sorted({str(w.message).strip().splitlines()[0] for w in caught})
    gave_up = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    if any(_FAILED in str(w.message) for w in gave_up):
        raise ConvergenceError("lifelines " + _FAILED)
    return model, [f"lifelines warns: {text}" for text in told]


def _sound(coefficients: Floats, variance: Floats, columns: Floats) -> Floats:
    """The coefficients, those of the columns first; raises where one ran away."""
    if not (np.isfinite(coefficients).all() and (np.diag(variance) > 0).all()):
        raise ConvergenceError("a coefficient is not finite")
    over_range = np.abs(coefficients[: columns.shape[1]]) * np.ptp(columns, axis=0)
    if over_range.max(initial=0) > _RUNAWAY:
        raise ConvergenceError("a coefficient runs towards infinity")
    return coefficients


def told_by(error: Exception) -> str:
    """What one of ``FIT_ERRORS`` says first; lifelines begins with an empty line."""
    return str(error).strip().partition("\n")[0].removesuffix(" Try the following:")


def _clustered_errors(scores: Floats, persons: NDArray[np.str_], variance: Floats) -> Floats:
    """Standard errors that count persons; raises where one is not a number above 0."""
    with np.errstate(invalid="ignore"):
        errors = np.sqrt(np.diag(clustered_variance(scores, persons, variance)))
    if not (np.isfinite(errors) & (errors > 0)).all():
        raise ConvergenceError("a standard error is not finite")
    return np.asarray(errors)
