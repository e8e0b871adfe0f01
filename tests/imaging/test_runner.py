"""Workers: a crash or a hang costs its own film; results keep the order of the tasks."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kneeoa_mm.errors import ItemError, KneeOAError
from kneeoa_mm.imaging.limits import silence
from kneeoa_mm.imaging.runner import run_films

_PREPARED: list[int] = []


def _work(task: str) -> str:
    if task == "abort":
        os.abort()
    if task == "hang":
        time.sleep(600)
    if task == "slow":
        time.sleep(0.5)
    if task == "full disk":
        raise OSError(28, "No space left on device")
    if task.startswith("killed once"):
        mark = Path(task.removeprefix("killed once "))
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
    if task == "prepared":
        return str(len(_PREPARED))
    if task == "write":
        os.write(2, b"PatientName Zelenka")
    return task.upper()


def _prepare() -> None:
    _PREPARED.append(os.getpid())
    silence()


def _fail() -> None:
    raise RuntimeError("the detector is not there")


def test_a_crash_and_a_hang_cost_one_film_each_and_order_is_kept() -> None:
    tasks = ["slow", "a", "abort", "b", "hang", "c"]
    results = list(run_films(_work, tasks, jobs=2, timeout_s=5))
    codes = [result.code if isinstance(result, ItemError) else result for result in results]
    assert codes == ["SLOW", "A", "E_CRASH", "B", "E_TIMEOUT", "C"]


def test_a_film_whose_worker_was_killed_from_outside_is_done_by_another(tmp_path: Path) -> None:
    """As by the system when memory is short: the film is not to blame."""
    task = f"killed once {tmp_path / 'mark'}"
    assert list(run_films(_work, [task, "a"], jobs=1, timeout_s=60)) == [task.upper(), "A"]


def test_a_fault_of_the_run_stops_it() -> None:
    with pytest.raises(OSError, match="No space left"):
        list(run_films(_work, ["a", "full disk", "b"], jobs=1, timeout_s=30))


def test_a_worker_is_prepared_once_and_then_silent(capfd: pytest.CaptureFixture[str]) -> None:
    """What a decoder writes to stderr may quote a header."""
    tasks = ["prepared", "write", "prepared"]
    assert list(run_films(_work, tasks, jobs=1, timeout_s=30, prepare=_prepare)) == [
        *("1", "WRITE", "1")
    ]
    assert "Zelenka" not in "".join(capfd.readouterr())


def test_workers_that_do_not_come_up_stop_the_run() -> None:
    with pytest.raises(KneeOAError, match="do not start"):
        list(run_films(_work, ["a"], jobs=1, timeout_s=30, prepare=_fail))
