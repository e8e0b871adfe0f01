"""Runs to one self-contained HTML page, and a folder of its tables and figures.

The page holds its pictures, needs no network and runs no script. All text that comes from a run is
escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import jinja2

from kneeoa_mm import __version__
from kneeoa_mm.analysis.agreement import AGREEMENT_FILE
from kneeoa_mm.analysis.evaluation import METRICS_FILE
from kneeoa_mm.analysis.report.agreement import agreement_section
from kneeoa_mm.analysis.report.beside import folder_beside, write_beside
from kneeoa_mm.analysis.report.checklists import Checklist, filled_checklists
from kneeoa_mm.analysis.report.cohort import cohort_section
from kneeoa_mm.analysis.report.comparison import COMPARE_FILE, comparison_section
from kneeoa_mm.analysis.report.evaluation import evaluation_section
from kneeoa_mm.analysis.report.films import films_section
from kneeoa_mm.analysis.report.not_computed import not_computed_section
from kneeoa_mm.analysis.report.parts import NOTHING, Section, Table
from kneeoa_mm.analysis.report.predictions import predictions_section
from kneeoa_mm.analysis.report.runs import Run, find_runs
from kneeoa_mm.analysis.report.saliency import saliency_section
from kneeoa_mm.analysis.report.survival import survival_section
from kneeoa_mm.analysis.report.training import training_section
from kneeoa_mm.analysis.results import NOT_COMPUTED_FILE
from kneeoa_mm.analysis.survival import SURVIVAL_FILE
from kneeoa_mm.atomic_files import write_text
from kneeoa_mm.errors import InputError, OutputExistsError
from kneeoa_mm.records import StageResult
from kneeoa_mm.run_folder import CONFIG_FILE

TITLE = "Knee osteoarthritis analysis"
REPORT_FILE = "report.html"
_TEMPLATE = "page.html.j2"
_PREDICT, _SKIPPED = "predict", "stages without a result"
_SHOWN_OF_HASH = 12
_SHA256 = re.compile(r"[._]sha256(?=$|\.)")
"""In the name of a hash: at its end, or before the names of several."""
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
        head: The heading of its part of the methods.
        files: A folder that has all of these is one; none for a table of predictions.
        read: Makes its section.
    """

    command: str
    head: str
    files: tuple[str, ...]
    read: Callable[[Run], Section]


KINDS = (
    Kind("cohort", "Participants", ("cohort.parquet",), cohort_section),
    Kind("preprocess", "Images", ("knees.parquet", "rejects.csv"), films_section),
    Kind("pretrain-kl or train-jsl", "Models", ("history.csv", "members"), training_section),
    Kind(_PREDICT, "Predictions", (), predictions_section),
    Kind("compare", "Comparison", (COMPARE_FILE,), comparison_section),
    Kind("evaluate", "Evaluation", (METRICS_FILE,), evaluation_section),
    Kind("survival", "Times to events", (SURVIVAL_FILE,), survival_section),
    Kind("agreement", "Readers", (AGREEMENT_FILE,), agreement_section),
    Kind("explain", "Explanation", ("saliency.csv",), saliency_section),
    Kind(_SKIPPED, "Not computed", (NOT_COMPUTED_FILE,), not_computed_section),
)
"""In the order of the report."""


def report(
    runs: Sequence[Path], out: Path, *, title: str = TITLE, overwrite: bool = False
) -> StageResult:
    """Gather runs into one page, and its tables and figures into a folder beside it.

    Args:
        runs: Folders of runs, or folders that hold them, at most three levels down, or tables that
            ``predict`` wrote.
        out: The page, or a folder for ``report.html``. ``report_files/`` goes beside it.
        title: Its heading.
        overwrite: Replace ``out`` and the folder of an earlier report.

    Raises:
        InputError: A path is absent or holds no run, or a run's files are damaged.
        OutputExistsError: ``out`` exists, or something else is in the way of its folder.
    """
    page = out / REPORT_FILE if out.is_dir() or not out.suffix else out
    found = find_runs(runs, {kind.command: kind.files for kind in KINDS}, predictions=_PREDICT)
    if page.exists() and not overwrite:
        raise OutputExistsError("The report exists.", where=page, fix="add --overwrite")
    made = [(kind, _read(kind, run)) for kind in KINDS for run in found[kind.command]]
    sections = [section for _, section in made]
    absent = [k.command for k in KINDS if not found[k.command] and k.command != _SKIPPED]
    limits = _limits(sections)
    checklists = filled_checklists(sections, limits)
    methods = _methods(made)
    overview = _overview(made)
    first = Section("report", "What was run", "", tables=[overview])
    files = write_beside(
        folder_beside(page),
        [first, *sections],
        checklists,
        methods,
        title=title,
        overwrite=overwrite,
    )
    # last, so that a page that is there has its folder
    text = render(
        [first, *sections],
        title=title,
        absent=absent,
        limits=limits,
        methods=methods,
        checklists=checklists,
        folder=folder_beside(page).name,
    )
    write_text(page, text)
    return StageResult(
        command="report",
        out=page,
        outputs={"report": page, **files},
        counts={"sections": len(sections)},
        figures={
            tile.label: f"{tile.value} ({tile.detail})" for s in sections for tile in s.headline
        },
        notes=tuple(f"Not in the report: {command}." for command in absent),
    )


def _read(kind: Kind, run: Run) -> Section:
    try:
        section = kind.read(run)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"The files of this {kind.command} run are damaged, or another version wrote them.",
            found=f"{type(error).__name__}: {error}",
            where=run.path,
            fix=f"run {kind.command} again",
        ) from error
    config = run.path / CONFIG_FILE
    if config.is_file():
        section.config = config.read_text(encoding="utf-8", errors="replace").strip()
        if "seed" in (settings := run.config()):
            section.provenance.setdefault("seed", str(settings["seed"]))
    return section


def _limits(sections: Sequence[Section]) -> list[str]:
    own = (limit for section in sections for limit in section.limits)
    return list(dict.fromkeys([*_GENERAL_LIMITS, *own]))


def _methods(made: Sequence[tuple[Kind, Section]]) -> dict[str, str]:
    """Heading to paragraph; a sentence that several runs say stands once."""
    sentences: dict[str, dict[str, None]] = {}
    for kind, section in made:
        if section.methods:
            sentences.setdefault(kind.head, {}).update(dict.fromkeys(section.methods))
    return {head: " ".join(texts) for head, texts in sentences.items()} | {
        "Software": f"All was done with kneeoa-mm {__version__}."
    }


def _overview(made: Sequence[tuple[Kind, Section]]) -> Table:
    rows = []
    for kind, section in made:
        told = section.provenance
        hashes = [
            f"{_SHA256.sub('', name)} {value[:_SHOWN_OF_HASH]}"
            for name, value in told.items()
            if _SHA256.search(name)
        ]
        versions = (told[name] for name in told if name.endswith("package_version"))
        rows.append(
            [
                section.source,
                kind.command,
                next(versions, NOTHING),
                told.get("config_digest") or told.get("config") or NOTHING,
                told.get("seed", NOTHING),
                ", ".join(hashes) or NOTHING,
            ]
        )
    caption = (
        "Runs in this report, with the start of each SHA-256; full ones stand under Provenance."
    )
    columns = ["Run", "Command", "Version", "Settings", "Seed", "Data and results"]
    return Table(caption, columns, rows)


def render(
    sections: Sequence[Section],
    *,
    title: str,
    absent: Sequence[str],
    limits: Sequence[str],
    methods: Mapping[str, str],
    checklists: Sequence[Checklist],
    folder: str,
) -> str:
    """The page as HTML, with every text escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values: Mapping[str, object] = {
        "title": title,
        "sections": sections,
        "headline": [tile for section in sections for tile in section.headline],
        "limits": limits,
        "methods": methods,
        "checklists": checklists,
        "absent": absent,
        "folder": folder,
        "nothing": NOTHING,
        "made": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        "version": __version__,
        # the package's own, not a run's
        "style": (Path(__file__).parent / "page.css").read_text(encoding="utf-8"),
    }
    return environment.get_template(_TEMPLATE).render(**values)
