"""Which detector a configuration names."""

from __future__ import annotations

from pathlib import Path

from kneeoa_mm.imaging import yolo
from kneeoa_mm.imaging.detector import JointDetector
from kneeoa_mm.imaging.profile import ProfileDetector
from kneeoa_mm.model_folder import DetectorCard, read_model
from kneeoa_mm.settings import PreprocessConfig


def resolve_detector(config: PreprocessConfig) -> PreprocessConfig:
    """Settle ``detector: auto``: YOLO where the extra is installed, else the profile.

    It is settled once, before the work starts, and stands in the run's configuration.
    """
    if config.detector != "auto":
        return config
    return config.model_copy(update={"detector": "yolo" if yolo.is_installed() else "profile"})


def fallback_notes(config: PreprocessConfig) -> tuple[str, ...]:
    """What a person should know where ``auto`` had to settle on the weaker detector."""
    if config.detector != "auto" or resolve_detector(config).detector != ProfileDetector.name:
        return ()
    return (
        "joints were found by the profile of grey, the weaker detector, since the extra `yolo` is "
        "not installed: pip install 'kneeoa-mm[yolo]'",
    )


def detector_name(config: PreprocessConfig) -> str:
    """What ``knees.parquet`` will call the detector; shows before the work that it is there.

    No framework is loaded.

    Raises:
        MissingExtraError: It is a YOLO network and ultralytics is not installed.
        ModelFolderError: It is a folder that holds no detector.
    """
    if config.detector == "profile":
        return ProfileDetector.name
    yolo.require()
    card, _ = read_model(_folder(config.detector), DetectorCard)
    return yolo.detector_name(card)


def with_absolute_path(config: PreprocessConfig) -> PreprocessConfig:
    """The same, for a process that runs in another directory."""
    if config.detector in {"auto", "profile", "yolo"}:
        return config
    return config.model_copy(update={"detector": str(Path(config.detector).resolve())})


def make_detector(config: PreprocessConfig) -> JointDetector:
    """The detector that the configuration names.

    Raises:
        MissingExtraError: It is a YOLO network and ultralytics is not installed.
        ModelFolderError: It is a folder that holds no detector.
    """
    name = resolve_detector(config).detector
    if name == "profile":
        return ProfileDetector(config.min_detector_score)
    return yolo.YoloDetector(_folder(name), config.min_detector_score)


def _folder(name: str) -> Path:
    return yolo.SHIPPED_DETECTOR if name == "yolo" else Path(name)
