"""Judge joint detectors on labelled films that they never saw.

    python benchmarks/detector.py FILMS --detector yolo --detector profile --out OUT.json

FILMS is a folder made by ``detector_films.py``. For each detector: mAP50 (one class; area under
precision against recall, precision made to fall, over the joints that it chooses at any score), the
share of joints whose middle is within 5 mm, 10 mm and 5 % of the box, places that are no joint, and
the films without a knee on which a joint was reported. The detectors are told the films'
millimetres, as ``preprocess`` is where a header has them, and once more not.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from kneeoa_mm.imaging.detector import JointDetector
from kneeoa_mm.imaging.detectors import make_detector
from kneeoa_mm.imaging.radiograph import Radiograph
from kneeoa_mm.records import PixelSpacing
from kneeoa_mm.settings import PreprocessConfig

EDGES = ["left_px", "top_px", "right_px", "bottom_px"]


@dataclass
class Tally:
    """What a detector did on the films so far."""

    min_score: float
    joints: int = 0
    empty_films: int = 0
    alarms_on_empty: int = 0
    reported: int = 0
    distances_mm: list[float] = field(default_factory=list)
    distances_percent: list[float] = field(default_factory=list)
    width_errors_percent: list[float] = field(default_factory=list)
    scored: list[tuple[float, bool]] = field(default_factory=list)

    def add(self, truth: np.ndarray, spacing_mm: float | None, found: list[Any]) -> None:
        """Compare one film's joints, (n, 4), with what was found at any score."""
        self.joints += len(truth)
        free = list(range(len(truth)))
        confident = [joint for joint in found if joint.score >= self.min_score]
        self.reported += len(confident)
        if not len(truth):
            self.empty_films += 1
            self.alarms_on_empty += bool(confident)
        for joint in sorted(found, key=lambda each: -each.score):
            overlaps = [(overlap(truth[index], np.array(joint.box)), index) for index in free]
            best, index = max(overlaps, default=(0.0, -1))
            self.scored.append((joint.score, best >= 0.5))
            if best >= 0.5:
                free.remove(index)
        for box in truth:
            self._measure(box, spacing_mm, confident)

    def _measure(self, box: np.ndarray, spacing_mm: float | None, found: list[Any]) -> None:
        middle, width = (box[:2] + box[2:]) / 2, box[2] - box[0]
        away = [np.hypot(*(np.array(joint.box.centre_px) - middle)) for joint in found]
        if not away or min(away) > width / 2:
            return
        joint = found[int(np.argmin(away))]
        self.distances_percent.append(100 * min(away) / width)
        self.width_errors_percent.append(100 * (joint.box.width_px / width - 1))
        if spacing_mm is not None:
            self.distances_mm.append(min(away) * spacing_mm)

    def figures(self, joints_with_mm: int) -> dict[str, Any]:
        """Shares and percentiles; what was missed counts as not within any distance."""
        mm, percent = np.array(self.distances_mm), np.array(self.distances_percent)
        widths = np.array(self.width_errors_percent)
        return {
            "joints": self.joints,
            "map50": average_precision(self.scored, self.joints),
            "found_within_half_a_box": len(percent) / self.joints,
            "within_5_mm": float((mm <= 5).sum()) / joints_with_mm if joints_with_mm else None,
            "within_10_mm": float((mm <= 10).sum()) / joints_with_mm if joints_with_mm else None,
            "within_5_percent_of_box": float((percent <= 5).sum()) / self.joints,
            "median_distance_mm": float(np.median(mm)) if len(mm) else None,
            "width_error_percent_5_50_95": np.percentile(widths, [5, 50, 95]).round(2).tolist()
            if len(widths)
            else None,
            "places_that_are_no_joint": self.reported - len(percent),
            "films_without_knee": self.empty_films,
            "false_alarms_on_them": self.alarms_on_empty,
        }


def overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    shared = np.prod(np.maximum(high - low, 0))
    areas = np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2])
    return float(shared / (areas - shared))


def average_precision(scored: list[tuple[float, bool]], joints: int) -> float:
    """Area under the precision-recall curve, precision made to fall."""
    hits = np.array([hit for _, hit in sorted(scored, key=lambda each: -each[0])], dtype=float)
    if not len(hits):
        return 0.0
    true = np.cumsum(hits)
    precision = true / np.arange(1, len(hits) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((falling * hits).sum() / joints)


def judge(folder: Path, name: str, *, with_spacing: bool) -> dict[str, Any]:
    """Run one detector over all films of ``folder``."""
    # every place is wanted for the mAP; what counts as a find is the detector's own confidence
    confident = make_detector(PreprocessConfig(detector=name))
    eager: JointDetector = make_detector(PreprocessConfig(detector=name, min_detector_score=0.01))
    table = pd.read_csv(folder / "boxes.csv")
    tally, joints_with_mm = Tally(confident.min_score), 0
    for image, rows in table.groupby("image", sort=True):
        with Image.open(folder / str(image)) as picture:
            film = Radiograph(np.asarray(picture, dtype=np.float32))
        truth = rows[EDGES].dropna().to_numpy(dtype=float)
        spacing_mm = rows["pixel_spacing_mm"].iloc[0]
        spacing_mm = None if np.isnan(spacing_mm) else float(spacing_mm)
        joints_with_mm += len(truth) if spacing_mm is not None else 0
        told = PixelSpacing(spacing_mm, spacing_mm) if with_spacing and spacing_mm else None
        tally.add(truth, spacing_mm, eager.detect(film.pixels, told))
    return {"detector": confident.name, "min_score": confident.min_score} | tally.figures(
        joints_with_mm
    )


def main() -> None:
    """Print one table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("films", type=Path, nargs="+")
    parser.add_argument("--detector", action="append", required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = []
    for folder in arguments.films:
        for name in arguments.detector:
            for with_spacing in (True, False):
                told = {"films": folder.name, "told_millimetres": with_spacing}
                results.append(told | judge(folder, name, with_spacing=with_spacing))
                print(json.dumps(results[-1]), flush=True)
    if arguments.out:
        document = {"machine": platform.processor() or platform.machine(), "results": results}
        arguments.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
