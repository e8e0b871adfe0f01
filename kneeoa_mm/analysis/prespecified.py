"""What was decided before anybody looked: a plan, its hash, and what it does not name.

A figure that the plan names is confirmatory; every other is exploratory, however small its P.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from kneeoa_mm.analysis.results import sha256_of
from kneeoa_mm.analysis.subgroups import Bands
from kneeoa_mm.config import read_yaml_mapping, validate
from kneeoa_mm.records import Outcome
from kneeoa_mm.settings import Settings

EXPLORATORY = "exploratory"
_AT = "_at_"
_OF_DECISIONS = ("sensitivity", "specificity", "net_benefit")

Thresholds = tuple[Annotated[float, Field(gt=0, lt=1)], ...]


class Plan(Settings):
    """A pre-specification file, written before the held-out set is looked at."""

    outcome: Outcome | None = None
    """None: the KL grade."""
    model: str | None = None
    """The run that is judged, by its name in ``compare``, or in words."""
    primary_metric: str = "auroc"
    secondary_metrics: tuple[str, ...] = ()
    estimand: str = Field(default="per_knee", pattern="^per_(knee|person)$")
    """Of which the primary and secondary metrics are."""
    thresholds: Thresholds = ()
    """Risks at which sensitivity, specificity and net benefit are judged."""
    subgroups: tuple[str, ...] = ()
    """Factors in whose levels the metrics of subgroups are judged."""
    bands: Bands = Field(default_factory=dict)
    """Of factors that are numbers, where they differ from ``BANDS``."""
    comparisons: tuple[Annotated[str, Field(pattern=r"^[\w+]+-[\w+]+$")], ...] = ()
    """Pairs of models of ``compare``, such as ``fused-kl_grade``."""

    @property
    def target(self) -> str:
        """``kl`` or the outcome."""
        return str(self.outcome or "kl")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that it names, those at its thresholds among them."""
        decisions = tuple(f"{name}{_AT}{t:g}" for t in self.thresholds for name in _OF_DECISIONS)
        return (self.primary_metric, *self.secondary_metrics, *decisions)


@dataclass(frozen=True)
class Prespecified:
    """A plan and the file that holds it."""

    plan: Plan
    path: Path

    def judge(self, computed: Iterable[str], wanted: Iterable[str]) -> dict[str, Any]:
        """What came of the plan.

        Args:
            computed: Figures that were computed and have a value, by their place in the document.
            wanted: Figures that the plan names.

        Returns:
            ``file``, ``sha256``, ``plan``, ``confirmatory`` figures, the number of ``exploratory``
            ones, and ``missing``: what was named and not computed.
        """
        found, named = dict.fromkeys(computed), dict.fromkeys(wanted)
        return {
            "file": self.path.name,
            "sha256": sha256_of(self.path),
            "plan": self.plan.model_dump(mode="json"),
            "confirmatory": [figure for figure in named if figure in found],
            EXPLORATORY: sum(figure not in named for figure in found),
            "missing": [
                {"what": figure, "reason": "it was pre-specified but has no value here"}
                for figure in named
                if figure not in found
            ],
        }


def read_plan(path: Path) -> Prespecified:
    """Read a pre-specification file.

    Raises:
        ConfigError: It is no YAML mapping, or a key or value is not known.
    """
    return Prespecified(validate(Plan, read_yaml_mapping(path), where=str(path)), path)


def thresholds_of(
    plan: Prespecified | None, asked: Sequence[float] | None, default: tuple[float, ...]
) -> tuple[float, ...]:
    """Risks at which decisions are judged: those of the plan and those asked for, or the default.

    Example:
        >>> thresholds_of(None, (0.3, 0.1), (0.5,)), thresholds_of(None, None, (0.5,))
        ((0.1, 0.3), (0.5,))
    """
    named = plan.plan.thresholds if plan else ()
    return tuple(sorted({*named, *(asked or ())})) or default


def notes_of(document: Mapping[str, Any] | None) -> list[str]:
    """What a reader must know of the plan.

    Args:
        document: Of ``Prespecified.judge``; None where there was no plan.
    """
    if document is None:
        return ["Nothing was pre-specified, so every figure is exploratory."]
    lines = [
        f"Pre-specified in {document['file']} (SHA-256 {document['sha256'][:12]}): "
        f"{len(document['confirmatory'])} figures; the other {document[EXPLORATORY]} are "
        "exploratory."
    ]
    lines += [f"{each['what']}: {each['reason']}." for each in document["missing"]]
    return lines
