"""Output directories: one run each, locked, written atomically, never overwritten by accident."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from kneeoa_mm.atomic_files import UNFINISHED, write_new
from kneeoa_mm.errors import ConfigError, InputError, OutputExistsError
from kneeoa_mm.run_lock import LOCK_FILE, refuse_locks, take_lock

CONFIG_FILE = "config.yaml"
_ABSENT = "absent"


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
    lock = take_lock(out / (LOCK_FILE if part is None else f"{LOCK_FILE}.{part}"))
    try:
        refuse_locks(out, beside=lock)
        # before the lock was taken, another run may have come and gone
        refuse_taken(out, config_yaml, overwrite=overwrite, resume=resume)
        if part is None:
            _clear(out, everything=overwrite)
        try:
            write_new(out / CONFIG_FILE, config_yaml or "{}\n")
        except FileExistsError:
            # that of the interrupted run, or of a part that began at the same moment
            refuse_taken(out, config_yaml, resume=resume)
        yield out
    finally:
        lock.unlink(missing_ok=True)


def _clear(out: Path, *, everything: bool) -> None:
    """Remove what killed processes were writing, or everything but the locks."""
    for litter in out.rglob(f"{UNFINISHED}*"):
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
    return path.name.startswith((LOCK_FILE, UNFINISHED))


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
