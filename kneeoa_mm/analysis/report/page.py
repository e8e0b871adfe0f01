"""Runs to one self-contained HTML page (``kneeoa-mm report``).

The page holds its pictures, needs no network and runs no script. All text that comes from a run is
escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import jinja2

from kneeoa_mm import __version__
from kneeoa_mm.analysis.evaluation import METRICS_FILE
from kneeoa_mm.analysis.report_data import (
    cohort_section,
    preprocess_section,
    saliency_section,
    training_section,
)
from kneeoa_mm.analysis.report_parts import Section
from kneeoa_mm.analysis.report_results import (
    COMPARE_FILE,
    comparison_section,
    evaluation_section,
    survival_section,
)
from kneeoa_mm.analysis.survival import SURVIVAL_FILE
from kneeoa_mm.errors import InputError, OutputExistsError
from kneeoa_mm.records import StageResult
from kneeoa_mm.run_folder import CONFIG_FILE, write_text

TITLE = "Knee osteoarthritis analysis"
REPORT_FILE = "report.html"
_TEMPLATE = "report.html.j2"
_MAX_DEPTH = 3
_GENERAL_LIMITS = (
    "For research only. This is not a medical device, and nothing here may guide the care of a "
    "patient.",
    "Intervals speak of the sampling of persons like these. They do not cover other hospitals, "
    "machines or populations, nor the chance in training.",
)


class Kind(NamedTuple):
    """A kind of run.

    Attributes:
        command: The command that makes it.
        files: A folder that has all of these is one.
        read: Makes its section from the folder and its name.
    """

    command: str
    files: tuple[str, ...]
    read: Callable[[Path, str], Section]


KINDS = (
    Kind("cohort", ("cohort.parquet",), cohort_section),
    Kind("preprocess", ("knees.parquet", "rejects.csv"), preprocess_section),
    Kind("pretrain-kl or train-jsl", ("history.csv", "members"), training_section),
    Kind("compare", (COMPARE_FILE,), comparison_section),
    Kind("evaluate", (METRICS_FILE,), evaluation_section),
    Kind("survival", (SURVIVAL_FILE,), survival_section),
    Kind("explain", ("saliency.csv",), saliency_section),
)
"""In the order of the report."""


def report(
    runs: Sequence[Path], out: Path, *, title: str = TITLE, overwrite: bool = False
) -> StageResult:
    """Gather runs into one page.

    Args:
        runs: Folders of runs, or folders that hold them, at most three levels down.
        out: The page, or a folder for ``report.html``.
        title: Its heading.
        overwrite: Replace ``out``.

    Raises:
        InputError: A folder is absent or holds no run, or a run's files are damaged.
        OutputExistsError: ``out`` exists.
    """
    page = out / REPORT_FILE if out.is_dir() or not out.suffix else out
    found = [each for run in runs for each in _runs_in(run)]
    if page.exists() and not overwrite:
        raise OutputExistsError("The report exists.", where=page, fix="add --overwrite")
    sections = [
        section
        for kind in KINDS
        for section in sorted(
            (_read(kind, folder, name) for folder, name in _folders(found, kind)),
            key=lambda section: section.title,
        )
    ]
    absent = [kind.command for kind in KINDS if kind not in {k for k, _, _ in found}]
    write_text(page, render(sections, title=title, absent=absent))
    return StageResult(
        command="report",
        out=page,
        outputs={"report": page},
        counts={"sections": len(sections)},
        figures={
            tile.label: f"{tile.value} ({tile.detail})" for s in sections for tile in s.headline
        },
        notes=tuple(f"Not in the report: {command}." for command in absent),
    )


def _folders(found: Sequence[tuple[Kind, Path, str]], kind: Kind) -> list[tuple[Path, str]]:
    """Folders of one kind with their names; a run that was given twice counts once."""
    return list({folder: (folder, name) for k, folder, name in found if k is kind}.values())


def _runs_in(run: Path) -> list[tuple[Kind, Path, str]]:
    if not run.is_dir():
        raise InputError(
            "There is no such run.",
            expected="a folder that a kneeoa-mm command wrote",
            found="a file" if run.exists() else "nothing",
            where=run,
        )
    found = list(_walk(run, run.resolve().name, depth=0))
    if not found:
        raise InputError(
            "The folder holds nothing that a report can show.",
            expected="; ".join(f"{' and '.join(k.files)} of {k.command}" for k in KINDS),
            where=run,
        )
    return found


def _walk(folder: Path, name: str, *, depth: int) -> Iterator[tuple[Kind, Path, str]]:
    own = [k for k in KINDS if all((folder / file).exists() for file in k.files)]
    yield from ((kind, folder.resolve(), name) for kind in own)
    if own or depth == _MAX_DEPTH:
        return
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            yield from _walk(child, f"{name}/{child.name}", depth=depth + 1)


def _read(kind: Kind, folder: Path, name: str) -> Section:
    try:
        section = kind.read(folder, name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"The files of this {kind.command} run are damaged, or another version wrote them.",
            found=f"{type(error).__name__}: {error}",
            where=folder,
            fix=f"run {kind.command} again",
        ) from error
    config = folder / CONFIG_FILE
    if config.is_file():
        section.config = config.read_text(encoding="utf-8").strip()
    return section


def render(sections: Sequence[Section], *, title: str, absent: Sequence[str]) -> str:
    """The page as HTML, with every text escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    limits = [*_GENERAL_LIMITS, *(limit for section in sections for limit in section.limits)]
    return environment.get_template(_TEMPLATE).render(
        title=title,
        sections=sections,
        headline=[tile for section in sections for tile in section.headline],
        limits=list(dict.fromkeys(limits)),
        absent=absent,
        made=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        version=__version__,
    )
