"""Options that several commands share, so that each is worded once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Device(StrEnum):
    """Where networks run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Form(StrEnum):
    """What a model is exported as."""

    ONNX = "onnx"
    SAFETENSORS = "safetensors"


class Engine(StrEnum):
    """What works through the films."""

    LOCAL = "local"
    RAY = "ray"


class Scenario(StrEnum):
    """What drives progression in the synthetic cohort."""

    STANDARD = "standard"
    NULL = "null"


class Films(StrEnum):
    """Whose films the synthetic cohort has."""

    ALL = "all"
    BASELINE = "baseline"


class TimeScale(StrEnum):
    """The time of regressions: since baseline, or age."""

    STUDY = "study"
    AGE = "age"


OutDir = Annotated[Path, typer.Option("--out", help="Folder to write; must be new or empty.")]
Recipe = Annotated[
    str | None, typer.Option("--config", help="YAML file, or the name of a shipped recipe.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one setting, such as train.lr=1e-4; may be repeated."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
DeviceOption = Annotated[Device, typer.Option(help="Where networks run.")]
EngineOption = Annotated[
    Engine,
    typer.Option(help="`ray`: a Ray cluster (RAY_ADDRESS, or one of this machine), jobs a task."),
]
Jobs = Annotated[int, typer.Option(min=1, help="Worker processes.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run there.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the resolved configuration and stop.")
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")]
Folds = Annotated[
    Path | None, typer.Option(help="Table of folds by subject, from `cohort` or an earlier run.")
]
CohortName = Annotated[
    str | None, typer.Option("--cohort", help="Shipped cohort (oai, most, ...) or cohort.yaml.")
]
Ids = Annotated[
    str | None,
    typer.Option(
        help="`keep` where ids are pseudonyms already, or the file of a key to hash with."
    ),
]
Source = Annotated[
    Path,
    typer.Argument(help="DICOM films, pictures of single knees, or a table of knees."),
]
ModelOption = Annotated[Path, typer.Option("--model", help="Run folder or model folder.")]
OptionalModel = Annotated[
    Path | None,
    typer.Option("--model", help="Run folder or model folder; without, the shipped graders."),
]
ClinicalTable = Annotated[
    Path | None,
    typer.Option("--clinical", help="Output of `cohort`, or a table by knee_id, for fused models."),
]
Thresholds = Annotated[
    list[float] | None,
    typer.Option(
        "--threshold", help="Risk at which decisions are judged; may be repeated. 0.1, 0.2 and 0.3."
    ),
]
Prespecified = Annotated[
    Path | None,
    typer.Option(help="YAML of what was decided beforehand; its hash goes into the results."),
]
