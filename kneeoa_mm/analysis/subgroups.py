"""The same figures in subgroups of knees, and whether they differ between them.

Bands are fixed before anybody looks, and a knee whose factor is not known is in a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Number
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from scipy.special import logit

from kneeoa_mm.analysis.covariates import label_of
from kneeoa_mm.analysis.results import as_json
from kneeoa_mm.analysis.targets import KL, Target
from kneeoa_mm.metrics import (
    FEW_PERSONS,
    GRADE_METRICS,
    MIN_DEFINED,
    Metric,
    Resampled,
    UndefinedMetricError,
    auroc,
    auroc_within,
    brier,
    calibration_in_the_large,
    grade_ranking,
    heterogeneity,
    holm,
    resample,
)
from kneeoa_mm.records import OSTEOARTHRITIS

FACTORS = (
    "sex",
    "age_years",
    "bmi_kg_m2",
    "race",
    "kl_grade",
    "site",
    "sub_cohort",
    "knee_injury",
)
"""Columns that make subgroups unless others are named; ``knee_injury`` is the exposure that every
cohort records."""


def _ascending(bounds: tuple[float, ...]) -> tuple[float, ...]:
    if any(low >= high for low, high in pairwise(bounds)):
        raise ValueError("bounds of bands must rise")
    return bounds


Bands = Mapping[str, Annotated[tuple[float, ...], Field(min_length=1), AfterValidator(_ascending)]]
"""Factor to the lower bounds of all its bands but the first."""
BANDS: Bands = {
    "age_years": (55.0, 65.0, 75.0),
    "bmi_kg_m2": (25.0, 30.0, 35.0),
}
"""Decades of age, and the classes of the WHO (2000, Technical Report 894)."""
MISSING = "missing"
MIN_PERSONS = 10
"""Fewer have no figures: intervals would say nothing, and the table could name a person."""
_MAX_LEVELS = 12
_AREAS = frozenset({"auroc", "auroc_kl2"})

Judged = Mapping[str, tuple[Metric, Any]]
"""Name to metric, and to what it wants beside the truth."""


@dataclass(frozen=True)
class Factor:
    """A factor on the knees of a target.

    Attributes:
        name: Its column.
        levels: Level of each knee as text, ``missing`` where not known, (n,).
        order: The levels that there are, the missing ones last.
        reason: Why it makes no subgroups; None where it does.
    """

    name: str
    levels: NDArray[np.object_]
    order: tuple[str, ...]
    reason: str | None = None


def factor_of(
    name: str, table: pd.DataFrame, knee_ids: NDArray[np.str_], bands: Mapping[str, Sequence[float]]
) -> Factor:
    """The levels of a factor on some knees.

    Args:
        name: Column of ``table``.
        table: Factors by ``knee_id``, its index.
        knee_ids: The knees.
        bands: Of factors that are numbers, as ``BANDS``.
    """
    nothing = np.empty(0, dtype=object)
    if name not in table:
        return Factor(name, nothing, (), f"there is no column {name}")
    values = table[name].reindex(knee_ids)
    if values.isna().all():
        return Factor(name, nothing, (), "no knee has a value")
    if name in bands:
        if not pd.api.types.is_numeric_dtype(values):
            return Factor(name, nothing, (), "it has bands, and is no number")
        texts, order = _banded(values.to_numpy(float, na_value=np.nan), bands[name])
    else:
        texts = np.array([_text(value) for value in values], dtype=object)
        order = sorted(set(texts) - {MISSING})
    if len(order) > _MAX_LEVELS:
        reason = f"{len(order)} levels are too many; a number needs bands, in the plan"
        return Factor(name, nothing, (), reason)
    there = tuple(level for level in (*order, MISSING) if (texts == level).any())
    return Factor(name, texts, there)


def _text(value: Any) -> str:
    if pd.isna(value):
        return MISSING
    # codes of seven digits stay apart
    return f"{value:.12g}" if isinstance(value, Number) else str(value)


def _banded(
    values: NDArray[np.float64], bounds: Sequence[float]
) -> tuple[NDArray[np.object_], list[str]]:
    """The band of each value, and all bands; a bound belongs to the band above it."""
    middle = [f"{low:g} to < {high:g}" for low, high in pairwise(bounds)]
    names = [f"< {bounds[0]:g}", *middle, f">= {bounds[-1]:g}"]
    band = np.array([*names, MISSING], dtype=object)[
        np.where(np.isnan(values), len(names), np.digitize(values, bounds))
    ]
    return band, names


def subgroups_of(
    target: Target,
    table: pd.DataFrame,
    weights: NDArray[Any],
    *,
    factors: Sequence[str],
    bands: Mapping[str, Sequence[float]],
    min_persons: int,
) -> dict[str, Any]:
    """Figures of a target in each level of each factor, and tests that they differ.

    Args:
        target: What is judged.
        table: Factors by ``knee_id``, its index.
        weights: Draws of persons, (n, draws); the same draws serve all levels, so that estimates
            which share persons vary together.
        factors: Columns of ``table``.
        bands: Of factors that are numbers.
        min_persons: A level with fewer has no figures.

    Returns:
        By factor: ``label``, ``reason`` where there are no levels, ``levels`` and
        ``heterogeneity``, as ``docs/reference/metrics.md`` describes.
    """
    document = {}
    # the true grade is what a grader is judged by: within it, nothing is left to tell apart
    for name in (name for name in factors if (target.name, name) != (KL, "kl_grade")):
        factor = factor_of(name, table, target.knee_ids, bands)
        found = {
            level: _resampled(target, factor.levels == level, weights, min_persons)
            for level in factor.order
        }
        document[name] = {
            "label": label_of(name),
            "reason": factor.reason,
            "levels": {
                level: counts_of(target, factor.levels == level)
                | {metric: as_json(each.estimate()) for metric, each in metrics.items()}
                for level, metrics in found.items()
            },
            "heterogeneity": _tests(found, target, factor),
        }
    _adjust(document, next(iter(metrics_of(target))))
    return document


def metrics_of(target: Target) -> Judged:
    """What is judged in a subgroup: ranking, within folds where knees have one; distance; level."""
    if target.name == KL:
        return {
            "accuracy": (GRADE_METRICS["accuracy"], target.predicted),
            "qwk": (GRADE_METRICS["qwk"], target.predicted),
            "auroc_kl2": (grade_ranking(target.folds)["auroc_kl2"], target.probability),
        }
    ranks = auroc if target.folds is None else auroc_within(target.folds)
    return {
        "auroc": (ranks, target.probability),
        "brier": (brier, target.probability),
        "calibration_in_the_large": (calibration_in_the_large, target.probability),
    }


def _resampled(
    target: Target, rows: NDArray[np.bool_], weights: NDArray[Any], min_persons: int
) -> dict[str, Resampled]:
    part = target.subset(rows)
    if len(np.unique(part.persons)) < min_persons:
        reason = f"fewer than {min_persons} persons"
        nothing = Resampled(None, np.empty(0), int(rows.sum()), reason)
        return dict.fromkeys(metrics_of(part), nothing)
    return {
        name: resample(metric, part.truth, prediction, weights[rows])
        for name, (metric, prediction) in metrics_of(part).items()
    }


def counts_of(target: Target, rows: NDArray[np.bool_]) -> dict[str, int]:
    """Knees, persons and events (of a grader: knees of KL 2 or more) among some rows."""
    event = target.truth >= (OSTEOARTHRITIS if target.name == KL else 1)
    return {
        "knees": int(rows.sum()),
        "persons": len(np.unique(target.persons[rows])),
        "events": int(event[rows].sum()),
    }


def _tests(
    found: Mapping[str, Mapping[str, Resampled]], target: Target, factor: Factor
) -> dict[str, Any]:
    """A test for each metric that its levels differ; knees without the factor take no part."""
    names = next(iter(found.values()), {})
    known = {level: metrics for level, metrics in found.items() if level != MISSING}

    def persons_in(levels: Sequence[str]) -> int:
        return len(np.unique(target.persons[np.isin(factor.levels, levels)]))

    return {
        name: _test({level: each[name] for level, each in known.items()}, name, persons_in)
        for name in names
    }


def _test(
    levels: Mapping[str, Resampled], metric: str, persons_in: Callable[[Sequence[str]], int]
) -> dict[str, Any]:
    usable = {name: each for name, each in levels.items() if _varies(each)}
    document: dict[str, Any] = {
        "statistic": None,
        "df": None,
        "p_value": None,
        "levels": list(usable),
        "reason": None,
    }
    try:
        if len(usable) < 2:
            raise UndefinedMetricError(
                f"fewer than two levels have an estimate with an interval and {FEW_PERSONS} "
                "persons of each class"
            )
        # near 1 an area cannot vary evenly to both sides
        scale = logit if metric in _AREAS else np.asarray
        values = scale(np.array([each.value for each in usable.values()]))
        draws = scale(np.stack([each.draws for each in usable.values()]))
        complete = draws[:, np.isfinite(draws).all(axis=0)]
        if complete.shape[1] < MIN_DEFINED * draws.shape[1] or not np.isfinite(values).all():
            raise UndefinedMetricError("too few draws of persons define all levels")
        residual = persons_in(list(usable)) - len(usable)
        test = heterogeneity(values, np.cov(complete), residual_df=residual)
    except UndefinedMetricError as error:
        return document | {"reason": str(error)}
    return document | test._asdict()


def _varies(each: Resampled) -> bool:
    return each.has_interval and each.note is None and bool(np.nanstd(each.draws) > 0)


def _adjust(document: Mapping[str, Any], primary: str) -> None:
    """Add, in place, P values of the first metric that are adjusted for the number of factors."""
    tests = {name: factor["heterogeneity"].get(primary) for name, factor in document.items()}
    known = {name: test for name, test in tests.items() if test and test["p_value"] is not None}
    adjusted = holm({name: test["p_value"] for name, test in known.items()})
    for name, test in known.items():
        test["adjusted_p_value"] = adjusted[name]
