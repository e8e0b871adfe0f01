"""The runs of a report: how they are found, and how their files are read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from kneeoa_mm.errors import InputError
from kneeoa_mm.records import Outcome
from kneeoa_mm.run_folder import CONFIG_FILE
from kneeoa_mm.schemas import COHORT, PREDICTIONS, PREDICTIONS_FILE, TableSchema
from kneeoa_mm.tables import read_table

_MAX_DEPTH = 3
_PREDICTION_SUFFIXES = {".csv", ".parquet"}


@dataclass(frozen=True)
class Run:
    """One run in the report.

    Attributes:
        path: Its folder, or the table that ``predict`` wrote.
        name: Path relative to what was given.
        beside: Paths of all runs of the report, in case one knows what another does not.
    """

    path: Path
    name: str
    beside: tuple[Path, ...] = ()

    def config(self) -> dict[str, Any]:
        """The resolved configuration; empty where the run has none that can be read."""
        path = self.path / CONFIG_FILE
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (yaml.YAMLError, OSError, UnicodeDecodeError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def judged_outcomes(self) -> list[Outcome]:
        """Outcomes that runs of the report judge, in the order of ``Outcome``."""
        found: set[str] = set()
        for folder in self.beside:
            for name in ("metrics.json", "compare.json", "survival.json"):
                if (folder / name).is_file():
                    document = read_document(folder / name)
                    found |= {str(document.get("outcome", "")), *document}
        return [outcome for outcome in Outcome if outcome in found]

    def predicted_outcomes(self) -> list[Outcome]:
        """Outcomes that tables of predictions in the report have a risk of."""
        names = {name for table in self._tables() for name in table}
        return [outcome for outcome in Outcome if f"{outcome}_prob" in names]

    def truth(self) -> pd.DataFrame:
        """Grades and outcomes of knees by ``knee_id``, from cohorts and predictions beside."""
        columns = ["kl_grade", *map(str, Outcome)]
        parts = [
            table.set_index("knee_id")[[name for name in columns if name in table]].astype("Int64")
            for table in self._tables()
        ]
        if not parts:
            return pd.DataFrame(columns=columns)
        # the first value that any of them has
        return pd.concat(parts).groupby(level=0).first().reindex(columns=columns)

    def _tables(self) -> Iterator[pd.DataFrame]:
        for path in self.beside:
            for file, schema in _tables_in(path):
                yield read_table(file, schema)


def _tables_in(path: Path) -> Iterator[tuple[Path, TableSchema]]:
    if path.is_file():
        yield path, PREDICTIONS
    elif (path / PREDICTIONS_FILE).is_file():
        yield path / PREDICTIONS_FILE, PREDICTIONS
    elif (path / "cohort.parquet").is_file():
        yield path / "cohort.parquet", COHORT


def is_prediction_table(path: Path) -> bool:
    """Whether a file is a table that ``predict`` wrote, by its suffix and its columns."""
    if not path.is_file() or path.suffix not in _PREDICTION_SUFFIXES:
        return False
    try:
        if path.suffix == ".csv":
            columns = pd.read_csv(path, nrows=0).columns
        else:
            columns = pd.read_parquet(path).columns
    except (ValueError, OSError):
        return False
    return {"knee_id", "status", "kl_prob_0"} <= set(columns)


def find_runs(
    given: Sequence[Path], kinds: Mapping[str, Sequence[str]], *, predictions: str
) -> dict[str, list[Run]]:
    """Runs by kind; one that was given twice counts once.

    Args:
        given: Folders of runs, or folders that hold them, at most three levels down, or tables of
            predictions.
        kinds: Kind to the files that a folder of that kind has.
        predictions: The kind of a table of predictions.

    Raises:
        InputError: A path is absent or holds no run.
    """
    found: dict[str, dict[Path, str]] = {kind: {} for kind in kinds}
    for path in given:
        runs = list(_runs_in(path, kinds, predictions))
        if not runs:
            raise InputError(
                "The folder holds nothing that a report can show."
                if path.is_dir()
                else "There is no such run.",
                expected="a folder that a kneeoa-mm command wrote, or a table of predict; "
                + "; ".join(f"{k}: {' and '.join(files)}" for k, files in kinds.items() if files),
                found="a folder" if path.is_dir() else "a file" if path.exists() else "nothing",
                where=path,
            )
        for kind, folder, name in runs:
            found[kind].setdefault(folder, name)
    beside = tuple(folder for runs in found.values() for folder in runs)
    return {
        kind: [Run(path, name, beside) for path, name in sorted(runs.items(), key=_name)]
        for kind, runs in found.items()
    }


def _name(item: tuple[Path, str]) -> str:
    return item[1]


def _runs_in(
    path: Path, kinds: Mapping[str, Sequence[str]], predictions: str
) -> Iterator[tuple[str, Path, str]]:
    if is_prediction_table(path):
        yield predictions, path.resolve(), path.name
    elif path.is_dir():
        yield from _walk(path, path.resolve().name, kinds, depth=0)


def _walk(
    folder: Path, name: str, kinds: Mapping[str, Sequence[str]], *, depth: int
) -> Iterator[tuple[str, Path, str]]:
    own = [
        kind for kind, files in kinds.items() if files and all((folder / f).exists() for f in files)
    ]
    yield from ((kind, folder.resolve(), name) for kind in own)
    if own or depth == _MAX_DEPTH:
        return
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            yield from _walk(child, f"{name}/{child.name}", kinds, depth=depth + 1)


def read_document(path: Path) -> dict[str, Any]:
    """A run's JSON document.

    Raises:
        InputError: The file is damaged.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("A result is damaged.", found=str(error), where=path) from error
    if not isinstance(document, dict):
        raise InputError("A result is damaged.", expected="a JSON object", where=path)
    return document


def read_csv(path: Path) -> pd.DataFrame:
    """A run's CSV as texts; an absent file, or one without rows, gives an empty table.

    Raises:
        InputError: The file is no CSV.
    """
    if not path.is_file() or not path.read_bytes().strip():
        return pd.DataFrame()
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise InputError("A table is damaged.", found=str(error), where=path) from error


def flat_provenance(document: Mapping[str, Any]) -> dict[str, str]:
    """Provenance as names and texts, nested ones joined by a dot."""
    flat: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": text for key, text in flat_provenance(value).items()}
        elif value not in ("", None):
            flat[name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat
