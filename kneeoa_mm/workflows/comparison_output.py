"""A comparison as files: one row a model, the table of a paper, the figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure

from kneeoa_mm.analysis.comparison_figures import (
    Curve,
    calibration_panels,
    comparison_curves,
)
from kneeoa_mm.analysis.results import OUTCOME_NAMES
from kneeoa_mm.metrics import mean_roc
from kneeoa_mm.workflows.comparison import KL_ONLY, Contest
from kneeoa_mm.workflows.verdict import p_in_words

_COLUMNS: Mapping[str, str] = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "auprc_baseline": "AUPRC of no skill",
    "auroc_kl_1_to_3": "AUROC, KL 1 to 3",
    "auroc_within_kl_1_to_3": "within KL 1 to 3",
    "brier": "Brier",
    "scaled_brier": "Scaled Brier",
    "calibration_in_the_large": "Calibration in the large",
    "calibration_slope": "Calibration slope",
}
"""Metrics of the paper's table."""


def rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a model: its inputs, every metric with its interval, and the gain on KL only."""
    found = []
    for name, metrics in document["models"].items():
        row = {"model": name, "inputs": document["inputs"][name]}
        row |= {"n": document["n"], "events": document["events"]}
        for metric, estimate in metrics.items():
            row |= _columns_of(metric, estimate)
        for metric, estimate in document["differences"].get(f"{name}-{KL_ONLY}", {}).items():
            row |= _columns_of(f"{metric}_above_kl_grade", estimate)
        found.append(row)
    return found


def _columns_of(metric: str, estimate: Mapping[str, Any]) -> dict[str, Any]:
    columns = {
        metric: estimate["value"],
        f"{metric}_ci_low": estimate["ci_low"],
        f"{metric}_ci_high": estimate["ci_high"],
    }
    return columns | ({f"{metric}_p": estimate["p_value"]} if "p_value" in estimate else {})


def columns(lines: list[dict[str, Any]]) -> list[str]:
    """All columns that any row has, in order."""
    return list(dict.fromkeys(name for line in lines for name in line))


def markdown(document: Mapping[str, Any]) -> str:
    """The table for a paper, with what it shows in words, and how it was made."""
    title = OUTCOME_NAMES[document["outcome"]]
    share = document["events"] / document["n"]
    parts = [
        f"# {title}: models compared",
        f"{document['n']:,} knees of {document['persons']:,} persons, {document['events']:,} events"
        f" ({share:.1%}). {document['provenance']['intervals']}.",
        _models(document),
        "## What it shows",
        _bullets(document["verdict"]),
        "## Differences",
        _differences(document),
    ]
    if complete := document["complete_cases"]:
        parts += ["## Complete cases", _models({**document, "models": complete})]
    if pairs := document["within_pairs"]:
        parts += ["## Within matched pairs", _pairs(pairs)]
    parts += ["## Inputs", _bullets(f"{n}: {text}" for n, text in document["inputs"].items())]
    parts += ["## Notes", _bullets(document["notes"])]
    return "\n\n".join(parts) + "\n"


def _models(document: Mapping[str, Any]) -> str:
    present = next(iter(document["models"].values()))
    metrics = {name: title for name, title in _COLUMNS.items() if name in present}
    lines = [
        [name, *(_shown(found[metric]) for metric in metrics)]
        for name, found in document["models"].items()
    ]
    return _table(["Model", *metrics.values()], lines)


def _differences(document: Mapping[str, Any]) -> str:
    lines = [
        [pair.replace("-", " - "), metric, _shown(estimate, "+.3f"), _p(estimate)]
        for pair, metrics in document["differences"].items()
        for metric, estimate in metrics.items()
    ]
    return _table(["Difference", "Metric", "Value (95 % CI)", "P (clustered DeLong)"], lines)


def _pairs(pairs: Mapping[str, Any]) -> str:
    nothing = {"value": None, "ci_low": None}
    lines = [
        [
            name,
            _shown(found["concordance"]),
            _shown(found["odds_ratio"], ".2f"),
            _shown(found.get("odds_ratio_adjusted_for_kl", nothing), ".2f"),
        ]
        for name, found in pairs["models"].items()
    ]
    head = ["Model", "Concordance", "Odds ratio an SD", "beside KL only"]
    return f"{pairs['pairs']:,} complete pairs.\n\n{_table(head, lines)}"


def _table(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def _bullets(lines: Any) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _shown(estimate: Mapping[str, Any], form: str = ".3f") -> str:
    if estimate["value"] is None:
        return estimate.get("reason") or "-"
    value = f"{estimate['value']:{form}}"
    if estimate["ci_low"] is None:
        return value
    return f"{value} ({estimate['ci_low']:{form}} to {estimate['ci_high']:{form}})"


def _p(estimate: Mapping[str, Any]) -> str:
    value = estimate.get("p_value")
    return "-" if value is None else p_in_words(value).removeprefix("= ")


def draw(
    document: Mapping[str, Any], contest: Contest, simple: Mapping[str, Any]
) -> Iterator[tuple[str, Figure]]:
    """Names and figures: ROC and decision curves; calibration where levels mean something."""
    yield "comparison", _draw_curves(document, contest, simple)
    if bins := document["calibration_curves"]:
        title = OUTCOME_NAMES[document["outcome"]]
        yield "comparison_calibration", calibration_panels(bins, title=title)


def _draw_curves(
    document: Mapping[str, Any], contest: Contest, simple: Mapping[str, Any]
) -> Figure:
    decisions = document["net_benefit"]
    curves = {
        name: Curve(
            *mean_roc(contest.events, risk, contest.folds, shares=contest.shares),
            area=document["models"][name]["auroc"]["value"],
            net_benefit=decisions["models"][name] if decisions else None,
            is_simple=name in simple,
        )
        for name, risk in contest.risks.items()
    }
    return comparison_curves(
        curves,
        title=OUTCOME_NAMES[document["outcome"]],
        thresholds=decisions["thresholds"] if decisions else (),
        treat_all=decisions["treat_all"] if decisions else (),
    )
