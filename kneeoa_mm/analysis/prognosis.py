"""How well risks foretell: Cox models by persons they never saw, and predictions beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.analysis.competing import Flags, cox_incidences, with_rivals
from kneeoa_mm.analysis.covariates import design
from kneeoa_mm.analysis.nonparametric import IncidenceCurve
from kneeoa_mm.analysis.regression import FIT_ERRORS, cox_risks, told_by
from kneeoa_mm.analysis.results import as_json
from kneeoa_mm.analysis.risk_over_time import auroc_at, brier_at, integrated_brier, uno_c
from kneeoa_mm.analysis.risk_thirds import Thirds, by_third, intervals_by_third, thirds_of
from kneeoa_mm.analysis.time_to_event import TimeToEvent, horizons_to
from kneeoa_mm.analysis.turnbull import IntervalCurve
from kneeoa_mm.folds import folds_of, make_folds
from kneeoa_mm.metrics import Metric, Resampled, bootstrap_weights, resample

PREDICTIONS, NO_COVARIATES = "predictions", "no_covariates"
KL, CLINICAL, BOTH = "kl_grade", "clinical", "clinical_and_kl_grade"
_N_FOLDS = 5
_MIN_AT_RISK = 20
_WITHIN = (
    "Uno's C and AUROC count pairs of knees of one fold, since each fold has a model of its own; "
    "thirds of the risk are those of a fold."
)
_POOLED = "Predictions that name no fold are of one model: their pairs are of all knees."
_INCIDENCE = (
    "Risks are cumulative incidences, with death, and replacement where the outcome does not count "
    "it, as competing events: what was observed is Aalen-Johansen's estimate, whom another event "
    "ended never has this one in AUROC and Brier score, and risks of Cox models are turned into "
    "incidences. Uno's C alone takes competing events for censoring."
)
_UNTOLD = (
    "The predicted risks are cumulative incidences with competing events, and of no knee does the "
    "table tell that one came first: what was observed takes them for censoring, and lies too high "
    "where there were any."
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prognosis:
    """What the models are worth, or why that is not known.

    Attributes:
        document: For ``survival.json``.
        curves: Incidence in each third of the risk, with death as a competing event where deaths
            are known.
        interval_curves: Turnbull's estimate in each third; empty where times are exact.
    """

    document: dict[str, Any]
    curves: Mapping[str, IncidenceCurve] = field(default_factory=dict)
    interval_curves: Mapping[str, IntervalCurve] = field(default_factory=dict)


@dataclass(frozen=True)
class Predicted:
    """Risks that come from elsewhere.

    Attributes:
        risks: By ``knee_id``, one column a horizon, in months; that of comparisons is among them.
        fold: Fold of each of these knees, whose model made the risk; -1 for that of several folds.
            None where no knee has one.
        is_incidence: The risks are cumulative incidences, with competing events.
    """

    risks: pd.DataFrame
    fold: NDArray[np.int64] | None = None
    is_incidence: bool = False

    def of(self, knee_ids: pd.Series) -> Predicted:
        """The same for some knees, in their order."""
        place = pd.Series(np.arange(len(self.risks)), self.risks.index).reindex(knee_ids)
        rows = place.to_numpy(np.int64)
        fold = None if self.fold is None else self.fold[rows]
        return replace(self, risks=self.risks.iloc[rows], fold=fold)


class _Foretold(NamedTuple):
    """What one model foretells.

    Attributes:
        score: To rank knees by, (n,).
        risks: By horizons, each (n,).
        fold: Of the model that each knee is told by, (n,); None for one model of all.
    """

    score: Floats
    risks: Mapping[float, Floats]
    fold: NDArray[np.int64] | None


@dataclass(frozen=True)
class _Judged:
    """Knees that a model foretells, and how it is judged on them.

    Attributes:
        data: The knees.
        horizons: Months.
        main: That of comparisons.
        ended: Knees that a rival ended, (n,), where risks are cumulative incidences; else None.
        weights: Draws of persons, (n, draws).
    """

    data: TimeToEvent
    horizons: tuple[float, ...]
    main: float
    ended: Flags | None
    weights: NDArray[np.uint16]

    def judge(self, metric: Metric, risk: Floats) -> Resampled:
        return resample(metric, self.data.event, risk, self.weights)

    def subset(self, kept: NDArray[np.bool_]) -> _Judged:
        """Some of the knees, (n,)."""
        ended = None if self.ended is None else self.ended[kept]
        return replace(self, data=self.data.subset(kept), ended=ended, weights=self.weights[kept])


def judge_models(
    data: TimeToEvent,
    covariates: Sequence[str],
    predictions: Predicted | None,
    *,
    horizon_months: float,
    n_boot: int,
    seed: int,
    where: object = "",
) -> Prognosis:
    """Judge Cox models of the KL grade, of the other covariates, and of all of them.

    Each knee's risk is from a model of the other folds' persons: of the predictions' own folds,
    where each knee has one, or else of five. Predictions come from elsewhere and are judged on all
    knees that have one; Cox models, and differences from them, on those of these knees that have
    all covariates.

    Args:
        data: Knees with follow-up, from baseline on; for cumulative incidences of a cohort
            ``until_rivals``.
        covariates: Columns of the full model.
        predictions: Risks of some of the knees, by ``horizon_months`` at least; or None.
        horizon_months: The horizon at which models are compared.
        n_boot: Draws of persons.
        seed: Of folds and draws.
        where: Named in errors.

    Raises:
        InputError: A covariate is no column, or has too many levels.
    """
    known = np.ones(len(data.event), bool)
    if predictions is not None:
        known = data.rows["knee_id"].isin(predictions.risks.index).to_numpy(bool)
    data = data.subset(known)
    ended = None
    if predictions and predictions.is_incidence and (rivalled := with_rivals(data)):
        data, ended = rivalled
    left_out = {"no_prediction": int((~known).sum()), "no_covariate": 0}
    if not len(data.event):
        why = "no knee with follow-up has a prediction by a model that never saw its person"
        return _without(why, left_out)
    # levels without events stay: to leave knees out by what became of them would flatter or harm
    complete = design(data.rows, covariates, None, where=where).kept
    left_out["no_covariate"] = int((~complete).sum())
    if predictions is None:
        data, complete = data.subset(complete), complete[complete]
        if not len(data.event):
            return _without("no knee has all covariates", left_out)
    horizons = _horizons(data, horizon_months)
    n_persons = len(np.unique(data.persons))
    if not horizons:
        why = f"no year with an event and {_MIN_AT_RISK} knees still followed"
        return _without(why, left_out)
    if n_persons < 2 * _N_FOLDS:
        why = f"{n_persons} persons are too few to judge by those a model never saw"
        return _without(why, left_out)
    main = max((h for h in horizons if h <= horizon_months), default=horizons[0])
    weights = bootstrap_weights(data.persons, n_boot=n_boot, seed=seed)
    given = predictions and predictions.of(data.rows["knee_id"])
    judged = _Judged(data, horizons, main, ended, weights)
    with_covariates = judged.subset(complete)
    own = given and given.of(with_covariates.data.rows["knee_id"])
    foretold, reasons, n_folds = _by_cox(with_covariates, covariates, own, seed, where=where)
    measured = {name: _measures(name, each, with_covariates) for name, each in foretold.items()}
    models = {
        name: _model(name, each, measured[name], with_covariates) for name, each in foretold.items()
    }
    shown = next((name for name in (BOTH, CLINICAL, KL) if name in foretold), None)
    told = None if shown is None else foretold[shown]
    if given is not None:
        shown, told = PREDICTIONS, _foretold_by(given, horizon_months)
        models[shown] = _model(shown, told, _measures(shown, told, judged), judged)
        same = told if own is None else _foretold_by(own, horizon_months)
        measured[shown] = _measures(shown, same, with_covariates)
    thirds: Thirds = {} if told is None else thirds_of(told.score, told.fold)
    risk = None if told is None else told.risks.get(main)
    curves, calibration = by_third(thirds, data, risk, main, ended)
    return Prognosis(
        {
            "reason": None,
            "knees": len(data.event),
            "persons": n_persons,
            "events": int(data.event.sum()),
            "left_out": left_out,
            "folds": n_folds,
            "estimand": _estimand(given, ended),
            "shown": shown,
            "n_boot": n_boot,
            "horizon_months": main,
            "horizons": list(horizons),
            "models": models | {name: {"reason": why} for name, why in reasons.items()},
            "differences": _differences(measured),
            "calibration": calibration,
        },
        curves,
        intervals_by_third(thirds, data, n_boot=n_boot, seed=seed) if data.has_intervals() else {},
    )


def _foretold_by(given: Predicted, horizon_months: float) -> _Foretold:
    by_horizon = {float(h): given.risks[h].to_numpy(np.float64) for h in given.risks}
    return _Foretold(by_horizon[horizon_months], by_horizon, given.fold)


def _estimand(given: Predicted | None, ended: Flags | None) -> list[str]:
    """Which pairs are ranked, and what risks are held against."""
    pairs = [_WITHIN, *([_POOLED] if given and given.fold is None else [])]
    if given is None or not given.is_incidence:
        return pairs
    return [*pairs, _UNTOLD if ended is None else _INCIDENCE]


def _without(reason: str, left_out: Mapping[str, int]) -> Prognosis:
    nothing: dict[str, Any] = {"models": {}, "differences": {}, "calibration": []}
    return Prognosis({"reason": reason, "left_out": dict(left_out), **nothing})


def _horizons(data: TimeToEvent, horizon_months: float) -> tuple[float, ...]:
    """Years, and the horizon, with events by then and enough knees still followed."""
    every = horizons_to(data.months.max(initial=0), horizon_months)
    first_event = data.months[data.event == 1].min(initial=np.inf)
    at_risk = np.array([np.sum(data.months >= months) for months in every])
    usable = every[(at_risk >= _MIN_AT_RISK) & (every >= first_event)]
    return tuple(float(months) for months in usable)


def _folds(data: TimeToEvent, given: Predicted | None, seed: int) -> NDArray[np.int64]:
    """Those of the predictions, so that all models are judged on the same pairs; else five."""
    own = None if given is None else given.fold
    if own is not None and own.min() >= 0 and len(np.unique(own)) > 1:
        return own
    return folds_of(data.persons, make_folds(data.persons, data.event, n_folds=_N_FOLDS, seed=seed))


def _by_cox(
    judged: _Judged, covariates: Sequence[str], given: Predicted | None, seed: int, *, where: object
) -> tuple[dict[str, _Foretold], dict[str, str], int]:
    """What Cox models foretell of persons they never saw, why some cannot, and the folds."""
    n_persons = len(np.unique(judged.data.persons))
    if n_persons < 2 * _N_FOLDS or not judged.data.event.any():
        why = f"{n_persons} persons with all covariates are too few, or none has the event"
        return {}, dict.fromkeys(_models_of(covariates), why), 0
    fold = _folds(judged.data, given, seed)
    return (*_cross_fitted(judged, covariates, fold, where=where), len(np.unique(fold)))


def _cross_fitted(
    judged: _Judged, covariates: Sequence[str], fold: NDArray[np.int64], *, where: object
) -> tuple[dict[str, _Foretold], dict[str, str]]:
    """What Cox models foretell of persons they never saw, and why some models cannot."""
    data, horizons, ended = judged.data, judged.horizons, judged.ended
    found, reasons = {}, {}
    for name, chosen in _models_of(covariates).items():
        columns = design(data.rows, chosen, None, where=where).columns
        if chosen and not columns.shape[1]:
            reasons[name] = "no covariate is left"
            continue
        score, risk = np.empty(len(fold)), np.empty((len(fold), len(horizons)))
        try:
            for part in np.unique(fold):
                learns = fold != part
                score[~learns], risk[~learns] = (
                    cox_risks(columns, data, learns, horizons)
                    if ended is None
                    else cox_incidences(columns, data, ended, learns, horizons)
                )
        except FIT_ERRORS as error:
            reasons[name] = f"a fold does not converge: {told_by(error)}"
        else:
            found[name] = _Foretold(score, dict(zip(horizons, risk.T, strict=True)), fold)
    if CLINICAL in reasons:
        # it would be the model of the grade once more
        found.pop(BOTH, None)
    return found, reasons


def _models_of(covariates: Sequence[str]) -> dict[str, list[str]]:
    clinical = [name for name in covariates if name != KL]
    models: dict[str, list[str]] = {NO_COVARIATES: []}
    if KL in covariates:
        models[KL] = [KL]
    if clinical:
        models[CLINICAL] = clinical
    return models | ({BOTH: [*clinical, KL]} if clinical and KL in covariates else {})


def _measures(name: str, foretold: _Foretold, judged: _Judged) -> dict[str, Resampled]:
    """Metrics that models are compared by; a model without covariates has nothing to rank by."""
    months, ended, risks = judged.data.months, judged.ended, foretold.risks
    found = {}
    if name != NO_COVARIATES:
        last, fold = judged.horizons[-1], foretold.fold
        found["uno_c"] = judged.judge(uno_c(months, last, fold), foretold.score)
        auroc = auroc_at(months, judged.main, fold, ended)
        found["auroc"] = judged.judge(auroc, foretold.score)
    if judged.main in risks:
        brier = brier_at(months, judged.main, ended)
        found["brier"] = judged.judge(brier, risks[judged.main])
    if len(judged.horizons) > 1 and set(judged.horizons) <= set(risks):
        every = np.column_stack([risks[horizon] for horizon in judged.horizons])
        found["integrated_brier"] = judged.judge(
            integrated_brier(months, judged.horizons, ended), every
        )
    return found


def _model(
    name: str, foretold: _Foretold, measured: Mapping[str, Resampled], judged: _Judged
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "reason": None,
        "knees": len(judged.data.event),
        "source": "given" if name == PREDICTIONS else "Cox model of other persons",
        **{metric: as_json(found.estimate()) for metric, found in measured.items()},
    }
    if name == NO_COVARIATES:
        return document
    aurocs = {
        horizon: judged.judge(
            auroc_at(judged.data.months, horizon, foretold.fold, judged.ended), foretold.score
        )
        for horizon in judged.horizons
    }
    return document | {
        "auroc_by_months": [
            {"months": horizon, **as_json(found.estimate())} for horizon, found in aurocs.items()
        ],
    }


def _differences(measured: Mapping[str, Mapping[str, Resampled]]) -> dict[str, Any]:
    """Each model minus that of the KL grade (or that without covariates), draw by draw."""
    reference = KL if KL in measured else NO_COVARIATES
    if reference not in measured:
        return {}
    return {
        f"{name}-{reference}": {
            metric: as_json((found - measured[reference][metric]).estimate())
            for metric, found in metrics.items()
            if metric in measured[reference]
        }
        for name, metrics in measured.items()
        if name not in (reference, NO_COVARIATES)
    }
