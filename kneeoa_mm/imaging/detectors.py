"""Which detector a configuration names."""

from __future__ import annotations

from pathlib import Path

from kneeoa_mm.config import PreprocessConfig
from kneeoa_mm.imaging import yolo
from kneeoa_mm.imaging.detector import JointDetector
from kneeoa_mm.imaging.profile import ProfileDetector


def resolve_detector(config: PreprocessConfig) -> PreprocessConfig:
    """Settle ``detector: auto``: YOLO where the extra is installed, else the profile.

    It is settled once, before the work starts, and stands in the run's configuration.
    """
    if config.detector != "auto":
        return config
    return config.model_copy(update={"detector": "yolo" if yolo.is_installed() else "profile"})


def make_detector(config: PreprocessConfig) -> JointDetector:
    """The detector that the configuration names.

    Raises:
        MissingExtraError: It is a YOLO network and ultralytics is not installed.
        ModelFolderError: It is a folder that holds no detector.
    """
    name = resolve_detector(config).detector
    if name == "profile":
        return ProfileDetector(config.min_detector_score)
    folder = yolo.SHIPPED_DETECTOR if name == "yolo" else Path(name)
    return yolo.YoloDetector(folder, config.min_detector_score)
