"""How well risks foretell: Cox models by persons they never saw, and predictions beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.analysis.covariates import design
from kneeoa_mm.analysis.nonparametric import IncidenceCurve
from kneeoa_mm.analysis.regression import FIT_ERRORS, cox_risks
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
    """

    risks: pd.DataFrame
    fold: NDArray[np.int64] | None = None

    def of(self, knee_ids: pd.Series) -> Predicted:
        """The same for some knees, in their order."""
        place = pd.Series(np.arange(len(self.risks)), self.risks.index).reindex(knee_ids)
        rows = place.to_numpy(np.int64)
        return Predicted(self.risks.iloc[rows], None if self.fold is None else self.fold[rows])


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
    """Knees that every model foretells, horizons, the one of comparisons, and draws of persons."""

    data: TimeToEvent
    horizons: tuple[float, ...]
    main: float
    weights: NDArray[np.uint16]

    def judge(self, metric: Metric, risk: Floats) -> Resampled:
        return resample(metric, self.data.event, risk, self.weights)


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
    where each knee has one, or else of five. Predictions come from elsewhere and are judged on the
    same knees.

    Args:
        data: Knees with follow-up, from baseline on.
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
    left_out = {"no_prediction": int((~known).sum()), "no_covariate": 0}
    if not len(data.event):
        return _without("no knee with follow-up has a prediction", left_out)
    # levels without events stay: to leave knees out by what became of them would flatter or harm
    complete = design(data.rows, covariates, None, where=where).kept
    left_out["no_covariate"] = int((~complete).sum())
    data = data.subset(complete)
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
    judged = _Judged(data, horizons, main, weights)
    given = predictions and predictions.of(data.rows["knee_id"])
    fold = _folds(data, given, seed)
    foretold, reasons = _cross_fitted(judged, covariates, fold, where=where)
    shown = next((name for name in (BOTH, CLINICAL, KL) if name in foretold), None)
    if given is not None:
        by_horizon = {float(h): given.risks[h].to_numpy(np.float64) for h in given.risks}
        foretold[PREDICTIONS] = _Foretold(by_horizon[horizon_months], by_horizon, given.fold)
        shown = PREDICTIONS
    measured = {name: _measures(name, each, judged) for name, each in foretold.items()}
    thirds: Thirds = {}
    risk = None
    if shown is not None:
        thirds = thirds_of(foretold[shown].score, foretold[shown].fold)
        risk = foretold[shown].risks.get(main)
    curves, calibration = by_third(thirds, data, risk, main)
    models = {n: _model(n, each, measured[n], judged) for n, each in foretold.items()}
    return Prognosis(
        {
            "reason": None,
            "knees": len(data.event),
            "persons": n_persons,
            "events": int(data.event.sum()),
            "left_out": left_out,
            "folds": len(np.unique(fold)),
            "estimand": [_WITHIN, *([_POOLED] if given and given.fold is None else [])],
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


def _cross_fitted(
    judged: _Judged, covariates: Sequence[str], fold: NDArray[np.int64], *, where: object
) -> tuple[dict[str, _Foretold], dict[str, str]]:
    """What Cox models foretell of persons they never saw, and why some models cannot."""
    data, horizons = judged.data, judged.horizons
    found, reasons = {}, {}
    for name, chosen in _models_of(covariates).items():
        columns = design(data.rows, chosen, None, where=where).columns
        if chosen and not columns.shape[1]:
            reasons[name] = "no covariate is left"
            continue
        score, risk = np.empty(len(fold)), np.empty((len(fold), len(horizons)))
        try:
            for part in np.unique(fold):
                score[fold == part], risk[fold == part] = cox_risks(
                    columns, data, fold != part, horizons
                )
        except FIT_ERRORS as error:
            reasons[name] = f"a fold does not converge: {str(error).splitlines()[0]}"
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
    months, risks = judged.data.months, foretold.risks
    found = {}
    if name != NO_COVARIATES:
        last, fold = judged.horizons[-1], foretold.fold
        found["uno_c"] = judged.judge(uno_c(months, last, fold), foretold.score)
        found["auroc"] = judged.judge(auroc_at(months, judged.main, fold), foretold.score)
    if judged.main in risks:
        found["brier"] = judged.judge(brier_at(months, judged.main), risks[judged.main])
    if len(judged.horizons) > 1 and set(judged.horizons) <= set(risks):
        every = np.column_stack([risks[horizon] for horizon in judged.horizons])
        found["integrated_brier"] = judged.judge(integrated_brier(months, judged.horizons), every)
    return found


def _model(
    name: str, foretold: _Foretold, measured: Mapping[str, Resampled], judged: _Judged
) -> dict[str, Any]:
    data = judged.data
    document: dict[str, Any] = {
        "reason": None,
        "source": "given" if name == PREDICTIONS else "Cox model of other persons",
        **{metric: as_json(found.estimate()) for metric, found in measured.items()},
    }
    if name == NO_COVARIATES:
        return document
    aurocs = {
        horizon: judged.judge(auroc_at(data.months, horizon, foretold.fold), foretold.score)
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
    return {
        f"{name}-{reference}": {
            metric: as_json((found - measured[reference][metric]).estimate())
            for metric, found in metrics.items()
            if metric in measured[reference]
        }
        for name, metrics in measured.items()
        if name not in (reference, NO_COVARIATES)
    }
