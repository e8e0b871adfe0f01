"""Stages of a whole analysis of which one may have nothing to compute from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kneeoa_mm.analysis.results import NOT_COMPUTED_FILE
from kneeoa_mm.atomic_files import write_json
from kneeoa_mm.errors import InputError
from kneeoa_mm.progress import say
from kneeoa_mm.records import StageResult


@dataclass
class Attempts:
    """What could not be computed, and why.

    Attributes:
        reasons: Name of a stage to why it could not be.
    """

    reasons: dict[str, str] = field(default_factory=dict)

    def attempt(self, stage: str, work: Callable[[], StageResult]) -> StageResult | None:
        """Do the work; None, with the reason kept, where the data do not allow it.

        No event, one class or too few persons leave an analysis with less, not without. A fault of
        a table, a leak or a folder that is taken is still raised.
        """
        try:
            return work()
        except InputError as error:
            if type(error) is not InputError:
                raise
            found = error.details.get("found", "")
            self.reasons[stage] = f"{error.problem} {f'({found})' if found else ''}".strip()
            say(f"    {stage}: not computed. {self.reasons[stage]}")
            return None

    def write(self, folder: Path) -> list[Path]:
        """Write what the report shows of it; nothing where all went well."""
        if not self.reasons:
            return []
        rows = [{"stage": stage, "reason": why} for stage, why in self.reasons.items()]
        return [write_json(folder / NOT_COMPUTED_FILE, {"not_computed": rows}).parent]
