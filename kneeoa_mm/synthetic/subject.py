"""One synthetic person: films, table rows and truth, all from that person's own seed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kneeoa_mm.records import KneeKey
from kneeoa_mm.synthetic import exposure, truth
from kneeoa_mm.synthetic.anatomy import (
    Bones,
    State,
    build_knee,
    draw_bones,
    draw_shapes,
    joint_space_at_mm,
)
from kneeoa_mm.synthetic.joint_space import joint_space_px
from kneeoa_mm.synthetic.oai_tables import SIDES, VISIT_DIGITS, Rows, subject_rows
from kneeoa_mm.synthetic.population import VISIT_MONTHS, Array, Population, draw
from kneeoa_mm.synthetic.progression import Scenario, simulate
from kneeoa_mm.synthetic.radiographs import write_radiograph

Films = Literal["all", "baseline"]
FILM_VISITS: dict[Films, tuple[int, ...]] = {"all": (0, 2, 4), "baseline": (0,)}
"""Visits with films, as indices into ``VISIT_MONTHS``: 0, 24 and 48 months, or the first alone."""

_PROSTHESIS = State(9.0, 9.0, osteophyte_mm=0.2, sclerosis_mm=0.0, replaced=True)


class Stream(IntEnum):
    """What a person's random numbers are for; each use has its own stream."""

    MODEL = 0
    ANATOMY = 1
    TABLES = 2
    FILM = 3
    TEXTURE = 4


@dataclass(frozen=True)
class SubjectTask:
    """Which person to make, and how.

    Attributes:
        index: Number of the person in the cohort.
        seed: Seed of the cohort.
        scenario: The progression model.
        pixel_spacing_mm: Of the films.
        films: The visits whose films are drawn; tables always tell of all visits.
        studies: Folder of the films.
    """

    index: int
    seed: int
    scenario: Scenario
    pixel_spacing_mm: float
    films: Films
    studies: Path


def subject_id(index: int) -> str:
    """Seven digits from 9000017 on."""
    return str(9_000_000 + 17 * (index + 1))


def stream(seed: int, index: int, use: Stream, *more: int) -> np.random.SeedSequence:
    """The seed of one use of one person's random numbers, whatever else the cohort holds."""
    return np.random.SeedSequence(seed, spawn_key=(index, use, *more))


def model_draws(seed: int, index: int) -> Array:
    """The random numbers that decide one person's fate, (1, DRAWS_PER_PERSON)."""
    return draw(np.random.default_rng(stream(seed, index, Stream.MODEL)), 1)


def make_subject(task: SubjectTask) -> tuple[Rows, list[dict[str, Any]]]:
    """Write one person's films.

    Returns:
        The person's rows of each table, and the truth of each knee and film.
    """
    seed, index = task.seed, task.index
    person = simulate(model_draws(seed, index), task.scenario)
    rng = np.random.default_rng(stream(seed, index, Stream.ANATOMY))
    bones = [draw_bones(shape) for shape in draw_shapes(rng)]
    leg = exposure.draw_leg(rng)
    truths = []
    for visit in FILM_VISITS[task.films]:
        if person.attended[0, visit]:
            truths += _make_film(task, person, bones, leg, visit)
    rng = np.random.default_rng(stream(seed, index, Stream.TABLES))
    return subject_rows(subject_id(index), person, _jsw250_mm(person, bones), rng), truths


def knee_state(person: Population, side: int, visit: int) -> State:
    """The stage of the disease in one knee of a population of one."""
    if not person.native[0, side, visit]:
        return _PROSTHESIS
    return State(
        jsw_medial_mm=person.jsw_medial_um[0, side, visit] / 1000,
        jsw_lateral_mm=float(person.jsw_lateral_mm[0, side, visit]),
        osteophyte_mm=float(person.osteophyte_mm[0, side, visit]),
        sclerosis_mm=float(person.sclerosis_mm[0, side, visit]),
    )


def _jsw250_mm(person: Population, bones: list[Bones]) -> Array:
    """Joint-space width at x = 0.250 on the drawn outlines, (2, visits)."""
    widths = np.full((2, len(VISIT_MONTHS)), np.nan)
    for side, visit in np.argwhere(person.filmed[0]):
        knee = build_knee(bones[side], knee_state(person, side, visit))
        widths[side, visit] = joint_space_at_mm(knee, 0.250)
    return widths


def _make_film(
    task: SubjectTask, person: Population, bones: list[Bones], leg: exposure.Leg, visit: int
) -> list[dict[str, Any]]:
    seed, index, spacing_mm = task.seed, task.index, task.pixel_spacing_mm
    rng = np.random.default_rng(stream(seed, index, Stream.FILM, visit))
    settings = exposure.draw_settings(rng)
    grid = exposure.film_grid(spacing_mm)
    knees = {
        side: build_knee(bones[place], knee_state(person, place, visit))
        for place, side in enumerate(SIDES)
    }
    texture = {side: stream(seed, index, Stream.TEXTURE, place) for place, side in enumerate(SIDES)}
    bone = exposure.bone_attenuation(knees, settings.placements, grid, texture)
    code, subject = f"V{VISIT_DIGITS[visit]}", subject_id(index)
    source = f"{code}/{subject}.dcm"
    write_radiograph(
        task.studies / source,
        exposure.expose(bone, leg, settings, grid, rng),
        subject_id=subject,
        visit=code,
        seed=seed,
        pixel_spacing_mm=spacing_mm,
        photometric=settings.photometric,
        is_calibrated=settings.is_calibrated,
    )
    months = VISIT_MONTHS[visit]
    nothing = dict.fromkeys(truth.progress_columns(person, 0))
    rows = []
    for place, side in enumerate(SIDES):
        box_px = np.rint(exposure.joint_box_mm(knees[side], settings.placements[side]) / spacing_mm)
        edges = ("left", "top", "right", "bottom")
        rows.append(
            {
                "knee_id": str(KneeKey("synthetic", subject, months, side)),
                "subject_id": subject,
                "laterality": str(side),
                "months": months,
                "source": source,
                "pixel_spacing_mm": spacing_mm,
                **{f"box_{edge}_px": int(px) for edge, px in zip(edges, box_px, strict=True)},
                "joint_space_px": joint_space_px(
                    knees[side], settings.placements[side], spacing_mm
                ),
                "plateau_width_mm": knees[side].plateau_width_mm,
                "rotation_deg": float(np.degrees(settings.placements[side].rotation_rad)),
                "photometric": str(settings.photometric),
                **truth.state_columns(person, place, visit),
                **(truth.progress_columns(person, place) if months == 0 else nothing),
            }
        )
    return rows
