"""Prepared images in a file that is mapped into memory, decoded once for a run of many processes.

A run of many members needs its images at many sizes, which together may not fit in memory; a mapped
file needs no more of it than what the system can spare, and survives an interruption.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kneeoa_mm import __version__
from kneeoa_mm.atomic_files import atomic_path, write_json
from kneeoa_mm.errors import KneeOAError
from kneeoa_mm.learning.dataset import LoadedImages, load_images
from kneeoa_mm.learning.framing import Framing
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.records import Reject


def cached_images(
    knees: pd.DataFrame, contract: Preprocessing, folder: Path
) -> tuple[LoadedImages, Path]:
    """Prepared images out of their file in ``folder``, which is written where it is not there yet.

    Args:
        knees: Rows of ``sources.read_knees``.
        contract: The model's preprocessing.
        folder: Where the file is, or goes.

    Returns:
        The images, mapped, and their file.

    Raises:
        KneeOAError: There is not enough room on the disk.
    """
    path = folder / f"images-{_digest(knees, contract)}.npy"
    beside = path.with_suffix(".json")
    if not path.is_file():
        shape = (len(knees), contract.image_size_px, contract.image_size_px)
        with atomic_path(path) as temporary:
            pixels = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
            _take_room(temporary)
            loaded = load_images(knees, contract, pixels)
            pixels.flush()
            # before the images get their name: where they are, all is there
            rejects = [asdict(reject) for reject in loaded.rejects]
            write_json(beside, {"framing": loaded.framing, "rejects": rejects})
    known = json.loads(beside.read_text(encoding="utf-8"))
    framing = tuple(name and Framing(name) for name in known["framing"])
    refused = tuple(Reject(**reject) for reject in known["rejects"])
    return LoadedImages(map_images(path).numpy(), framing, refused), path


def _take_room(file: Path) -> None:
    """Take a file's room on the disk: where a mapped file finds none later, its process dies."""
    needed, free = file.stat().st_size, shutil.disk_usage(file.parent).free
    if free < needed or not _is_allocated(file, needed):
        raise KneeOAError(
            "There is not enough room on the disk for the prepared images.",
            expected=f"{needed / 1e9:.3g} GB",
            found=f"{free / 1e9:.3g} GB free",
            where=file.parent,
            fix="make room, or name another --out",
        )


def _is_allocated(file: Path, size: int) -> bool:
    """Whether there is room by the word of the system, which may grant less than is free."""
    if not hasattr(os, "posix_fallocate"):
        return True
    try:
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, size)
    except OSError as error:
        # file systems that cannot say so beforehand fail otherwise
        return error.errno not in {errno.ENOSPC, errno.EDQUOT}
    return True


def map_images(path: Path) -> Tensor:
    """Images (n, S, S) out of a file that ``cached_images`` wrote; what changes them stays here."""
    # torch asks for arrays that can be written to; with "c" no change reaches the file
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _digest(knees: pd.DataFrame, contract: Preprocessing) -> str:
    """Changes with whatever the prepared images depend on."""
    columns = knees["image_path"], knees["mirror"], knees["field_of_view_plateau_widths"]
    rows = [
        [str(path), *file_version(Path(path)), bool(mirror), float(field_of_view)]
        for path, mirror, field_of_view in zip(*columns, strict=True)
    ]
    described = json.dumps([__version__, contract.model_dump(mode="json"), rows])
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def file_version(path: Path) -> tuple[int, int]:
    """What changes with a file: size in bytes and time of change in ns; zeros without a file."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
