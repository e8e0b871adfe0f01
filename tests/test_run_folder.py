"""Output directories: nothing is overwritten by accident, half-written, or shared by two runs."""

import errno
import json
import multiprocessing
import os
import shutil
import socket
import sys
import time

import pytest

from kneeoa_mm import run_lock
from kneeoa_mm.atomic_files import atomic_path, write_json, write_new_json
from kneeoa_mm.errors import ConfigError, InputError, OutputExistsError
from kneeoa_mm.run_folder import open_run, refuse_own_inputs

PROCESSES, ROUNDS = 3, 15
HANG_S = 600
"""Only what hangs takes so long, on however busy a machine."""


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_what_no_other_program_could_read(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"auroc": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.fixture(params=["links", "no links"])
def link_or_none(request, monkeypatch):
    """Runs a test once more as on a file system without hard links."""
    if request.param == "no links":
        monkeypatch.setattr(os, "link", _no_link)


def _no_link(*_):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.usefixtures("link_or_none")
def test_what_is_there_is_never_replaced_by_a_new_file(tmp_path):
    write_new_json(tmp_path / "a.json", {"seed": 1})
    with pytest.raises(FileExistsError):
        write_new_json(tmp_path / "a.json", {"seed": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"seed": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_with_another_run_is_refused_and_left_alone(tmp_path):
    out = tmp_path / "run"
    with open_run(out, config_yaml="seed: 1\n"):
        (out / "result").write_text("precious")
    with pytest.raises(OutputExistsError, match="--overwrite"), open_run(out):
        pass
    assert (out / "result").read_text() == "precious"
    assert (out / "config.yaml").read_text() == "seed: 1\n"


def test_overwrite_replaces_a_run_but_never_a_folder_of_someone_else(tmp_path):
    out, foreign = tmp_path / "run", tmp_path / "photos"
    with open_run(out):
        (out / "old").touch()
    with open_run(out, overwrite=True):
        pass
    assert not (out / "old").exists()
    foreign.mkdir()
    (foreign / "holiday.jpg").touch()
    with pytest.raises(OutputExistsError), open_run(foreign, overwrite=True):
        pass
    assert (foreign / "holiday.jpg").exists()


def test_an_overwrite_that_was_interrupted_may_be_repeated(tmp_path, monkeypatch):
    """Without its config.yaml the rest would be a folder of someone else, for ever refused."""
    out = tmp_path / "run"
    with open_run(out):
        (out / "images").mkdir()

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt), open_run(out, overwrite=True):
            pass
    with open_run(out, overwrite=True):
        assert not (out / "images").exists()


@pytest.mark.parametrize("inside", ["", "images", "images/knee.png"])
def test_a_run_does_not_delete_what_it_is_to_read(tmp_path, inside):
    with open_run(tmp_path / "run") as out:
        (out / "images").mkdir()
        (out / "images" / "knee.png").touch()
    outside = tmp_path / "run-of-another"
    outside.mkdir()
    refuse_own_inputs(out, [outside, tmp_path])
    with pytest.raises(ConfigError, match="would delete"):
        refuse_own_inputs(out, [outside, out / inside])


def test_a_link_hides_no_input_that_would_be_deleted(tmp_path):
    with open_run(tmp_path / "run") as out:
        (out / "images").mkdir()
    (tmp_path / "films").symlink_to(out / "images", target_is_directory=True)
    with pytest.raises(ConfigError, match="would delete"):
        refuse_own_inputs(out, [tmp_path / "films"])


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not flushed there")
def test_a_new_name_is_on_the_disk_when_the_write_ends(tmp_path, monkeypatch):
    """A file that is flushed under a name that is not is lost with the power."""
    flushed, fsync = [], os.fsync

    def watched(descriptor):
        flushed.append((os.fstat(descriptor).st_ino, (tmp_path / "a.json").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_json(tmp_path / "a.json", {})
    # the file before it gets its name, and its folder after
    file, folder = ((tmp_path / name).stat().st_ino for name in ("a.json", "."))
    assert flushed == [(file, False), (folder, True)]


def test_resume_with_a_changed_configuration_shows_the_difference(tmp_path):
    with open_run(tmp_path / "run", config_yaml="seed: 1\nlr: 0.1\n"):
        pass
    with (
        pytest.raises(ConfigError, match=r"seed: 1 -> 2\n"),
        open_run(tmp_path / "run", config_yaml="seed: 2\nlr: 0.1\n", resume=True),
    ):
        pass


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_into_is_refused_before_any_work(
    tmp_path, monkeypatch, number
):
    """A lock that cannot be made is no fault of the program."""
    opened = os.open

    def refused(path, flags, *mode):
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(InputError, match=os.strerror(number)), open_run(tmp_path / "run"):
        pass


def test_resume_keeps_what_is_there(tmp_path):
    with open_run(tmp_path / "run", config_yaml="seed: 1\n") as out:
        (out / "done").touch()
    with open_run(tmp_path / "run", config_yaml="seed: 1\n", resume=True) as out:
        assert (out / "done").exists()


@pytest.mark.usefixtures("link_or_none")
def test_a_second_run_in_the_same_folder_is_refused_while_the_first_lives(tmp_path):
    with (
        open_run(tmp_path / "run", config_yaml="a: 1\n"),
        pytest.raises(OutputExistsError, match=str(os.getpid())),
        open_run(tmp_path / "run", config_yaml="a: 1\n", resume=True),
    ):
        pass
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.fixture
def dead_lock():
    """The lock of a process of this machine that is no more."""
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    return json.dumps({"pid": dead, "host": socket.gethostname()})


@pytest.mark.usefixtures("link_or_none")
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, dead_lock):
    out = tmp_path / "run"
    with open_run(out, config_yaml="a: 1\n"):
        pass
    (out / ".lock").write_text(dead_lock)
    with open_run(out, config_yaml="a: 1\n", resume=True):
        assert json.loads((out / ".lock").read_text())["pid"] == os.getpid()


def test_who_waits_to_take_over_a_lock_spares_that_of_a_faster_one(
    tmp_path, dead_lock, monkeypatch
):
    """Both saw the dead one; while the slower waited, the faster took its place."""
    lock = tmp_path / ".lock"
    lock.write_text(dead_lock)
    live = json.dumps({"pid": 1, "host": "elsewhere"})

    def overtaken(_):
        lock.unlink()
        lock.write_text(live)
        monkeypatch.undo()

    monkeypatch.setattr(run_lock, "_take_turn", overtaken)
    with pytest.raises(OutputExistsError, match="elsewhere"), open_run(tmp_path):
        pass
    assert lock.read_text() == live


@pytest.mark.parametrize("content", ["", '{"pid": 1', "[]"])
def test_a_lock_without_an_owner_is_that_of_a_run_that_begins_unless_it_is_old(tmp_path, content):
    """As where a file system has no links, or lost the content with the power."""
    lock = tmp_path / ".lock"
    lock.write_text(content)
    with pytest.raises(OutputExistsError, match="just begun"), open_run(tmp_path):
        pass
    os.utime(lock, times=(time.time() - 120,) * 2)
    with open_run(tmp_path):
        assert json.loads(lock.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("before", "parts", "options", "held"),
    [
        ("nothing", False, {"config_yaml": "a: 1\n"}, 1),
        ("no links", False, {"config_yaml": "a: 1\n"}, 1),
        ("dead run", False, {"config_yaml": "a: 1\n", "resume": True}, 1),
        ("earlier run", False, {"config_yaml": "a: 1\n", "overwrite": True}, 1),
        ("nothing", True, {"config_yaml": "a: 1\n"}, PROCESSES),
        ("dead run", True, {"config_yaml": "a: 1\n"}, PROCESSES),
        # each part comes with a configuration of its own
        ("nothing", True, {}, 1),
    ],
)
def test_of_runs_that_begin_at_the_same_moment_one_holds_the_folder(
    tmp_path, dead_lock, before, parts, options, held
):
    """Real processes, which wait for each other before each folder and while they hold it."""
    for number in range(ROUNDS):
        out = tmp_path / str(number)
        if before in {"dead run", "earlier run"}:
            with open_run(out, config_yaml="a: 1\n"):
                (out / "old").touch()
        if before == "dead run":
            (out / ".lock").write_text(dead_lock)
    context = multiprocessing.get_context("spawn")
    told, together = context.SimpleQueue(), context.Barrier(PROCESSES)
    processes = []
    for part in "123"[:PROCESSES]:
        own = {"part": part, "config_yaml": f"a: {part}\n"} | options if parts else options
        arguments = (tmp_path, own, before != "no links", together, told)
        processes.append(context.Process(target=_enter_each, args=arguments))
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    reports = [told.get() for _ in processes]
    assert not [report for report in reports if isinstance(report, str)]
    assert [sum(times) for times in zip(*reports, strict=True)] == [held] * ROUNDS
    for out in tmp_path.iterdir():
        assert {path.name for path in out.iterdir()} <= {"config.yaml", "old"}


def _enter_each(root, options, has_links, together, told):
    """Tell in which folders this process held the run, or the error that nobody expects."""
    if not has_links:
        os.link = _no_link
    held = []
    try:
        for number in range(ROUNDS):
            together.wait(HANG_S)
            try:
                with open_run(root / str(number), **options) as out:
                    together.wait(HANG_S)
                    assert (out / "config.yaml").read_text() == options["config_yaml"]
                    held.append(True)
            except (OutputExistsError, ConfigError):
                held.append(False)
                together.wait(HANG_S)
    except BaseException as error:
        together.abort()
        told.put(repr(error))
    else:
        told.put(held)


def test_the_number_of_a_dead_process_may_belong_to_another_by_now(tmp_path):
    """As after a restart of a container, where every run has the same number."""
    out = tmp_path / "run"
    with open_run(out, config_yaml="a: 1\n"):
        lock = json.loads((out / ".lock").read_text())
    if lock["started"] is None:
        pytest.skip("this system does not tell when a process started")
    (out / ".lock").write_text(json.dumps(lock | {"started": lock["started"] - 1}))
    with open_run(out, config_yaml="a: 1\n", resume=True):
        assert json.loads((out / ".lock").read_text()) == lock


def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path):
    out = tmp_path / "run"
    with open_run(out, config_yaml="a: 1\n"):
        pass
    with atomic_path(out / "qc" / "sheet.png") as temporary:
        temporary.write_bytes(b"half")
        litter = temporary.with_name(temporary.name + "x")
        litter.write_bytes(b"half")
    with open_run(out, config_yaml="a: 1\n", resume=True):
        pass
    assert {path.name for path in out.rglob("*")} == {"config.yaml", "qc", "sheet.png"}


def test_parts_of_a_run_live_beside_each_other_and_beside_no_whole_run(tmp_path):
    out, yaml = tmp_path / "run", "a: 1\n"
    with open_run(out, config_yaml=yaml, part="1"), open_run(out, config_yaml=yaml, part="2"):
        for options in ({"part": "2"}, {"resume": True}, {"overwrite": True}):
            with (
                pytest.raises(OutputExistsError, match="Another run"),
                open_run(out, config_yaml=yaml, **options),
            ):
                pass
    with (
        open_run(out, config_yaml=yaml, resume=True),
        pytest.raises(OutputExistsError, match="Another run"),
        open_run(out, config_yaml=yaml, part="1"),
    ):
        pass
    assert [path.name for path in out.iterdir()] == ["config.yaml"]


def test_parts_may_begin_at_the_same_moment(tmp_path):
    """The first has its lock and is about to write config.yaml when the second looks."""
    out = tmp_path / "run"
    with open_run(out, config_yaml="seed: 3\n", part="1"):
        (out / "config.yaml").rename(out / ".unfinished-config.yaml")
        with open_run(out, config_yaml="seed: 3\n", part="2"):
            assert (out / "config.yaml").read_text() == "seed: 3\n"
    assert sorted(path.name for path in out.iterdir()) == [".unfinished-config.yaml", "config.yaml"]


def test_a_part_of_another_configuration_is_refused_with_the_difference(tmp_path):
    with open_run(tmp_path / "run", config_yaml="train:\n  lr: 0.1\n", part="1"):
        pass
    with (
        pytest.raises(ConfigError, match=r"train\.lr: 0\.1 -> 0\.2; seed: absent -> 3"),
        open_run(tmp_path / "run", config_yaml="train:\n  lr: 0.2\nseed: 3\n", part="2"),
    ):
        pass
