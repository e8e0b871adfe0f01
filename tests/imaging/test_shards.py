"""A run that is shared out and joined is the run that one machine does alone."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nights
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneeoa_mm.errors import ConfigError, OutputExistsError
from kneeoa_mm.imaging import journal
from kneeoa_mm.imaging.engine import Shard
from kneeoa_mm.imaging.worker import FilmRecord


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nights.write_studies(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def whole(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    nights.run(studies, out)
    return nights.contents(out)


@given(st.integers(1, 20), st.integers(0, 60))
def test_each_film_is_in_exactly_one_shard_and_the_shards_are_even(of: int, films: int) -> None:
    shards = [Shard.parse(f"{number}/{of}") for number in range(1, of + 1)]
    taken = [[film for film in range(films) if shard.takes(film)] for shard in shards]
    assert sorted(film for shard in taken for film in shard) == list(range(films))
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/4/2", ""])
def test_a_text_that_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="i/n"):
        Shard.parse(text)


def test_shards_beside_each_other_join_to_the_whole(
    studies: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Processes of their own, at once: they share a directory, and none writes what is joined."""
    out = tmp_path / "out"
    shards = [nights.start(studies, out, "--shard", f"{number}/2") for number in (2, 1)]
    ends = [(process.communicate(timeout=nights.HANG_S), process.returncode) for process in shards]
    assert [code for _, code in ends] == [0, 0], ends
    assert {path.name for path in out.iterdir()} == {"config.yaml", ".inputs.json", ".films"}
    nights.run(studies, out, resume=True)
    assert nights.contents(out) == whole


def test_the_joining_run_does_what_lost_shards_left_undone(
    studies: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One shard was never started, one died half-way, and one belonged to another division."""
    out = tmp_path / "out"
    assert nights.run(studies, out, shard="2/4").failed == 0
    nights.run(studies, out, shard="1/3")
    with monkeypatch.context() as patch:
        _interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            nights.run(studies, out, shard="3/4")
    (out / ".lock.4-of-4").write_text(json.dumps({"pid": 2**22 + 1, "host": "elsewhere"}))
    with pytest.raises(OutputExistsError, match="elsewhere"):
        nights.run(studies, out, resume=True)
    (out / ".lock.4-of-4").unlink()
    nights.run(studies, out, resume=True)
    assert nights.contents(out) == whole


def test_a_shard_goes_on_by_itself_and_is_refused_once_all_are_joined(
    studies: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = nights.run(studies, out, shard="1/2")
    assert first.counts["films"] == 8
    assert "--resume" in first.next_step
    assert nights.run(studies, out, shard="1/2").counts["films"] == 0
    nights.run(studies, out, resume=True)
    with pytest.raises(OutputExistsError, match="joined already"):
        nights.run(studies, out, shard="1/2")
    assert nights.contents(out) == whole


def test_shards_of_other_settings_or_films_do_not_mix(studies: Path, tmp_path: Path) -> None:
    out, others = tmp_path / "out", nights.write_studies(tmp_path / "others", people=2)
    nights.run(studies, out, shard="1/2")
    before = nights.contents(out)
    wide = nights.CONFIG.model_copy(update={"crop_mm": 150.0})
    with pytest.raises(ConfigError, match=r"crop_mm: 140\.0 -> 150\.0"):
        nights.run(studies, out, shard="2/2", config=wide)
    with pytest.raises(ConfigError, match=r"8 films gone \(V00/9000019\.dcm, "):
        nights.run(others, out, shard="2/2")
    assert nights.contents(out) == before


SHARDS, ROUNDS = 4, 20
INPUTS: dict[str, Any] = {
    "cohort": "oai",
    "films": {f"{number}.dcm": 1 for number in range(SHARDS)},
}


@pytest.mark.parametrize("look", ["is_file", "is_dir"])
def test_a_shard_that_is_overtaken_while_it_settles_leaves_the_faster_one_s_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """It looked before anything was there; by now the other has settled and opened its journal."""
    slow, fast = (journal.Journal(tmp_path, list(INPUTS["films"])) for _ in range(2))
    real = getattr(Path, look)

    def overtaken(path: Path) -> bool:
        was = bool(real(path))
        monkeypatch.undo()
        fast.settle(INPUTS, is_shard=True)
        with fast.writer("1-of-2") as writer:
            writer.append(FilmRecord("1.dcm"))
        return was

    monkeypatch.setattr(Path, look, overtaken)
    slow.settle(INPUTS, is_shard=True)
    assert set(slow.read()) == {1}


def test_of_shards_of_other_films_that_begin_at_the_same_moment_one_goes_on(tmp_path: Path) -> None:
    together = threading.Barrier(SHARDS, timeout=nights.HANG_S)

    def shard(number: int) -> list[bool]:
        settled = []
        for folder in range(ROUNDS):
            work = journal.Journal(tmp_path / str(folder), [f"{number}.dcm"])
            together.wait()
            try:
                work.settle({"films": {f"{number}.dcm": 1}}, is_shard=True)
                settled.append(True)
            except ConfigError:
                settled.append(False)
        return settled

    with ThreadPoolExecutor(SHARDS) as pool:
        by_shard = list(pool.map(shard, range(SHARDS)))
    assert [sum(times) for times in zip(*by_shard, strict=True)] == [1] * ROUNDS


def test_journals_of_unknown_inputs_are_cleared_by_a_whole_run_and_refused_by_a_shard(
    tmp_path: Path,
) -> None:
    work = journal.Journal(tmp_path, list(INPUTS["films"]))
    with work.writer("1-of-2") as writer:
        writer.append(FilmRecord("1.dcm"))
    with pytest.raises(ConfigError, match="what they depend on"):
        work.settle(INPUTS, is_shard=True)
    assert set(work.read()) == {1}
    work.settle(INPUTS, is_shard=False)
    assert not work.read()


def test_shards_need_a_key_that_they_share(studies: Path, tmp_path: Path) -> None:
    """Each would make its own, and no identifier of one would be known to the other."""
    with pytest.raises(ConfigError, match="--ids"):
        nights.run(studies, tmp_path / "out", shard="1/2", ids=None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [{"overwrite": True}, {"exclude": Path("list.csv")}, {"engine": "ray"}]
)
def test_what_concerns_the_whole_is_refused_for_a_shard(
    studies: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(options))}"):
        nights.run(studies, tmp_path / "out", shard="1/2", **options)
    assert not (tmp_path / "out").exists()


def _interrupt_after(patch: pytest.MonkeyPatch, films: int) -> None:
    append = journal.JournalWriter.append
    done: list[Any] = []

    def interrupted(writer: journal.JournalWriter, record: Any) -> None:
        append(writer, record)
        done.append(record)
        if len(done) == films:
            raise KeyboardInterrupt

    patch.setattr(journal.JournalWriter, "append", interrupted)
