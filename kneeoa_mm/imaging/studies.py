"""Which files under a folder are films."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kneeoa_mm.errors import InputError
from kneeoa_mm.imaging.dicom import DICOM_SUFFIXES, is_bare, is_dicom
from kneeoa_mm.imaging.journal import is_output
from kneeoa_mm.imaging.pictures import PICTURE_SUFFIXES, is_picture

_FILM_SUFFIXES = DICOM_SUFFIXES | PICTURE_SUFFIXES


@dataclass(frozen=True)
class Studies:
    """What a folder of studies holds.

    Attributes:
        root: The folder, absolute.
        sources: Paths of the films relative to it, with ``/``, in order.
        sizes: Bytes of each film.
        modified_ns: When the file of each was last written.
        others: Files that are no films.
        links: Links that lead out of the folder, to a folder, or nowhere, and were not followed.
    """

    root: Path
    sources: tuple[str, ...]
    sizes: tuple[int, ...]
    modified_ns: tuple[int, ...]
    others: int
    links: int


def find_films(studies: Path, *, out: Path | None = None) -> Studies:
    """Find the films: files that are DICOM or a picture, or have the suffix of one.

    A file that cannot be read may be one, and so becomes a reject that bears its name.
    Hidden files and folders are left alone, and so are outputs of ``preprocess`` that stand among
    the studies. A link is followed only to a file of this folder that is not found by itself, as
    git-annex has them.

    Args:
        studies: A folder, searched with its subfolders, or one film.
        out: Output directory of this run, which is never searched.

    Raises:
        InputError: There is no film, or a folder cannot be listed.
    """
    if studies.is_file():
        film = studies.resolve()
        return _studies(film.parent, {film.name: film.stat()}, 0, 0)
    if not studies.is_dir():
        raise _no_films(studies, "no such file or folder")
    root = studies.resolve()
    found: dict[str, os.stat_result] = {}
    linked: list[Path] = []
    others = links = 0
    for path in _files(root, None if out is None else out.resolve()):
        if path.is_symlink():
            if _leads_inside(path, root):
                linked.append(path)
            else:
                links += 1
        elif _is_film(path):
            found[path.relative_to(root).as_posix()] = path.stat()
        else:
            others += 1
    for path in linked:
        if path.resolve().relative_to(root).as_posix() not in found and _is_film(path):
            found[path.relative_to(root).as_posix()] = path.stat()
    if not found:
        kinds = [f"{others} other files" if others else "no files"]
        kinds += [f"{links} links that lead elsewhere"] if links else []
        raise _no_films(studies, " and ".join(kinds))
    return _studies(root, found, others, links)


def _studies(root: Path, found: dict[str, os.stat_result], others: int, links: int) -> Studies:
    sources = tuple(sorted(found))
    sizes = tuple(found[source].st_size for source in sources)
    times = tuple(found[source].st_mtime_ns for source in sources)
    return Studies(root, sources, sizes, times, others, links)


def holds_dicom(studies: Path) -> bool:
    """Whether a film in DICOM lies in a folder or below, as :func:`find_films` would find it."""
    root = studies.resolve()
    return any(
        path.suffix.lower() not in PICTURE_SUFFIXES
        and (not path.is_symlink() or _leads_inside(path, root))
        and _is_film(path)
        and (path.suffix.lower() in DICOM_SUFFIXES or _may_be(is_dicom, path))
        for path in _files(root, None)
    )


def _leads_inside(link: Path, root: Path) -> bool:
    return link.is_file() and link.resolve().is_relative_to(root)


def _files(root: Path, out: Path | None) -> Iterator[Path]:
    """Files, and links to anything, below ``root``."""
    unread: list[OSError] = []
    for name, folders, files in os.walk(root, onerror=unread.append):
        folder = Path(name)
        if not os.access(folder, os.X_OK):
            # its files have names, and nothing else can be learnt of them
            unread.append(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
            folders.clear()
            continue
        below = [folder / each for each in sorted(folders) if not each.startswith(".")]
        yield from (path for path in below if path.is_symlink())
        folders[:] = [path.name for path in below if path != out and not is_output(path)]
        yield from (folder / each for each in files)
    if unread:
        raise InputError(
            "Some folders of the studies cannot be listed.",
            found=f"{len(unread)} folders ({unread[0].strerror})",
            where=root,
            fix=f"make them readable; `find {root} -type d ! -readable` shows them",
        )


def _is_film(path: Path) -> bool:
    # reading a pipe would wait for ever
    if path.name.startswith(".") or not path.is_file():
        return False
    suffix = path.suffix.lower()
    if suffix in _FILM_SUFFIXES or _may_be(is_dicom, path):
        return True
    # a text may start as a BMP does, so only a file without a suffix is judged by so short a start;
    # a number is none, but the end of a UID
    is_named = bool(suffix.strip(".0123456789"))
    return not is_named and (_may_be(is_bare, path) or _may_be(is_picture, path))


def _may_be(kind: Callable[[Path], bool], path: Path) -> bool:
    try:
        return kind(path)
    except OSError:
        return True


def _no_films(studies: Path, found: str) -> InputError:
    return InputError(
        "There are no films to preprocess.",
        expected="DICOM files (with any suffix), or PNG, JPEG or TIFF, in this folder or below",
        found=found,
        where=studies,
    )
