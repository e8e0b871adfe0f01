"""A log of every look at knees that were held out, since each look wears them out.

Whoever looks, changes something and looks again has chosen on the held-out set, and its figures
flatter (Dwork et al. 2015, Science 349:636). The log stands beside the run, not in it, so that
``--overwrite`` of the run leaves it alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from kneeoa_mm import __version__
from kneeoa_mm.errors import InputError
from kneeoa_mm.folds import TEST, in_test_part
from kneeoa_mm.run_folder import CONFIG_FILE

SUFFIX = ".looks.jsonl"
_OF_THE_SPLIT = f"split {TEST}"


def log_beside(predictions: Path) -> Path:
    """Where looks at some predictions are logged: beside their run, or else beside their file.

    Example:
        >>> log_beside(Path("graded/predictions.csv")).as_posix()
        'graded/predictions.looks.jsonl'
    """
    folder = predictions.parent
    if (folder / CONFIG_FILE).is_file():
        return folder.resolve().with_name(folder.resolve().name + SUFFIX)
    return predictions.with_suffix(SUFFIX)


def held_out_knees(table: pd.DataFrame) -> list[str]:
    """``knee_id`` of the rows that ``split`` puts into the part that was held out, by any name."""
    if "split" not in table:
        return []
    return sorted(table.loc[in_test_part(table["split"]), "knee_id"].astype(str))


def log_look(
    log: Path,
    *,
    command: str,
    run: str,
    predictions_sha256: str,
    knees: Iterable[str],
    metrics: Iterable[str],
    held_out: str = _OF_THE_SPLIT,
) -> dict[str, Any] | None:
    """Add a line to a log, and count the looks so far.

    Args:
        log: The log, one JSON document a line.
        command: What looked.
        run: Name of the run or file of the predictions.
        predictions_sha256: Of their table.
        knees: Held-out knees that were looked at; without any, nothing is logged.
        metrics: What was computed of them.
        held_out: What makes them held out.

    Returns:
        ``count`` of looks, this one included, how many different ``predictions`` they were of,
        ``knees``, ``held_out``, name of the ``log``, and ``since`` when; None without held-out
        knees.

    Raises:
        InputError: The log cannot be read or written; a look that leaves no trace is refused.
    """
    looked_at = sorted(knees)
    if not looked_at:
        return None
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "run": run,
        "predictions_sha256": predictions_sha256,
        "held_out": held_out,
        "knees": len(looked_at),
        "knees_sha256": hashlib.sha256("\n".join(looked_at).encode()).hexdigest(),
        "metrics": sorted(set(metrics)),
        "package_version": __version__,
    }
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        # appended in one write, so that two processes do not mix their lines
        with log.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(json.dumps(line) + "\n")
        looks = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()]
        return {
            "count": len(looks),
            "predictions": len({look["predictions_sha256"] for look in looks}),
            "knees": len(looked_at),
            "held_out": held_out,
            "log": log.name,
            "since": looks[0]["time"],
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "A look at held-out knees could not be logged.",
            expected="a log that can be read and written, one JSON document a line",
            found=str(error),
            where=log,
            fix="copy the predictions to a folder of your own, or mend the log",
        ) from error


def notes_of(looks: dict[str, Any] | None) -> list[str]:
    """What a reader must know of the looks."""
    if looks is None:
        return []
    times = "the first look" if looks["count"] == 1 else f"look {looks['count']}"
    return [
        f"This is {times} at held-out knees ({looks['held_out']}) that {looks['log']} knows of, "
        f"by {looks['predictions']} different table{'s' if looks['predictions'] > 1 else ''} of "
        "predictions."
    ]
