"""Films over worker processes: a hang or a crash costs one film, by name, and no more."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, TypeVar

from pebble import ProcessExpired, ProcessPool

from kneeoa_mm.errors import ItemError, KneeOAError
from kneeoa_mm.imaging.limits import single_threaded_children

Task = TypeVar("Task")
Result = TypeVar("Result")

_TASKS_AHEAD = 16
"""Films handed out for each worker: enough to keep them busy while an earlier one is slow."""


class _Scheduled(NamedTuple):
    task: Any
    future: Any


def run_films(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    jobs: int,
    timeout_s: float,
    prepare: Callable[[], None] | None = None,
) -> Generator[Result | ItemError, None, None]:
    """Work through ``tasks`` and yield their results in the order of the tasks.

    Workers are spawned, not forked, so that no state of this process leaks into a decoder. One
    that takes too long is replaced, and its film yields an ItemError ``E_TIMEOUT``. One that dies
    is replaced too, and its film is tried once more, since the film need not be the cause: a
    machine short of memory kills at random. If it dies again, the film yields ``E_CRASH``.

    Args:
        work: A function of a module, which turns faults of a film into results itself.
        tasks: Its arguments; they and the results must pickle.
        jobs: Worker processes.
        timeout_s: Seconds that a film may take.
        prepare: Called in each worker before its first film, outside the time limit.

    Raises:
        KneeOAError: No worker comes up.
        Exception: Whatever ``work`` raises: a fault of the run, such as a full disk.
    """
    todo = iter(tasks)
    waiting: deque[_Scheduled] = deque()
    with single_threaded_children():
        pool = ProcessPool(
            max_workers=jobs,
            initializer=_start,
            initargs=(prepare,),
            context=multiprocessing.get_context("spawn"),
        )

        def schedule(task: Task) -> _Scheduled:
            return _Scheduled(task, pool.schedule(work, args=(task,), timeout=timeout_s))

        try:
            while True:
                while len(waiting) < jobs * _TASKS_AHEAD and (task := next(todo, None)) is not None:
                    waiting.append(schedule(task))
                if not waiting:
                    return
                yield _result_of(waiting.popleft(), schedule, timeout_s)
        finally:
            pool.stop()  # type: ignore[no-untyped-call]
            pool.join()


def _start(prepare: Callable[[], None] | None) -> None:
    # Ctrl-C is for the parent, which ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if prepare is not None:
        prepare()


def _result_of(
    scheduled: _Scheduled, schedule: Callable[[Any], _Scheduled], timeout_s: float
) -> Any:
    try:
        try:
            return scheduled.future.result()
        except ProcessExpired:
            return schedule(scheduled.task).future.result()
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
