"""Output directories: one run each, locked, written atomically, never overwritten by accident."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from kneeoa_mm.errors import ConfigError, InputError, OutputExistsError

CONFIG_FILE = "config.yaml"
LOCK_FILE = ".lock"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it onto ``path`` on success.

    A reader sees the old file or the whole new one; after an error the old one stays.

    Args:
        path: Final place of the file; missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        _flush_to_disk(temporary)
        # mkstemp makes private files; outputs get what the umask of the user says
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


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
    return write_text(path, json.dumps(document, indent=2, allow_nan=False, default=str) + "\n")


@contextmanager
def open_run(
    out: Path, *, config_yaml: str | None = None, overwrite: bool = False, resume: bool = False
) -> Iterator[Path]:
    """Claim ``out`` for one run, and hold its lock until the run ends.

    Args:
        out: The output directory.
        config_yaml: The resolved configuration, written to ``config.yaml``; a resumed run must
            have the same one.
        overwrite: Delete what an earlier run left there. Only a folder that a run of this package
            wrote (it has a ``config.yaml``) is deleted.
        resume: Go on with the interrupted run in ``out``.

    Yields:
        ``out``, which exists and is locked.

    Raises:
        OutputExistsError: ``out`` holds something else, or another run is writing there.
        ConfigError: ``resume`` with a changed configuration.
    """
    refuse_taken(out, config_yaml, overwrite=overwrite, resume=resume)
    if overwrite and out.exists():
        _refuse_lock(out / LOCK_FILE)
        shutil.rmtree(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "The output directory cannot be made.", found=error.strerror or "", where=out
        ) from error
    lock = _take_lock(out)
    try:
        write_text(out / CONFIG_FILE, config_yaml or "{}\n")
        yield out
    finally:
        lock.unlink(missing_ok=True)


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
    if not out.exists() or not any(out.iterdir()):
        return
    is_run = (out / CONFIG_FILE).is_file()
    if resume and is_run:
        before = (out / CONFIG_FILE).read_text(encoding="utf-8")
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


def _difference(before: str, now: str) -> str:
    old, new = before.splitlines(), now.splitlines()
    gone = [f"was {line.strip()}" for line in old if line not in new]
    come = [f"now {line.strip()}" for line in new if line not in old]
    return "; ".join(gone + come)


def _take_lock(out: Path) -> Path:
    lock = out / LOCK_FILE
    owner = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    for _ in range(2):
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            _refuse_lock(lock)
            lock.unlink(missing_ok=True)
            continue
        with os.fdopen(descriptor, "w") as stream:
            stream.write(owner)
        return lock
    _locked(lock, owner)


def _refuse_lock(lock: Path) -> None:
    """Raise unless the lock is absent or its owner, a process of this machine, is dead."""
    if not lock.exists():
        return
    try:
        owner = json.loads(lock.read_text())
        pid, host = int(owner["pid"]), str(owner["host"])
    except (ValueError, KeyError, OSError):
        return
    if host != socket.gethostname() or _is_alive(pid):
        _locked(lock, f"process {pid} on {host}")


def _locked(lock: Path, owner: str) -> NoReturn:
    raise OutputExistsError(
        "Another run is writing into this directory.",
        found=owner,
        where=lock.parent,
        fix=f"wait for it, or delete {lock.name} there if that run is dead",
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
