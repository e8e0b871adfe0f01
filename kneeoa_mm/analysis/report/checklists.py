"""Reporting guidelines, filled in where the runs know the answer and marked where they do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from kneeoa_mm.analysis.report.parts import Section, Table

FROM_RUNS, IN_PART, AUTHOR = "from the runs", "in part", "author"
_FOLDER = Path(__file__).with_name("guidelines")
_FILES = ("tripod_ai.yaml", "claim.yaml", "probast_ai.yaml")
_COMMANDS = {
    "cohort": "cohort",
    "preprocess": "preprocess",
    "training": "pretrain-kl or train-jsl",
    "predict": "predict",
    "evaluation": "evaluate",
    "comparison": "compare",
    "survival": "survival",
    "saliency": "explain",
    "agreement": "agreement",
    "report": "report",
}


class Found(NamedTuple):
    """What runs say about an item, and where."""

    text: str
    where: str


@dataclass(frozen=True)
class Row:
    """One item of a guideline.

    Attributes:
        number: Its number there.
        part: The part of a paper, or the domain.
        asks: What it asks for, in our words.
        status: ``from the runs``, ``in part`` or ``author``.
        answer: Of a signalling question, where the runs support one.
        found: What they say.
        author: What is left to the author.
    """

    number: str
    part: str
    asks: str
    status: str
    answer: str
    found: tuple[Found, ...]
    author: str


@dataclass(frozen=True)
class Checklist:
    """A guideline, filled in.

    Attributes:
        name: Such as ``TRIPOD+AI``.
        what: What it is for.
        source: Where it was published.
        rows: Its items.
    """

    name: str
    what: str
    source: str
    rows: tuple[Row, ...]

    def count(self, status: str) -> int:
        """Items of a status."""
        return sum(row.status == status for row in self.rows)

    def table(self) -> Table:
        """For the file beside the page."""
        columns = ["Item", "Part", "Asks for", "Status", "Answer", "Found", "Where", "Author"]
        rows = [
            [
                *(row.number, row.part, row.asks, row.status, row.answer),
                " | ".join(found.text for found in row.found),
                " | ".join(found.where for found in row.found),
                row.author,
            ]
            for row in self.rows
        ]
        return Table(f"{self.name}: {self.what}", columns, rows)


def filled_checklists(sections: Sequence[Section], limits: Sequence[str]) -> list[Checklist]:
    """All guidelines, filled from what the sections tell."""
    facts: dict[str, dict[str, list[str]]] = {}
    for section in sections:
        for name, fact in section.facts.items():
            where = f"{section.source}/{fact.file}" if fact.file != section.source else fact.file
            facts.setdefault(name, {}).setdefault(fact.text, []).append(where)
    if limits:
        facts["report.limits"] = {"Limits of the methods, in this report": ["Limits"]}
    found = {
        name: [Found(text, ", ".join(dict.fromkeys(wheres))) for text, wheres in texts.items()]
        for name, texts in facts.items()
    }
    return [_filled(_FOLDER / file, found) for file in _FILES]


def _filled(path: Path, facts: Mapping[str, list[Found]]) -> Checklist:
    guideline = yaml.safe_load(path.read_text(encoding="utf-8"))
    rows = tuple(_row(item, facts) for item in guideline["items"])
    return Checklist(guideline["name"], guideline["what"], guideline["source"], rows)


def _row(item: Mapping[str, object], facts: Mapping[str, list[Found]]) -> Row:
    names = [str(name) for name in _list(item.get("facts"))]
    found = tuple(each for name in names for each in facts.get(name, ()))
    absent = [name for name in names if name not in facts]
    author = str(item.get("author", ""))
    is_known = bool(found) and not (absent and "answer" in item)
    if not found:
        status = AUTHOR
        author = author or (f"Or add a run of {_commands(absent)}" if absent else "To be written")
    else:
        status = IN_PART if author or not is_known else FROM_RUNS
        if not is_known:
            author = f"Judge; nothing was found of a run of {_commands(absent)}"
    answer = str(item.get("answer", "")) if is_known else ""
    return Row(
        str(item["number"]), str(item["part"]), str(item["asks"]), status, answer, found, author
    )


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _commands(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(_COMMANDS[name.partition(".")[0]] for name in names))
