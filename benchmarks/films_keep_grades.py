"""Do knees keep their grades when they come from a film instead of a ready crop?

    python benchmarks/films_keep_grades.py CROPS OUT MODEL --knees 300
    python benchmarks/films_keep_grades.py CROPS OUT MODEL MODEL --detector auto

CROPS is a folder of graded PNGs whose framing MODEL states in its contract. Each knee is graded
directly; then pairs of knees are set into bilateral films (12-bit DICOM, 2494 px wide), which go
through ``preprocess`` and ``predict``. The films are those of ``synthetic.composites``, with the
crop itself laid over its drawn continuation, so that nothing that was graded is lost on the film.

A cross-validated MODEL grades each knee by the members of the fold that never saw its subject, and
pairs are of knees of one fold. Several models of the same folds vote together, uncalibrated. With
``--as-new`` all members grade each knee, as they do with persons whom nobody knows: most have
learnt from it, which flatters accuracy, and agreement a little.

With ``--detector known`` (the default) the joint's box is the true one, or the true one with stated
errors: what is lost then is lost to resampling and to the grader's own unrest. With a detector the
whole way is judged. Each case is graded as it is and averaged over crops (``test_time_crops``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from kneeoa_mm import schemas, tables
from kneeoa_mm.imaging.detector import FilmSide, JointDetection
from kneeoa_mm.imaging.dicom import read_film
from kneeoa_mm.imaging.films import cut_knees
from kneeoa_mm.imaging.laterality import assign_sides
from kneeoa_mm.imaging.preprocess import preprocess
from kneeoa_mm.learning.ensemble import EnsembleRules
from kneeoa_mm.learning.inference import predict_knees
from kneeoa_mm.learning.models import Ensemble, load_ensemble
from kneeoa_mm.learning.sources import read_knees
from kneeoa_mm.records import Box, Photometric
from kneeoa_mm.settings import PreprocessConfig
from kneeoa_mm.synthetic.composites import compose
from kneeoa_mm.synthetic.legs import KneeCrop
from kneeoa_mm.synthetic.radiographs import write_radiograph

LONG_SIDE_PX = 2494
MOST_FILMS = 10_000
FEATHER_PX = 1.0
"""Of a crop's own pixels: it has nothing to spare for a wider one."""
ERRORS = ((0, 0), (0.01, 0), (0.02, 0), (0.03, 0), (0, 0.02), (0, 0.05), (0.02, 0.03), (0.03, 0.05))
"""Standard deviations of the box's place, in plateau widths, and of its size."""


Grades = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]
"""Of the crops, of the films, and the true boxes."""


def load_together(models: list[Path]) -> Ensemble:
    """The members of all models, by the voting of the first."""
    first, *others = [load_ensemble(model) for model in models]
    if not others:
        return first
    members = tuple(member for each in (first, *others) for member in each.members)
    return Ensemble(members, EnsembleRules(voting=first.rules.voting))


def split_by_fold(ensemble: Ensemble, knees: pd.DataFrame) -> list[tuple[Ensemble, pd.DataFrame]]:
    """Each fold's members with the knees whose subjects none of them touched; else all with all."""
    folds = dict.fromkeys(member.card.fold for member in ensemble.members)
    if None in folds:
        return [(ensemble, knees)]
    parts = []
    subjects = set(knees["subject_id"])
    for fold in folds:
        members = tuple(each for each in ensemble.members if each.card.fold == fold)
        known = [member.card.seen_subjects for member in members]
        touched = [each.in_training(subjects) | each.in_selection(subjects) for each in known]
        unseen = knees[~knees["subject_id"].isin(set().union(*touched))]
        parts.append((replace(ensemble, members=members), unseen.iloc[: len(unseen) // 2 * 2]))
    return parts


def make_films(
    knees: pd.DataFrame, ensemble: Ensemble, out: Path, seed: int, first: int
) -> pd.DataFrame:
    """Write one film for each two knees; rows are knees in the order of ``knees``.

    ``first`` is the number of the first film.

    Returns:
        ``film``, ``left``, ``top``, ``side`` of the true box on the film, and ``laterality`` that
        the place on the film implies.
    """
    contract = ensemble.members[0].card.preprocessing
    if contract.field_of_view_plateau_widths is None:
        raise SystemExit("The model does not state its field of view.")
    rows = []
    for pair in range(len(knees) // 2):
        number = first + pair
        crops = [
            as_right_knee(knees.iloc[2 * pair + place], contract.field_of_view_plateau_widths,
                          contract.joint_row)
            for place in (0, 1)
        ]  # fmt: skip
        rng = np.random.default_rng([seed, number])
        film = compose(crops, rng, long_side_px=LONG_SIDE_PX, plain=True)
        brightness = film.brightness
        for place, (crop, box) in enumerate(zip(crops, film.joints_px, strict=True)):
            brightness = lay_over(brightness, crop, box, is_mirrored=place == 1)
        subject = f"8{number:06d}"  # nobody's in the OAI
        write_radiograph(
            out / f"{subject}.dcm", brightness, subject_id=subject, visit="V00", seed=seed,
            pixel_spacing_mm=round(float(film.spacing_mm or 0), 6),
            photometric=Photometric.MONOCHROME2, is_calibrated=True,
        )  # fmt: skip
        for side, (left, top, right, _) in zip("RL", film.joints_px, strict=True):
            rows.append((subject, left, top, right - left, side))
    return pd.DataFrame(rows, columns=["film", "left", "top", "side", "laterality"])


def as_right_knee(knee: pd.Series, field_of_view: float, joint_row: float) -> KneeCrop:
    """A crop in the orientation of a right knee, with the framing that the contract states."""
    with Image.open(knee["image_path"]) as picture:
        pixels = np.asarray(picture.convert("L"), dtype=np.float32) / 255
    if knee["mirror"]:
        pixels = pixels[:, ::-1]
    rows, columns = pixels.shape
    return KneeCrop(
        np.ascontiguousarray(pixels), (columns / 2, joint_row * rows), columns / field_of_view
    )


def lay_over(
    film: NDArray[np.float32], crop: KneeCrop, box: NDArray[np.float64], *, is_mirrored: bool
) -> NDArray[np.float32]:
    """Lay a crop, enlarged by cubic splines, where its joint's ``box`` is; its rim is feathered."""
    pixels = crop.pixels[:, ::-1] if is_mirrored else crop.pixels
    rows, columns = pixels.shape
    joint_x = columns - crop.joint_px[0] if is_mirrored else crop.joint_px[0]
    factor = crop.plateau_px / (box[2] - box[0])
    middle = (box[:2] + box[2:]) / 2
    x = (np.arange(film.shape[1]) + 0.5 - middle[0]) * factor + joint_x
    y = (np.arange(film.shape[0]) + 0.5 - middle[1]) * factor + crop.joint_px[1]
    inside = np.ix_((y > 0) & (y < rows), (x > 0) & (x < columns))
    across, down = x[(x > 0) & (x < columns)], y[(y > 0) & (y < rows)]
    grid = np.meshgrid(down - 0.5, across - 0.5, indexing="ij")
    enlarged = ndimage.map_coordinates(pixels, grid, order=3, mode="nearest")
    rims = [np.minimum(at, size - at) for at, size in ((down, rows), (across, columns))]
    share = np.clip(np.minimum(rims[0][:, None], rims[1][None, :]) / FEATHER_PX, 0, 1)
    laid = film.copy()
    laid[inside] = share * np.clip(enlarged, 0, 1) + (1 - share) * film[inside]
    return laid


def cut_with_known_boxes(
    films: Path, truth: pd.DataFrame, out: Path, errors: tuple[float, float]
) -> pd.DataFrame:
    """Knees cut at the true boxes, with normal errors of place and size; a table of knees."""
    config = PreprocessConfig()
    (out / "images").mkdir(parents=True)
    rows = []
    for index, (film_name, boxes) in enumerate(truth.groupby("film", sort=False)):
        film = read_film(films / f"{film_name}.dcm", max_pixels=config.max_pixels)
        joints = []
        for place, box in enumerate(boxes.itertuples()):
            draw = np.random.default_rng([index, place, 7]).normal(size=3)
            moved = draw[:2] * errors[0] * box.side
            grown = box.side * draw[2] * errors[1] / 2
            edges = np.array([box.left, box.top]) + moved - grown
            corners = [*edges, *(edges + box.side + 2 * grown)]
            side = (FilmSide.LEFT, FilmSide.RIGHT)[place]
            joints.append(JointDetection(Box(*(round(edge) for edge in corners)), side, 1.0))
        for knee in cut_knees(film, assign_sides(joints, film, None), config):
            name = f"images/{film_name}{knee.laterality}.png"
            Image.fromarray(knee.image).save(out / name)
            rows.append(
                {
                    "knee_id": f"film:{film_name}:0:{knee.laterality}",
                    "subject_id": film_name,
                    "laterality": str(knee.laterality),
                    "image_path": name,
                    "flipped": knee.is_flipped,
                    "as_right_knee": True,
                    "field_of_view_plateau_widths": knee.field_of_view_plateau_widths,
                }
            )
    tables.write_table(pd.DataFrame(rows), schemas.KNEES, out / "knees.parquet")
    return read_knees(out)


def compare(direct: pd.DataFrame, graded: pd.DataFrame, truth: pd.DataFrame) -> dict[str, Any]:
    """Agreement of the grades of films with those of crops."""
    grades = direct["kl_grade"].to_numpy(np.int64)
    keys = truth["film"] + truth["laterality"]
    by_key = graded.set_index(graded["subject_id"].astype(str) + graded["laterality"])
    found = keys.isin(by_key.index).to_numpy()
    rows = by_key.loc[keys[found]]
    columns = [f"kl_prob_{grade}" for grade in range(5)]
    before = direct.loc[found, "kl_grade_pred"].to_numpy(int)
    after = rows["kl_grade_pred"].to_numpy(int)
    moved = np.abs(rows[columns].to_numpy(float) - direct.loc[found, columns].to_numpy(float))
    return {
        "knees": int(found.sum()),
        "not_found": int((~found).sum()),
        "same_grade": round(float((before == after).mean()), 4),
        "same_grade_if_lost_counts": round(float((before == after).sum() / len(found)), 4),
        "within_one_grade": round(float((abs(before - after) <= 1).mean()), 4),
        "largest_change_of_a_probability_mean": round(float(moved.max(axis=1).mean()), 4),
        "accuracy_direct": round(float((before == grades[found]).mean()), 4),
        "accuracy_film": round(float((after == grades[found]).mean()), 4),
        "framing": rows["framing"].value_counts().to_dict(),
    }


def grade_both_ways(
    ensemble: Ensemble,
    knees: pd.DataFrame,
    work: Path,
    errors: tuple[float, float] | None,
    arguments: argparse.Namespace,
    number: int,
) -> dict[int, Grades]:
    """Grade knees as crops and from films, with each number of test-time crops."""
    (work / "films").mkdir(parents=True)
    first = number * MOST_FILMS
    truth = make_films(knees, ensemble, work / "films", arguments.seed, first)
    if errors is None:
        config = PreprocessConfig(detector=arguments.detector)
        preprocess(work / "films", work / "knees", config=config, ids="keep")
        found = read_knees(work / "knees")
    else:
        found = cut_with_known_boxes(work / "films", truth, work / "knees", errors)
    grades = {}
    for crops in arguments.test_time_crops:
        views = {"test_time_flip": False, "test_time_crops": crops}
        way = replace(ensemble, rules=ensemble.rules.model_copy(update=views))
        direct, _ = predict_knees(way, knees.reset_index(drop=True), device="cpu")
        graded, _ = predict_knees(way, found, device="cpu")
        grades[crops] = (direct, graded, truth)
    return grades


def main() -> None:
    """Make the films, grade them both ways, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("crops", type=Path)
    parser.add_argument("out", type=Path, help="JSON to write")
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--knees", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-time-crops", type=int, nargs="+", default=[0, 4, 10])
    parser.add_argument("--as-new", action="store_true", help="ask all members about each knee")
    parser.add_argument("--detector", default="known", help="known, auto, yolo, profile or FOLDER")
    arguments = parser.parse_args()
    ensemble = load_together(arguments.models)
    knees = read_knees(arguments.crops)
    chosen = min(arguments.knees, len(knees)) // 2 * 2
    knees = knees.sample(chosen, random_state=arguments.seed).reset_index(drop=True)
    if arguments.as_new:
        knees["subject_id"] = "new-" + knees["subject_id"].astype(str)
    parts = [(ensemble, knees)] if arguments.as_new else split_by_fold(ensemble, knees)
    cases = ERRORS if arguments.detector == "known" else [None]
    results: list[dict[str, Any]] = []
    for errors in cases:
        with tempfile.TemporaryDirectory() as folder:
            graded = [
                grade_both_ways(part, own, Path(folder) / str(number), errors, arguments, number)
                for number, (part, own) in enumerate(parts)
            ]
        case: dict[str, Any] = {"detector": arguments.detector}
        if errors is not None:
            case = {"place_error_widths": errors[0], "size_error": errors[1]}
        for crops in arguments.test_time_crops:
            frames = zip(*(ways[crops] for ways in graded), strict=True)
            agreement = compare(*(pd.concat(each, ignore_index=True) for each in frames))
            results.append(case | {"test_time_crops": crops} | agreement)
            print(json.dumps(results[-1]), flush=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
