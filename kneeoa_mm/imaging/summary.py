"""What a run of ``preprocess`` says in the morning."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kneeoa_mm.imaging.assembly import Whole
from kneeoa_mm.imaging.engine import Shard
from kneeoa_mm.imaging.exclusions import EXCLUDED_CODE
from kneeoa_mm.imaging.studies import Studies
from kneeoa_mm.imaging.worker import WORTH_ANOTHER_TRY
from kneeoa_mm.progress import duration
from kneeoa_mm.records import StageResult

_NOT_A_FILM = {"E_NOT_DICOM", "E_NOT_PICTURE"}


@dataclass(frozen=True)
class Done:
    """What this process did.

    Attributes:
        films: Processed now; others were done before.
        rejected: Of them, films that were not used, or one of whose knees was not.
        seconds: That it took.
    """

    films: int = 0
    rejected: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        rate = self.films / max(self.seconds, 1e-9)
        return f"{self.films} films in {duration(self.seconds)}, {rate:.2f} films/s"


def whole_result(
    out: Path,
    whole: Whole,
    found: Studies,
    done: Done,
    *,
    key_file: Path | None,
    notes: tuple[str, ...],
) -> StageResult:
    """The result of a run that put the whole together.

    Args:
        out: The output directory.
        whole: What was written.
        found: The films.
        done: What this process did.
        key_file: Of identifiers that were hashed with a key of our own.
        notes: Of the run, to stand before its own.
    """
    codes = Counter(reject.code for reject in whole.rejects)
    flags = Counter(flag for row in whole.rows for flag in row["qc_flags"].split(";") if flag)
    flagged = sum(bool(row["qc_flags"]) for row in whole.rows)
    outputs = dict(whole.outputs)
    told = [*notes]
    if done.films:
        told.append(str(done))
    if flagged:
        told.append(
            f"{flagged} of {len(whole.rows)} knees carry a QC flag: look at the review page, and "
            "take knees out with --resume --exclude FILE"
        )
    if again := sum(codes[code] for code in WORTH_ANOTHER_TRY):
        told.append(
            f"{again} films could not be read, took too long, killed their worker or lack a "
            "decoder: --resume tries them again"
        )
    if found.links:
        told.append(f"{found.links} links lead out of the folder of studies: not followed")
    if key_file is not None:
        outputs["key"] = key_file
        told.append("identifiers were hashed: pass the key file as --ids to `cohort`, and keep it")
    excluded = codes[EXCLUDED_CODE]
    return StageResult(
        "preprocess",
        out,
        outputs,
        counts={
            "films": len(found.sources),
            "knees": len(whole.rows),
            "rejects": len(whole.rejects) - excluded,
            "not_dicom": found.others + sum(codes[code] for code in _NOT_A_FILM),
            **({"excluded": excluded} if excluded else {}),
        },
        failed=whole.films_rejected,
        figures=_figures(rejects=codes, qc_flags=flags),
        notes=tuple(told),
        next_step=f"kneeoa-mm predict {out / 'knees.parquet'} --model MODEL --out FILE",
    )


def shard_result(out: Path, shard: Shard, done: Done) -> StageResult:
    """The result of a shard, which only the joined run lists by item."""
    return StageResult(
        "preprocess",
        out,
        counts={"films": done.films, "films_rejected": done.rejected},
        notes=(str(done),) if done.films else ("this shard was done already",),
        next_step="when all shards are done, join them: the same command with --resume in place of "
        f"--shard {shard.number}/{shard.of}",
    )


def _figures(**counts: Counter[str]) -> dict[str, Any]:
    """The counts that are not empty, the most frequent first."""
    return {title: dict(counter.most_common()) for title, counter in counts.items() if counter}
