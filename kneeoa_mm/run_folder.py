"""Output directories: one run each, locked, written atomically, never overwritten by accident."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

import yaml

from kneeoa_mm.errors import ConfigError, InputError, OutputExistsError

CONFIG_FILE = "config.yaml"
LOCK_FILE = ".lock"

_UNFINISHED = ".unfinished-"
"""Prefix of a file that is being written; one that stays was left by a killed process."""
_STEM_KEPT = 40
_ABSENT = "absent"
_TRIES = 10
_WRITTEN_WITHIN_S = 60.0
"""A lock that is still empty after so long was left by a power cut, not by a run that begins."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it onto ``path`` on success.

    A reader sees the old file or the whole new one; after an error the old one stays.

    Args:
        path: Final place of the file; missing parent folders are made.
    """
    with _unfinished(path) as temporary:
        yield temporary
        _complete(temporary)
        temporary.replace(path)
        flush_names(path.parent)


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path``, which goes away unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        prefix=f"{_UNFINISHED}{path.stem[:_STEM_KEPT]}.", suffix=path.suffix, dir=path.parent
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _complete(temporary: Path) -> None:
    _flush_to_disk(temporary)
    # mkstemp makes private files; outputs get what the umask of the user says
    temporary.chmod(0o666 & ~_umask())


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def flush_names(folder: Path) -> None:
    """See new names of files in ``folder`` onto the disk, where the system knows how.

    A file that is safe under a name that is not would be gone after a power cut.
    """
    # Windows opens no folders, and some network file systems flush none
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text atomically with Unix line ends and return ``path``."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def write_json(path: Path, document: Any) -> Path:
    """Write ``document`` atomically as strict JSON (no NaN) and return ``path``."""
    return write_text(path, _as_json(document))


def _as_json(document: Any) -> str:
    return json.dumps(document, indent=2, allow_nan=False, default=str) + "\n"


def write_new_json(path: Path, document: Any) -> None:
    """Write ``document`` as :func:`write_json` does, where ``path`` is not there yet.

    Of several processes that do so at once, on whatever machine, one succeeds.

    Raises:
        FileExistsError: ``path`` is there.
    """
    _write_new(path, _as_json(document))


def _write_new(path: Path, text: str) -> None:
    with _unfinished(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        _complete(temporary)
        try:
            # unlike a rename, a link never replaces a file, and it shows the file when it is whole
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:
            # not every file system has links; without, the file is empty for a moment
            with path.open("x", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
        flush_names(path.parent)


@contextmanager
def open_run(
    out: Path,
    *,
    config_yaml: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    part: str | None = None,
) -> Iterator[Path]:
    """Claim ``out`` for one run, and hold its lock until the run ends.

    Args:
        out: The output directory.
        config_yaml: The resolved configuration, written to ``config.yaml``; a resumed run must
            have the same one.
        overwrite: Delete what an earlier run left there. Only a folder that a run of this package
            wrote (it has a ``config.yaml``) is deleted.
        resume: Go on with the interrupted run in ``out``.
        part: Name of one of several processes that share the run; each of them joins what the
            others began, beside them, and none runs beside one without a part.

    Yields:
        ``out``, which exists and is locked.

    Raises:
        OutputExistsError: ``out`` holds something else, or another run is writing there.
        ConfigError: ``resume`` with a changed configuration.
    """
    resume = resume or part is not None
    refuse_taken(out, config_yaml, overwrite=overwrite, resume=resume)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "The output directory cannot be made.", found=error.strerror or "", where=out
        ) from error
    lock = _take_lock(out / (LOCK_FILE if part is None else f"{LOCK_FILE}.{part}"))
    try:
        _refuse_locks(out, beside=lock)
        # before the lock was taken, another run may have come and gone
        refuse_taken(out, config_yaml, overwrite=overwrite, resume=resume)
        if part is None:
            _clear(out, everything=overwrite)
        try:
            _write_new(out / CONFIG_FILE, config_yaml or "{}\n")
        except FileExistsError:
            # that of the interrupted run, or of a part that began at the same moment
            refuse_taken(out, config_yaml, resume=resume)
        yield out
    finally:
        lock.unlink(missing_ok=True)


def _clear(out: Path, *, everything: bool) -> None:
    """Remove what killed processes were writing, or everything but the locks."""
    for litter in out.rglob(f"{_UNFINISHED}*"):
        litter.unlink(missing_ok=True)
    if everything:
        # what shows that a run wrote this folder goes last, or a killed one could not be repeated
        for path in sorted(out.iterdir(), key=lambda path: path.name == CONFIG_FILE):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif not _is_of_a_beginning(path):
                path.unlink(missing_ok=True)


def refuse_taken(
    out: Path,
    config_yaml: str | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> None:
    """Raise unless ``open_run`` could claim ``out``; for stages that read long before they write.

    Raises:
        OutputExistsError: ``out`` holds something else.
        ConfigError: ``resume`` with a changed configuration.
    """
    if out.is_file():
        raise OutputExistsError("The output must be a directory.", found="a file", where=out)
    # who comes in the moment in which another run begins finds its lock and no config.yaml yet
    if not out.exists() or all(_is_of_a_beginning(path) for path in out.iterdir()):
        return
    before = _config_of(out)
    is_run = before is not None
    if resume and before is not None:
        if config_yaml is not None and before != config_yaml:
            raise ConfigError(
                "The configuration changed since the interrupted run.",
                found=_difference(before, config_yaml),
                where=out / CONFIG_FILE,
                fix="resume with the old settings, or start anew with --overwrite",
            )
        return
    if overwrite and is_run:
        return
    raise OutputExistsError(
        "The output directory is not empty.",
        expected="a new or empty directory",
        found="an earlier run" if is_run else "files that no run of kneeoa-mm wrote",
        where=out,
        fix="name another --out, or add --overwrite (or --resume after an interruption)"
        if is_run
        else "name another --out",
    )


def refuse_own_inputs(out: Path, inputs: Iterable[Path]) -> None:
    """Raise where replacing ``out`` would delete what the run is to read.

    Raises:
        ConfigError: One of ``inputs`` is ``out``, or lies in it.
    """
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()) and path.exists():
            raise ConfigError(
                "--overwrite would delete what the run is to read.",
                found=f"{path}, which --out {out} holds",
                where="--overwrite",
                fix="name another --out",
            )


def _config_of(out: Path) -> str | None:
    """What a run wrote to ``config.yaml``; None where none did, or one is just replacing it."""
    path = out / CONFIG_FILE
    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    return None


def _is_of_a_beginning(path: Path) -> bool:
    return path.name.startswith((LOCK_FILE, _UNFINISHED))


def _difference(before: str, now: str) -> str:
    try:
        old, new = yaml.safe_load(before), yaml.safe_load(now)
    except yaml.YAMLError:
        return "an unreadable file"
    if not isinstance(old, dict) or not isinstance(new, dict):
        return "another file"
    return "; ".join(changes(old, new)) or "the order of its keys"


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two trees of settings, one text a key.

    Example:
        >>> changes({"seed": 1, "train": {"lr": 0.1}}, {"seed": 1, "train": {"lr": 0.2}})
        ['train.lr: 0.1 -> 0.2']
    """
    old, new = dict(_leaves(before)), dict(_leaves(now))
    return [
        f"{key}: {old.get(key, _ABSENT)} -> {new.get(key, _ABSENT)}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key, _ABSENT) != new.get(key, _ABSENT)
    ]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _take_lock(lock: Path) -> Path:
    owner = json.dumps(_this_process())
    for _ in range(_TRIES):
        try:
            _write_new(lock, owner)
        except (FileExistsError, FileNotFoundError):
            # the latter where the run that holds the lock took our half-made one for litter
            _clear_dead(lock)
        except OSError as error:
            raise InputError(
                "The output directory cannot be written into.",
                found=error.strerror or "",
                where=lock.parent,
            ) from error
        else:
            return lock
    _locked(lock, "runs that come and go")


def _refuse_locks(out: Path, *, beside: Path) -> None:
    """Raise where another run is alive in ``out``; parts of one run may live beside each other.

    Locks of dead ones go.
    """
    is_part = beside.name != LOCK_FILE
    for lock in [out / LOCK_FILE] if is_part else sorted(out.glob(f"{LOCK_FILE}*")):
        if lock != beside:
            _clear_dead(lock)


def _clear_dead(lock: Path) -> None:
    """Remove the lock of a dead process, if there is one; raise where its owner may be alive.

    Of two that find the same dead lock, the slower one could remove the new lock of the faster.
    So they take turns, and who had to wait looks whether it is still the same file.
    """
    try:
        # a network file system lets nobody take turns who may not write
        with lock.open("r+", encoding="utf-8") as stream:
            _take_turn(stream)
            if os.path.samestat(os.fstat(stream.fileno()), lock.stat()):
                _refuse_alive(lock, stream)
                lock.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        _locked(lock, f"a lock that cannot be taken over ({error.strerror})")


def _take_turn(stream: TextIO) -> None:
    """Wait until no other process of this machine, which alone sees its dead, does the same."""
    if sys.platform == "win32":
        return  # there, no owner is known to be dead
    import fcntl

    # where a file system has no such locks, nobody waits
    with suppress(OSError):
        fcntl.flock(stream, fcntl.LOCK_EX)


def _refuse_alive(lock: Path, stream: TextIO) -> None:
    """Raise unless the owner of the lock is a process of this machine, and dead."""
    try:
        owner = json.loads(stream.read())
        pid, host = int(owner["pid"]), str(owner["host"])
    except (ValueError, KeyError, TypeError):
        age_s = time.time() - os.fstat(stream.fileno()).st_mtime
        if age_s < _WRITTEN_WITHIN_S:
            _locked(lock, "a run that has just begun")
        return
    # another process may have the number of a dead one by now
    is_other = owner.get("started") not in {None, _started(pid)}
    if host != socket.gethostname() or (_is_alive(pid) and not is_other):
        _locked(lock, f"process {pid} on {host}")


def _locked(lock: Path, owner: str) -> NoReturn:
    raise OutputExistsError(
        "Another run is writing into this directory.",
        found=owner,
        where=lock.parent,
        fix=f"wait for it, or delete {lock.name} there if that run is dead",
    )


def _this_process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}


def _started(pid: int) -> int | None:
    """When a process of this machine started, in ticks since boot; None where unknown."""
    try:
        # the name of the program, in brackets, may hold anything (see proc(5))
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # there is no signal 0 there: it is Ctrl-C
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
