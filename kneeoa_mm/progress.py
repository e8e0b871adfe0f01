"""Progress of long work: a bar on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 10.0


def say(text: str) -> None:
    """Write one line for the person who watches."""
    print(text, file=sys.stderr, flush=True)


def track(
    items: Iterable[Item],
    *,
    total: int,
    label: str,
    already: int = 0,
    status: Callable[[], str] = str,
) -> Iterator[Item]:
    """Yield ``items`` and show how far the work is, how fast it goes and how long it will take.

    The clock of the speed starts with the first item, since workers take their time to come up.

    Args:
        items: What is worked on.
        total: How many there are, with those that were done before.
        label: What is done with them, such as ``preprocess``.
        already: How many were done before; they do not count for the speed.
        status: Called for what else is worth saying at that moment, such as ``3 rejects``.
    """
    if sys.stderr.isatty():
        yield from _bar(items, total, label, already, status)
    else:
        yield from _lines(items, total, label, already, status)


def _bar(
    items: Iterable[Item], total: int, label: str, already: int, status: Callable[[], str]
) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    pace = TextColumn("{task.fields[pace]}")
    with Progress(*columns, pace, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, completed=already, pace="")
        for item, pace_now in _paced(items, total - already):
            yield item
            progress.update(task, advance=1, pace=", ".join(filter(None, (pace_now(), status()))))


def _lines(
    items: Iterable[Item], total: int, label: str, already: int, status: Callable[[], str]
) -> Iterator[Item]:
    last = time.monotonic()
    for done, (item, pace_now) in enumerate(_paced(items, total - already), start=already + 1):
        yield item
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(", ".join(filter(None, (f"{label}: {done}/{total}", pace_now(), status()))))


def _paced(items: Iterable[Item], total: int) -> Iterator[tuple[Item, Callable[[], str]]]:
    """Each item with what tells the speed once the item is dealt with."""
    first: float | None = None
    for done, item in enumerate(items):
        first = time.monotonic() if first is None else first
        yield item, partial(_pace, done, total, first)


def _pace(done: int, total: int, first: float) -> str:
    """Speed since the first item, which itself does not count."""
    seconds = time.monotonic() - first
    if not done or seconds <= 0:
        return ""
    left = duration((total - done - 1) * seconds / done)
    return f"{done / seconds:.1f}/s, {left} left"


def duration(seconds: float) -> str:
    """A time as a clock shows it.

    Example:
        >>> duration(75), duration(93_600)
        ('0:01:15', '1 day, 2:00:00')
    """
    return str(timedelta(seconds=round(seconds)))
