"""Make labelled films for a joint detector: PNGs and ``boxes.csv``, from crops or from phantoms.

    python benchmarks/detector_films.py composites CROPS OUT --films 3000 --seed 0
    python benchmarks/detector_films.py synthetic SYNTHESIZED OUT

CROPS is a folder of single-knee PNGs (searched with its subfolders); SYNTHESIZED is the output of
``kneeoa-mm synthesize``. ``boxes.csv`` has a row for each joint: ``image``, the box's edges in
pixels (empty on a film without a joint), and ``pixel_spacing_mm``.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from kneeoa_mm.imaging.dicom import read_film
from kneeoa_mm.imaging.greyscale import grey_range, to_uint16
from kneeoa_mm.imaging.radiograph import resize
from kneeoa_mm.synthetic.composites import compose, compose_without_knee, frame_crop
from kneeoa_mm.synthetic.legs import KneeCrop

# Of a Mendeley crop of 224 px (benchmarks/field_of_view.py); single knees scatter about it
PLATEAU_SHARE = 179 / 224
JOINT_SHARE = (0.50, 0.58)
KINDS = {"two": 0.55, "one": 0.22, "none": 0.15, "crop": 0.08}
EDGES = ("left_px", "top_px", "right_px", "bottom_px")
Row = dict[str, Any]


def read_crop(path: Path) -> KneeCrop:
    """A crop, its joint and plateau where those of a median crop lie."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"), dtype=np.float32) / 255
    rows, columns = pixels.shape
    joint = (JOINT_SHARE[0] * columns, JOINT_SHARE[1] * rows)
    return KneeCrop(pixels, joint, PLATEAU_SHARE * columns)


def make_composite(
    index: int, crops: list[Path], out: Path, seed: int, long_side_px: int
) -> list[Row]:
    """Write one composed film and return its rows."""
    rng = np.random.default_rng([seed, index])
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    chosen = [read_crop(crops[i]) for i in rng.choice(len(crops), 2, replace=False)]
    if kind == "crop":
        film = frame_crop(chosen[0], rng)
    elif kind == "none":
        film = compose_without_knee(chosen, rng, long_side_px=long_side_px)
    else:
        film = compose(chosen[: 2 if kind == "two" else 1], rng, long_side_px=long_side_px)
    name = f"{index:05d}.png"
    Image.fromarray(np.rint(film.brightness * 255).astype(np.uint8)).save(out / name)
    return rows_of(name, film.joints_px, film.spacing_mm)


def make_synthetic(source: str, knees: pd.DataFrame, root: Path, out: Path) -> list[Row]:
    """Write one synthetic film as a PNG and return its rows."""
    film = read_film(root / "studies" / source, max_pixels=100_000_000)
    name = source.replace("/", "-").replace(".dcm", ".png")
    shape = film.pixels.shape
    step = 640 / max(shape)
    small = resize(film.pixels, *(round(size * step) for size in shape))
    grey = to_uint16(small, *grey_range(film.pixels)) // 257
    Image.fromarray(grey.astype(np.uint8)).save(out / name)
    # a prosthesis is no joint to be graded: the detector has to leave it
    native = knees[~knees["is_replaced"]].sort_values("box_left_px")
    spacing_mm = float(knees["pixel_spacing_mm"].iloc[0])
    middle = np.stack(
        [
            (native["box_left_px"] + native["box_right_px"]) / 2,
            (native["box_top_px"] + native["box_bottom_px"]) / 2,
        ],
        axis=1,
    )
    half = (native["plateau_width_mm"] / spacing_mm / 2).to_numpy()[:, None]
    return rows_of(name, np.hstack([middle - half, middle + half]) * step, spacing_mm / step)


def rows_of(name: str, boxes: np.ndarray, spacing_mm: float | None) -> list[Row]:
    """The rows of ``boxes.csv`` for one film."""
    shared = {
        "image": name,
        "pixel_spacing_mm": None if spacing_mm is None else f"{spacing_mm:.5f}",
    }
    found = [dict(zip(EDGES, (f"{edge:.2f}" for edge in box), strict=True)) for box in boxes]
    return [shared | box for box in found or [dict.fromkeys(EDGES, "")]]


def films(arguments: argparse.Namespace) -> tuple[Any, list[Any]]:
    """The function that makes one film, and what it is called with."""
    if arguments.kind == "composites":
        crops = sorted(arguments.source.rglob("*.png"))
        make = partial(
            make_composite, crops=crops, out=arguments.out, seed=arguments.seed,
            long_side_px=arguments.long_side_px,
        )  # fmt: skip
        return make, [(index,) for index in range(arguments.films)]
    truth = pd.read_parquet(arguments.source / "truth" / "knees.parquet")
    make = partial(make_synthetic, root=arguments.source, out=arguments.out)
    return make, list(truth.groupby("source"))


def results(make: Any, tasks: list[Any], jobs: int) -> Iterator[list[Row]]:
    """What ``make`` returns for each task, in their order."""
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        waiting = [pool.apply_async(make, task) for task in tasks]
        for result in waiting:
            yield result.get()


def main() -> None:
    """Make one folder of labelled films."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["composites", "synthetic"])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--films", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--long-side-px", type=int, default=640)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    make, tasks = films(arguments)
    with (arguments.out / "boxes.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["image", *EDGES, "pixel_spacing_mm"])
        writer.writeheader()
        for rows in results(make, tasks, arguments.jobs):
            writer.writerows(rows)


if __name__ == "__main__":
    main()
