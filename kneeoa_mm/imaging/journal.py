"""What a run has done so far, one line a film, so that an interrupted run can go on.

Films are recorded in the order of their paths, so the journal is always a beginning of the whole:
a resumed run continues where it ends and writes the tables that an uninterrupted one writes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from kneeoa_mm.errors import ConfigError
from kneeoa_mm.imaging.worker import FilmRecord
from kneeoa_mm.run_folder import write_text

JOURNAL_FILE = ".journal.jsonl"


class Journal:
    """The journal of one output directory; a context manager that is written to while open.

    Args:
        path: The file.
        inputs: What the run depends on beside its configuration; the first line of the file.
    """

    def __init__(self, path: Path, inputs: dict[str, Any]) -> None:
        self._path = path
        self._inputs = inputs
        self._stream: TextIO | None = None

    def read(self, sources: Sequence[str], images: Path) -> list[FilmRecord]:
        """The records of an interrupted run, as far as they can be relied on.

        They end before a torn line, a film out of order, or an image that is not there.

        Args:
            sources: Films of this run in order, as outputs show them.
            images: Root of the ``image_path`` of the records.

        Raises:
            ConfigError: The films, the cohort or the identifiers changed since.
        """
        if not self._path.is_file():
            return []
        lines = self._path.read_text(encoding="utf-8", errors="replace").split("\n")
        before = _parsed(lines[0])
        if before is None:
            return []
        if before != self._inputs:
            changed = [key for key in self._inputs if before.get(key) != self._inputs[key]]
            raise ConfigError(
                "The input changed since the interrupted run.",
                found=f"other {', '.join(changed)}",
                where=self._path.parent,
                fix="resume with the same films and options, or start anew with --overwrite",
            )
        records = []
        for line, source in zip(lines[1:], sources, strict=False):
            document = _parsed(line)
            if document is None or document.get("source") != source:
                break
            if not all((images / knee["image_path"]).is_file() for knee in document["knees"]):
                break
            records.append(FilmRecord.from_json(document))
        return records

    def start(self, records: Sequence[FilmRecord]) -> Journal:
        """Begin the file with what is known already, and keep it open for more."""
        lines = [json.dumps(self._inputs), *(json.dumps(record.to_json()) for record in records)]
        write_text(self._path, "\n".join(lines) + "\n")
        return self

    def __enter__(self) -> Journal:
        self._stream = self._path.open("a", encoding="utf-8", newline="\n")
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def append(self, record: FilmRecord) -> None:
        """Add a film; the line has left the process when this returns."""
        if self._stream is None:
            raise ValueError("the journal is not open")
        self._stream.write(json.dumps(record.to_json()) + "\n")
        self._stream.flush()


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
