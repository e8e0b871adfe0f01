"""Locks of output folders: one run at a time, and none waits for the dead.

Among processes that begin at the same moment one wins, on whatever machine of a shared folder.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

from kneeoa_mm.atomic_files import write_new
from kneeoa_mm.errors import InputError, OutputExistsError

LOCK_FILE = ".lock"

_TRIES = 10
_WRITTEN_WITHIN_S = 60.0
"""A lock that is still empty after so long was left by a power cut, not by a run that begins."""


def take_lock(lock: Path) -> Path:
    """Take a lock for this process and return it.

    Raises:
        OutputExistsError: A run that may be alive has it.
        InputError: The folder cannot be written into.
    """
    owner = json.dumps(_this_process())
    for _ in range(_TRIES):
        try:
            write_new(lock, owner)
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


def refuse_locks(out: Path, *, beside: Path) -> None:
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
