"""A comparison against what was decided beforehand, and its looks at held-out knees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kneeoa_mm.analysis import looks, prespecified
from kneeoa_mm.analysis.looks import held_out_knees, log_beside, log_look
from kneeoa_mm.analysis.prespecified import EXPLORATORY, Plan, Prespecified
from kneeoa_mm.analysis.results import sha256_of
from kneeoa_mm.schemas import PREDICTIONS_FILE


def plan_and_looks(
    document: Mapping[str, Any],
    plan: Prespecified | None,
    knees: pd.DataFrame,
    runs: Mapping[str, Path],
) -> dict[str, Any]:
    """What came of the plan, the looks at held-out knees, and the notes with both in words.

    Args:
        document: What will be ``compare.json``; figures that the plan does not name are marked.
        plan: What was decided beforehand; None without.
        knees: Rows of the cohort that were judged, with ``split`` where the cohort has one.
        runs: Name to folder of whatever predicted them, a grader too.
    """
    judged = judge_plan(document, plan) if plan else None
    looks_of = log_looks(document, knees, runs)
    said = [note for look in (looks_of or {}).values() for note in looks.notes_of(look)]
    notes = [*document["notes"], *prespecified.notes_of(judged), *said]
    return {"prespecified": judged, "looks": looks_of, "notes": notes}


def places_of(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each figure of a comparison with its place, such as ``models.fused.auroc``."""
    for part in ("models", "differences"):
        for name, figures in document[part].items():
            yield from ((f"{part}.{name}.{metric}", each) for metric, each in figures.items())


def named_by(plan: Plan) -> list[str]:
    """Places of the figures of a comparison that a plan names.

    A comparison is per knee: of a plan of another estimand it has none of the figures.
    """
    of_model = [f"models.{plan.model}.{metric}" for metric in plan.metrics] if plan.model else []
    named = of_model + [f"differences.{pair}.{plan.primary_metric}" for pair in plan.comparisons]
    prefix = f"{plan.estimand}." if plan.estimand != "per_knee" else ""
    return [prefix + place for place in named]


def judge_plan(document: Mapping[str, Any], plan: Prespecified) -> dict[str, Any]:
    """What came of a plan; figures that it does not name are marked in place.

    A plan of another outcome names nothing that is here.
    """
    named = named_by(plan.plan)
    of_this = plan.plan.target == document["outcome"]
    computed = []
    for place, figure in places_of(document):
        if not of_this or place not in named:
            figure[EXPLORATORY] = True
        if figure["value"] is not None:
            computed.append(place if of_this else f"{document['outcome']}.{place}")
    return plan.judge(computed, named)


def log_looks(
    document: Mapping[str, Any], knees: pd.DataFrame, runs: Mapping[str, Path]
) -> dict[str, Any] | None:
    """Log, beside each run, that its held-out knees were looked at; None without such knees."""
    held_out = held_out_knees(knees)
    if not held_out:
        return None
    return {
        name: log_look(
            log_beside(folder / PREDICTIONS_FILE),
            command="compare",
            run=folder.resolve().name,
            predictions_sha256=sha256_of(folder / PREDICTIONS_FILE),
            knees=held_out,
            metrics=(place for place, _ in places_of(document)),
        )
        for name, folder in runs.items()
    }
