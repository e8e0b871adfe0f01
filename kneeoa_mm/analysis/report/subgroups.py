"""Subgroups of an evaluation: each with its size and intervals, and whether they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kneeoa_mm.analysis.evaluation import FIGURES_FOLDER, METRICS_FILE
from kneeoa_mm.analysis.report.parts import NOTHING, Section, Table
from kneeoa_mm.analysis.report.runs import Run
from kneeoa_mm.analysis.report.shown import bar_of, listed, p_value, with_interval
from kneeoa_mm.analysis.report.words import metric_name, title_of
from kneeoa_mm.analysis.results import from_json
from kneeoa_mm.records import Estimate

_COUNTS = ("knees", "persons", "events")
_SMALL = 10
"""Persons below which intervals of a subgroup say little."""


def add_subgroups(section: Section, run: Run, document: Mapping[str, Any]) -> None:
    """Add a table and a figure of each target that has subgroups."""
    judged = []
    for target, factors in (document.get("subgroups") or {}).items():
        told = {name: factor for name, factor in factors.items() if factor.get("levels")}
        absent = [
            f"{factor.get('label', name)} ({factor['reason']})"
            for name, factor in factors.items()
            if not factor.get("levels") and factor.get("reason")
        ]
        if absent:
            section.notes.append(f"{title_of(target)}: no subgroups by {listed(absent)}.")
        if not told:
            continue
        section.tables.append(_table(target, told))
        section.tables.append(_heterogeneity(target, told))
        caption = f"{title_of(target)}: each subgroup with its 95 % interval."
        section.add_figure(run.path / FIGURES_FOLDER, f"{target}_subgroups", caption, wide=True)
        judged += [str(factor.get("label", name)) for name, factor in told.items()]
        small = _small(told)
        if small:
            section.notes.append(
                f"{title_of(target)}: fewer than {_SMALL} persons in {listed(small)}; their "
                "figures cannot be relied on."
            )
    if judged:
        text = listed(dict.fromkeys(judged))
        section.tell("subgroups", f"By {text}, with tests of heterogeneity", METRICS_FILE)
        section.methods.append(f"Subgroups were judged by {text}.")


def _metrics(factors: Mapping[str, Any]) -> list[str]:
    """Names of the estimates that any level has."""
    levels = [level for factor in factors.values() for level in factor["levels"].values()]
    return list(dict.fromkeys(n for level in levels for n in level if n not in _COUNTS))


def _table(target: str, factors: Mapping[str, Any]) -> Table:
    metrics = _metrics(factors)
    rows, bars, is_new = [], [], False
    for name, factor in factors.items():
        new = bool(factor.get("exploratory"))
        is_new |= new
        for level, found in factor["levels"].items():
            estimates = [from_json(found[m]) if m in found else Estimate(None) for m in metrics]
            rows.append(
                [
                    f"{factor.get('label', name)}: {level}{' *' if new else ''}",
                    *(_count(found.get(count)) for count in _COUNTS),
                    *(with_interval(e, 2) for e in estimates),
                ]
            )
            bars.append(bar_of(estimates[0]) if estimates else None)
    columns = ["Subgroup", "Knees", "Persons", "Events", *map(metric_name, metrics)]
    footnote = "* Not named by the pre-specification: exploratory." if is_new else ""
    caption = f"{title_of(target)}, subgroups. Estimates with 95 % intervals."
    return Table(caption, columns, rows, bars, footnote)


def _count(value: Any) -> str:
    return NOTHING if value is None else f"{value:,}"


def _heterogeneity(target: str, factors: Mapping[str, Any]) -> Table:
    rows = []
    for name, factor in factors.items():
        for metric, test in factor.get("heterogeneity", {}).items():
            statistic = test.get("statistic")
            rows.append(
                [
                    str(factor.get("label", name)),
                    metric_name(metric),
                    NOTHING if statistic is None else f"{statistic:.2f}",
                    NOTHING if test.get("df") is None else str(test["df"]),
                    p_value(test.get("p_value")),
                    p_value(test.get("adjusted_p_value")),
                    str(test.get("reason") or ""),
                ]
            )
    columns = ["Factor", "Metric", "Statistic", "df", "P", "P, Holm", "Why not"]
    if not any(row[-1] for row in rows):
        rows, columns = [row[:-1] for row in rows], columns[:-1]
    caption = (
        f"{title_of(target)}: do subgroups differ? Many tests find something by chance; of the "
        "first metric P is also adjusted for the number of factors (Holm)."
    )
    return Table(caption, columns, rows)


def _small(factors: Mapping[str, Any]) -> list[str]:
    return [
        f"{factor.get('label', name)} {level}"
        for name, factor in factors.items()
        for level, found in factor["levels"].items()
        if found.get("persons", _SMALL) < _SMALL
    ]
