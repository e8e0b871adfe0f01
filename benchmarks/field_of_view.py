"""Measure the framing of knee crops: their side in plateau widths, and where the joint lies.

    python benchmarks/field_of_view.py joint_polygons.json --out field_of_view.json

The file maps the name of each crop to ``width``, ``height`` and ``shapes``: the bone's outline
(``Knee_Bone``) and the joint space (``Healthy`` or ``Degenerative``), as polygons in pixels.

Plateau width: the widest horizontal extent of the bone between 0.10 and 0.20 of that width below
the lowest point of the joint space. Just at the joint line marginal osteophytes make the tibia
wider with the grade; a tenth of the width below it they no longer do, as the medians for each grade
show, if a table of grades is given. The same measure is taken on drawn tibiae of
``kneeoa_mm.synthetic``, whose plateau width is known, with osteophytes and without.

Joint: half way between femur and tibia, averaged over the bearing parts (0.18 to 0.40 of the width
on either side of the midline), so that the notch between the condyles does not count.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kneeoa_mm.synthetic.anatomy import State, build_knee, draw_bones, draw_shapes

Points = npt.NDArray[np.float64]

DEPTHS = (0.10, 0.20)
BEARING = (0.18, 0.40)
JOINT_SPACE = ("Healthy", "Degenerative")
_STEPS = 41


def extents(polygon: Points, at: Points, axis: int) -> Points:
    """Smallest and largest coordinate of a closed polygon where the other one is ``at``, (n, 2).

    Args:
        polygon: Points (x, y), shape (m, 2).
        at: Where to look, shape (n,).
        axis: 0 measures x along rows, 1 measures y along columns.
    """
    here, there = polygon, np.roll(polygon, -1, axis=0)
    found = np.full((len(at), 2), np.nan)
    for index, place in enumerate(at):
        crosses = (here[:, 1 - axis] <= place) != (there[:, 1 - axis] <= place)
        a, b = here[crosses], there[crosses]
        if len(a):
            share = (place - a[:, 1 - axis]) / (b[:, 1 - axis] - a[:, 1 - axis])
            cuts = a[:, axis] + share * (b[:, axis] - a[:, axis])
            found[index] = cuts.min(), cuts.max()
    return found


def plateau(bone: Points, lowest: float) -> tuple[float, float]:
    """Width of the tibial plateau and x of its middle.

    Args:
        bone: Outline, (n, 2), y growing towards the foot.
        lowest: y of the lowest point of the joint space.
    """
    left, right = extents(bone, np.array([lowest]), axis=0)[0]
    width, middle = right - left, (left + right) / 2
    for _ in range(3):  # the depths are shares of the width that is sought
        rows = lowest + width * np.linspace(*DEPTHS, _STEPS)
        edges = extents(bone, rows, axis=0)
        widest = int(np.nanargmax(edges[:, 1] - edges[:, 0]))
        width, middle = float(np.ptp(edges[widest])), float(edges[widest].mean())
    return width, middle


def joint_height(space: Points, width: float, middle: float) -> float:
    """Height (y) of the middle of the joint space in its bearing parts."""
    reach = np.linspace(*BEARING, _STEPS) * width
    heights = [extents(space, middle + side * reach, axis=1) for side in (-1, 1)]
    return float(np.mean([np.nanmean(height) for height in heights]))


def measure(crop: dict[str, Any]) -> dict[str, float]:
    """Measures of one crop."""
    shapes = {shape["label"]: np.array(shape["points"], float) for shape in crop["shapes"]}
    space = next(shapes[label] for label in JOINT_SPACE if label in shapes)
    width, middle = plateau(shapes["Knee_Bone"], space[:, 1].max())
    return {
        "plateau_px": width,
        "field_of_view_plateau_widths": crop["width"] / width,
        "joint_column": middle / crop["width"],
        "joint_row": joint_height(space, width, middle) / crop["height"],
    }


def measure_drawings(osteophyte_mm: float, n: int = 40) -> dict[str, float]:
    """The same measures of drawn knees: width over the true one, height above the plateau in mm."""
    rng = np.random.default_rng(0)
    ratios, heights = [], []
    for _ in range(n):
        bones = draw_bones(draw_shapes(rng)[0])
        knee = build_knee(bones, State(4.5, 5.0, osteophyte_mm, 0.0))
        true_mm = knee.plateau_width_mm
        bearing = knee.tibia[
            (np.abs(np.abs(knee.tibia[:, 0]) / true_mm - np.mean(BEARING)) < np.ptp(BEARING) / 2)
            & (knee.tibia[:, 1] < 0.2 * true_mm)
        ]
        width, middle = plateau(knee.tibia, bearing[:, 1].max())
        ratios.append(width / true_mm)
        reach = np.linspace(*BEARING, _STEPS) * width
        for side in (-1, 1):
            tibia = extents(knee.tibia, middle + side * reach, axis=1)[:, 0]
            femur = extents(knee.femur, middle + side * reach, axis=1)[:, 1]
            heights.append(float(-(tibia + femur).mean() / 2 / knee.scale))
    return {
        "measured_over_true_width": round(float(np.mean(ratios)), 4),
        "sd": round(float(np.std(ratios)), 4),
        "joint_above_plateau_mm": round(float(np.mean(heights)), 2),
    }


def summarise(values: pd.Series) -> dict[str, float]:
    """Median, quartiles and the middle 90 %."""
    names = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
    return {name: round(float(values.quantile(share)), 4) for name, share in names.items()}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("polygons", type=Path)
    parser.add_argument("--grades", type=Path, help="CSV with subject_id, laterality, kl_grade")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    crops = json.loads(arguments.polygons.read_text(encoding="utf-8"))
    measures = pd.DataFrame({name: measure(crop) for name, crop in crops.items()}).T
    document: dict[str, Any] = {"crops": len(measures)}
    document |= {name: summarise(measures[name]) for name in measures}
    if arguments.grades:
        knees = pd.read_csv(arguments.grades, dtype={"subject_id": str})
        names = knees["subject_id"] + knees["laterality"]
        grades = pd.Series(knees["kl_grade"].to_numpy(), index=names).reindex(measures.index)
        by_grade = measures["plateau_px"].groupby(grades).median().round(2)
        document["median_plateau_px_by_kl_grade"] = {int(k): v for k, v in by_grade.items()}
    document["drawn_knees"] = {
        f"osteophytes of {size} mm": measure_drawings(size) for size in (0.0, 3.0, 6.0)
    }
    text = json.dumps(document, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
