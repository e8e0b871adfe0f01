"""The folder beside the page: tables as CSV, figures as SVG and PNG, model cards, methods."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import yaml

from kneeoa_mm.analysis.report.checklists import Checklist
from kneeoa_mm.analysis.report.parts import NOTHING, Section, Table
from kneeoa_mm.analysis.results import write_csv
from kneeoa_mm.atomic_files import atomic_path, write_text
from kneeoa_mm.run_folder import open_run

_MAX_NAME = 60


def folder_beside(page: Path) -> Path:
    """Where the files of a page go: ``report_files`` for ``report.html``."""
    return page.with_name(f"{page.stem}_files")


def write_beside(
    folder: Path,
    sections: Sequence[Section],
    checklists: Sequence[Checklist],
    methods: Mapping[str, str],
    *,
    title: str,
    overwrite: bool,
) -> dict[str, Path]:
    """Write every table and figure of the page, numbered as in the page.

    Args:
        folder: Where to; replaced with ``overwrite`` if a report wrote it.
        sections: The page's.
        checklists: The page's.
        methods: Heading to paragraph.
        title: Of the page.
        overwrite: Replace an earlier folder.

    Returns:
        Role to path.

    Raises:
        OutputExistsError: The folder holds something else.
    """
    settings = yaml.safe_dump(
        {"title": title, "runs": [section.source for section in sections]}, allow_unicode=True
    )
    index: list[dict[str, str]] = []

    def note(label: str, path: Path, caption: str, source: str) -> None:
        file = path.relative_to(folder).as_posix()
        index.append({"label": label, "file": file, "caption": caption, "run": source})

    with open_run(folder, config_yaml=settings, overwrite=overwrite):
        tables = [(section, table) for section in sections for table in section.tables]
        for number, (section, table) in enumerate(tables, 1):
            path = folder / "tables" / f"{number:02d}-{section.kind}-{_stem(table.caption)}.csv"
            note(f"Table {number}", _write_table(table, path), table.caption, section.source)
        pictures = [(section, picture) for section in sections for picture in section.pictures]
        for number, (section, picture) in enumerate(pictures, 1):
            stem = f"{number:02d}-{section.kind}-{_stem(picture.name)}"
            for suffix, content in sorted(picture.files.items()):
                path = folder / "figures" / f"{stem}.{suffix}"
                with atomic_path(path) as temporary:
                    temporary.write_bytes(content)
                note(f"Figure {number}", path, picture.caption, section.source)
        for checklist in checklists:
            path = folder / "checklists" / f"{_stem(checklist.name)}.csv"
            note(checklist.name, _write_table(checklist.table(), path), checklist.source, "")
        cards = [(section, section.card) for section in sections if section.card is not None]
        for section, card in cards:
            path = folder / "model-cards" / f"{_stem(section.source)}.md"
            note("Model card", write_text(path, _markdown(card)), card.caption, section.source)
        text = "\n\n".join(f"{head}. {paragraph}" for head, paragraph in methods.items())
        note("Methods", write_text(folder / "methods.txt", text + "\n"), "A draft", "")
        write_csv(index, ("label", "file", "caption", "run"), folder / "index.csv")
    made = ("tables", "figures", "checklists", "model-cards", "methods.txt", "index.csv")
    return {Path(name).stem: folder / name for name in made if (folder / name).exists()}


def _stem(caption: str) -> str:
    """A caption as a file name.

    Example:
        >>> _stem("KL grade, by knee. 298 knees")
        'kl-grade-by-knee'
        >>> _stem("../<script>")
        'script'
    """
    first = re.split(r"[.:;](?:\s|$)", caption.strip("./ "), maxsplit=1)[0]
    return (
        re.sub(r"[^a-z0-9]+", "-", first.lower()).strip("-")[:_MAX_NAME].rstrip("-") or "untitled"
    )


def _write_table(table: Table, path: Path) -> Path:
    columns = [str(name) or "name" for name in table.columns]
    cells = [["" if cell == NOTHING else cell for cell in row] for row in table.rows]
    # columns may share a name, which a list of mappings could not hold
    unique = [
        f"{name} ({place})" if columns.index(name) < place else name
        for place, name in enumerate(columns)
    ]
    frame = pd.DataFrame(cells, columns=unique)
    return write_csv(frame.to_dict("records"), unique, path)


def _markdown(card: Table) -> str:
    lines = [f"# {_inline(card.caption.removesuffix('.'))}", ""]
    for name, text in card.rows:
        lines += [f"## {name}", "", _inline(text), ""]
    return "\n".join(lines)


def _inline(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text)
