"""What a run has done so far: one line a film, and its images, until the whole is put together.

Workers write the images of film ``i`` to ``.films/<i>-0.png`` and so on; then a line goes to a
journal in the same folder. Every process has a journal of its own, so that shards of a run, on
whatever machine, never write into the same file. The order of the lines means nothing: a run that
goes on reads all journals, does what is missing, and puts the whole together.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from kneeoa_mm.atomic_files import atomic_path, write_new_json
from kneeoa_mm.errors import ConfigError
from kneeoa_mm.imaging.worker import FilmRecord, part_path
from kneeoa_mm.run_folder import changes

INPUTS_FILE = ".inputs.json"
JOURNAL_FILE = ".journal.jsonl"
FILMS_FOLDER = ".films"

_FILMS_NAMED = 3


def is_output(folder: Path) -> bool:
    """Whether ``preprocess`` wrote, or is writing, this folder."""
    return (folder / INPUTS_FILE).is_file()


class Journal:
    """The journals of one output directory.

    Args:
        out: The output directory.
        sources: Films of the run in order, as outputs show them.
    """

    def __init__(self, out: Path, sources: Sequence[str]) -> None:
        self._inputs = out / INPUTS_FILE
        self._whole = out / JOURNAL_FILE
        self._folder = out / FILMS_FOLDER
        self._index_of = {source: index for index, source in enumerate(sources)}

    def settle(self, inputs: Mapping[str, Any], *, is_shard: bool) -> None:
        """Remember what the run depends on, or check that it is still so.

        Args:
            inputs: JSON of plain values; ``films`` maps the films, as outputs show them, to sizes.
            is_shard: Other shards may work beside this one; so it clears nothing away.

        Raises:
            ConfigError: The films, the cohort, the identifiers or the program changed.
        """
        # in this order, as a shard that begins beside this one settles before it opens a journal
        is_begun = self._folder.is_dir() or self._whole.is_file()
        if is_begun and not self._inputs.is_file():
            # whatever was begun here began with other rules
            if is_shard:
                self._refuse(["journals that do not say what they depend on"])
            self._whole.unlink(missing_ok=True)
            self.clear()
        with suppress(FileExistsError):
            write_new_json(self._inputs, inputs)
        before = _parsed(self._inputs.read_bytes()) or {}
        if before != inputs:
            self._refuse(_differences(before, inputs))

    def refuse_changed(self, films: Sequence[str]) -> None:
        """Raise where films that were done, as outputs show them, are no longer what they were.

        Raises:
            ConfigError: There are any.
        """
        if films:
            self._refuse([_counted("of other content", films)])

    def _refuse(self, differences: Sequence[str]) -> NoReturn:
        raise ConfigError(
            "The input changed since the interrupted run.",
            found="; ".join(differences),
            where=self._inputs.parent,
            fix="resume with the same films and options, or start anew with --overwrite",
        )

    @property
    def is_finished(self) -> bool:
        """Whether the whole was put together, or was begun to be."""
        return self._whole.is_file()

    def read(self, label: str = "*") -> dict[int, FilmRecord]:
        """The films that are recorded, by their index; torn and foreign lines are passed over.

        Args:
            label: Of the journals to read; by default all.
        """
        records: dict[int, FilmRecord] = {}
        for path in [self._whole, *sorted(self._folder.glob(f"*.{label}.jsonl"))]:
            if path.is_file():
                with path.open("rb") as stream:
                    records.update(self._records(stream))
        return records

    def waiting(self, label: str = "*") -> set[int]:
        """Films that are recorded for good and whose images wait for their names."""
        images = self.images()
        return {
            film
            for film, record in self.read(label).items()
            if record.is_final
            and all(part_path(self.part(film), i).name in images for i in range(len(record.knees)))
        }

    def follow(self, label: str) -> Iterator[tuple[int, FilmRecord] | None]:
        """Yield what processes with this label record from now on, and None where nothing new is.

        The files are opened anew each time, as network file systems want it.
        """
        read_to: dict[Path, int] = {}
        while True:
            for path in sorted(self._folder.glob(f"*.{label}.jsonl")):
                with path.open("rb") as stream:
                    stream.seek(read_to.get(path, 0))
                    lines = stream.read().split(b"\n")
                read_to[path] = read_to.get(path, 0) + sum(len(line) + 1 for line in lines[:-1])
                yield from self._records(lines[:-1])
            yield None

    def _records(self, lines: Iterable[bytes]) -> Iterator[tuple[int, FilmRecord]]:
        for line in lines:
            document = _parsed(line)
            index = None if document is None else self._index_of.get(document.get("source", ""))
            if document is not None and index is not None:
                yield index, FilmRecord.from_json(document)

    @contextmanager
    def writer(self, label: str) -> Iterator[JournalWriter]:
        """A new journal of this process.

        Args:
            label: What this process works on, such as ``2-of-8``.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        # named by time, so that the later of two records of one film counts
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.{label}.jsonl"
        with (self._folder / name).open("a", encoding="ascii", newline="\n") as stream:
            yield JournalWriter(stream)

    def part(self, film: int) -> Path:
        """Where the images of a film wait for their names; see ``worker.part_path``."""
        return self._folder / f"{film:06d}"

    def images(self) -> set[str]:
        """File names of the images that wait."""
        return {path.name for path in self._folder.glob("*.png")}

    def finish(self, records: Iterable[FilmRecord]) -> None:
        """Write all records, in the order of the films, into one journal."""
        with (
            atomic_path(self._whole) as temporary,
            temporary.open("w", encoding="ascii", newline="\n") as stream,
        ):
            stream.writelines(_line(record) for record in records)

    def clear(self) -> None:
        """Remove what was needed only until the whole was put together."""
        shutil.rmtree(self._folder, ignore_errors=True)


class JournalWriter:
    """A journal that is open for writing.

    Args:
        stream: Its file.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def append(self, record: FilmRecord) -> None:
        """Add a film; the line has left the process when this returns."""
        self._stream.write(_line(record))
        self._stream.flush()


def _line(record: FilmRecord) -> str:
    return json.dumps(record.to_json(), separators=(",", ":")) + "\n"


def _parsed(line: str | bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = (
        {key: value for key, value in each.items() if key != "films"} for each in (before, now)
    )
    differences = changes(old, new)
    was, are = before.get("films", {}), now["films"]
    for what, sources in (
        ("new", [source for source in are if source not in was]),
        ("gone", [source for source in was if source not in are]),
        ("of another size", [each for each in are if each in was and was[each] != are[each]]),
    ):
        if sources:
            differences.append(_counted(what, sources))
    return differences


def _counted(what: str, sources: Sequence[str]) -> str:
    more = ", …" if len(sources) > _FILMS_NAMED else ""
    return f"{len(sources)} films {what} ({', '.join(sources[:_FILMS_NAMED])}{more})"
