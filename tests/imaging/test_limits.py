"""A film that wants too much memory is refused, and the worker goes on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nights
import numpy as np
import pandas as pd
import phantoms
import pytest

from kneeoa_mm.imaging.limits import memory_limit, single_threaded_children
from kneeoa_mm.imaging.preprocess import preprocess

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the limit is kept on Linux alone")


@on_linux
def test_what_fits_is_given_and_what_does_not_raises_and_the_limit_goes_again() -> None:
    with memory_limit(256):
        assert np.ones(100 * 2**17).nbytes == 100 * 2**20
        with pytest.raises(MemoryError):
            np.ones(400 * 2**17)
        assert np.ones(100 * 2**17).nbytes == 100 * 2**20
    assert np.ones(400 * 2**17).nbytes == 400 * 2**20


@on_linux
def test_a_large_film_is_rejected_and_its_worker_takes_the_next_one(tmp_path: Path) -> None:
    """By one and the same process: it is neither killed nor replaced."""
    films = tmp_path / "films"
    large = np.zeros((9000, 9000), dtype=np.uint16)
    large[::2] = 4095
    phantoms.write(phantoms.dataset(large), films / "a.dcm")
    nights.write_film(films / "b.dcm")
    config = nights.CONFIG.model_copy(update={"film_memory_mb": 256})
    out = preprocess(films, tmp_path / "out", config=config, ids="keep").out
    rejects = pd.read_csv(out / "rejects.csv")
    assert rejects[["source", "code"]].to_numpy().tolist() == [["a.dcm", "E_TOO_LARGE"]]
    assert set(pd.read_parquet(out / "knees.parquet")["source"]) == {"b.dcm"}


def test_children_compute_in_one_thread_and_this_process_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with single_threaded_children():
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
