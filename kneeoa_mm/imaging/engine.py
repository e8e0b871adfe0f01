"""Films of one run, or of one shard of it, through the workers of this machine."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from kneeoa_mm.errors import ConfigError, ItemError
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.imaging.journal import Journal
from kneeoa_mm.imaging.runner import run_films
from kneeoa_mm.imaging.worker import FilmRecord, FilmTask, prepare, rejected, work
from kneeoa_mm.settings import PreprocessConfig


@dataclass(frozen=True)
class Shard:
    """One of several parts of a run, which takes every ``of``-th film.

    Attributes:
        number: From 1.
        of: How many there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``i/n``.

        Example:
            >>> shard = Shard.parse("2/3")
            >>> str(shard), [film for film in range(8) if shard.takes(film)]
            ('2-of-3', [1, 4, 7])

        Raises:
            ConfigError: It is no such text.
        """
        number, _, of = text.partition("/")
        if number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
            return cls(int(number), int(of))
        raise ConfigError(
            "A shard reads i/n.",
            expected="1/8, 2/8 … 8/8 for eight processes",
            found=text,
            where="--shard",
            fix="number a job array from 1, such as --array=1-8",
        )

    def takes(self, film: int) -> bool:
        """Whether the film of this index is in this shard."""
        return film % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"


@dataclass(frozen=True)
class Job:
    """What a process must know to work on films of a run; it pickles.

    Attributes:
        root: The folder of studies, absolute.
        sources: Paths of all films relative to it, in order.
        shown_sources: The same as outputs show them.
        out: The output directory, absolute.
        config: The configuration.
        naming: How films are identified.
        workers: Worker processes.
    """

    root: Path
    sources: tuple[str, ...]
    shown_sources: tuple[str, ...]
    out: Path
    config: PreprocessConfig
    naming: Naming
    workers: int

    @cached_property
    def journal(self) -> Journal:
        """The journals of the run."""
        return Journal(self.out, self.shown_sources)

    def task(self, film: int, journal: Journal) -> FilmTask:
        """What a worker is told about a film."""
        return FilmTask(
            self.root,
            self.sources[film],
            self.shown_sources[film],
            journal.part(film),
            self.config,
            self.naming,
        )


def run_locally(job: Job, films: Sequence[int], *, label: str) -> Iterator[FilmRecord]:
    """Process films on this machine, and record each as it is yielded.

    Args:
        job: The run.
        films: Indices of those to process.
        label: Of the journal, such as the shard.

    Raises:
        OSError: The output cannot be written, or the studies are gone.
        KneeOAError: No worker comes up.
    """
    journal = job.journal
    tasks = (job.task(film, journal) for film in films)
    with journal.writer(label) as writer, closing(_run(job, tasks, len(films))) as results:
        for film, result in zip(films, results, strict=True):
            if isinstance(result, ItemError):
                source = job.shown_sources[film]
                result = FilmRecord(source, rejects=(rejected(source, result),))
            writer.append(result)
            yield result


def _run(
    job: Job, tasks: Iterator[FilmTask], count: int
) -> Generator[FilmRecord | ItemError, None, None]:
    return run_films(
        work,
        tasks,
        jobs=max(1, min(job.workers, count)),
        timeout_s=job.config.film_timeout_s,
        prepare=partial(prepare, job.config),
    )
