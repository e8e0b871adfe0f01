"""Whose films they are, as path and header say it, to ask a model that knows people by that name.

What this returns stays in memory: outputs, messages and files carry the hashed identifier alone.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.dicom import read_patient_id
from kneeoa_mm.imaging.faults import as_item_errors
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.imaging.pictures import is_picture
from kneeoa_mm.imaging.studies import Studies
from kneeoa_mm.imaging.worker import printable


def source_ids(
    found: Studies, naming: Naming, shown: Collection[str], *, max_pixels: int
) -> dict[str, str]:
    """The identifier that films have of each subject, by the one that outputs carry.

    Args:
        found: The films.
        naming: Of the run that cut their knees.
        shown: Films to ask, as outputs show them: those that gave knees, for their headers were
            read before, within limits of time and memory.
        max_pixels: As for that run.

    Returns:
        Without subjects whose films cannot be read any more.
    """
    asked = frozenset(shown)
    known: dict[str, str] = {}
    for source in found.sources:
        if naming.masked(printable(source)) not in asked:
            continue
        with suppress(ItemError):
            patient_id = _patient_id(found.root / source, max_pixels)
            subject = naming.source_id(printable(source), patient_id)
            if subject is not None:
                known[naming.identifiers.subject_id(subject)] = subject
    return known


def _patient_id(film: Path, max_pixels: int) -> str | None:
    with as_item_errors("read", "E_READ"):
        has_header = not is_picture(film)
    return read_patient_id(film, max_pixels=max_pixels) if has_header else None
