"""What was stated beforehand, and how often held-out persons were looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kneeoa_mm.analysis.report.parts import Section, Table
from kneeoa_mm.analysis.report.shown import counted


def add_plan(section: Section, document: Mapping[str, Any], file: str) -> None:
    """Say what was pre-specified, and how often held-out knees have been looked at so far."""
    if plan := document.get("prespecified"):
        named = len(plan.get("confirmatory", ()))
        text = (
            f"{counted(named, 'figure')} named beforehand in {plan.get('file', '?')}, "
            f"{plan.get('exploratory', '?')} exploratory"
        )
        section.tell("prespecified", text, file)
        section.methods.append(f"Pre-specification: {text}.")
        section.provenance["prespecified.file"] = str(plan.get("file", ""))
        section.provenance["prespecified.sha256"] = str(plan.get("sha256", ""))
        if missing := plan.get("missing"):
            rows = [[str(each.get("what")), str(each.get("reason"))] for each in missing]
            caption = "Named beforehand, and not there."
            section.tables.append(Table(caption, ["Figure", "Why"], rows))
    add_looks(section, document, file)


def add_looks(section: Section, document: Mapping[str, Any], file: str) -> None:
    """Say how often held-out knees have been looked at so far."""
    looks = document.get("looks") or {}
    # a comparison counts them by run
    by_run = {"": looks} if "count" in looks else looks
    for name, each in by_run.items():
        text = (
            f"Look {each.get('count', '?')} at these held-out knees"
            f"{f' by {name}' if name else ''} ({each.get('held_out', 'held out')}; "
            f"log {each.get('log', '?')})"
        )
        section.tell("looks", text, file)
