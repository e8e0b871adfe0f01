"""Films over worker processes: a hang or a crash costs one film, by name, and no more."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from kneeoa_mm.errors import ItemError, KneeOAError

Task = TypeVar("Task")
Result = TypeVar("Result")

_TASKS_AHEAD = 16
"""Films handed out for each worker: enough to keep them busy while an earlier one is slow."""


def run_films(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, jobs: int, timeout_s: float
) -> Generator[Result | ItemError, None, None]:
    """Work through ``tasks`` and yield their results in the order of the tasks.

    Workers are spawned, not forked, so that no state of this process leaks into a decoder. One
    that dies or takes too long is replaced, and its film yields an ItemError ``E_CRASH`` or
    ``E_TIMEOUT``.

    Args:
        work: A function of a module, which turns faults of a film into results itself.
        tasks: Its arguments; they and the results must pickle.
        jobs: Worker processes.
        timeout_s: Seconds that a film may take.

    Raises:
        KneeOAError: No worker comes up.
        Exception: Whatever ``work`` raises: a fault of the run, such as a full disk.
    """
    pool = ProcessPool(
        max_workers=jobs,
        initializer=_leave_interrupts_to_parent,
        context=multiprocessing.get_context("spawn"),
    )
    waiting: deque[Any] = deque()
    todo = iter(tasks)
    try:
        while True:
            while len(waiting) < jobs * _TASKS_AHEAD and (task := next(todo, None)) is not None:
                waiting.append(pool.schedule(work, args=(task,), timeout=timeout_s))
            if not waiting:
                return
            result: Result | ItemError = _result_of(waiting.popleft(), timeout_s)
            yield result
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _result_of(future: Any, timeout_s: float) -> Any:
    try:
        return future.result()
    except ProcessExpired as error:
        message = f"the worker died while reading the film (exit code {error.exitcode})"
        return ItemError("E_CRASH", message, stage="worker")
    except TimeoutError:
        message = f"the film took longer than {timeout_s:g} s"
        return ItemError("E_TIMEOUT", message, stage="worker")
    except BrokenProcessPool as error:
        raise KneeOAError(
            "The worker processes do not start, or were killed while idle.",
            expected="enough memory, and a script that runs under `if __name__ == '__main__':`",
            fix="read the messages above; --resume goes on from here",
        ) from error
