"""Workers: a crash or a hang costs its own film; results keep the order of the tasks."""

from __future__ import annotations

import os
import time

import pytest

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.runner import run_films


def _work(task: str) -> str:
    if task == "abort":
        os.abort()
    if task == "hang":
        time.sleep(600)
    if task == "slow":
        time.sleep(0.5)
    if task == "full disk":
        raise OSError(28, "No space left on device")
    return task.upper()


def test_a_crash_and_a_hang_cost_one_film_each_and_order_is_kept() -> None:
    tasks = ["slow", "a", "abort", "b", "hang", "c"]
    results = list(run_films(_work, tasks, jobs=2, timeout_s=5))
    codes = [result.code if isinstance(result, ItemError) else result for result in results]
    assert codes == ["SLOW", "A", "E_CRASH", "B", "E_TIMEOUT", "C"]


def test_a_fault_of_the_run_stops_it() -> None:
    with pytest.raises(OSError, match="No space left"):
        list(run_films(_work, ["a", "full disk", "b"], jobs=1, timeout_s=30))
