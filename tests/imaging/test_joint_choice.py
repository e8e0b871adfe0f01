"""From all places that look like a joint to at most one a side, by fixed rules."""

from __future__ import annotations

import random

import pytest

from kneeoa_mm.imaging.detector import Candidate, FilmSide, choose_joints

FILM_COLUMNS = 1000


def _at(column: float, score: float, *, row: float = 400.0, width: float = 200.0) -> Candidate:
    return Candidate(column, row, width, width, score)


def _columns(candidates: list[Candidate]) -> list[float]:
    return [j.box.centre_px[0] for j in choose_joints(candidates, film_columns=FILM_COLUMNS)]


def test_two_joints_are_the_left_and_the_right_one() -> None:
    left, right = choose_joints([_at(750, 0.7), _at(250, 0.9)], film_columns=FILM_COLUMNS)
    assert (left.film_side, right.film_side) == (FilmSide.LEFT, FilmSide.RIGHT)
    assert (left.score, right.score) == (0.9, 0.7)
    assert left.rivals == right.rivals == 0


@pytest.mark.parametrize(
    ("column", "side"), [(200.0, FilmSide.LEFT), (500.0, None), (800.0, FilmSide.RIGHT)]
)
def test_one_joint_stands_on_a_side_or_in_the_middle(column: float, side: FilmSide | None) -> None:
    (joint,) = choose_joints([_at(column, 0.9)], film_columns=FILM_COLUMNS)
    assert joint.film_side is side


def test_none_is_none() -> None:
    assert choose_joints([], film_columns=FILM_COLUMNS) == []


@pytest.mark.parametrize(
    "impostor",
    [
        pytest.param(_at(350, 0.8), id="too near to be the other knee"),
        pytest.param(_at(750, 0.8, row=700), id="too high or low"),
        pytest.param(_at(750, 0.8, width=90), id="too small"),
    ],
)
def test_what_cannot_be_the_other_knee_is_a_rival_and_no_joint(impostor: Candidate) -> None:
    (joint,) = choose_joints([_at(250, 0.9), impostor], film_columns=FILM_COLUMNS)
    assert joint.box.centre_px[0] == 250
    assert joint.rivals == 1


def test_of_three_the_best_and_its_best_partner_are_taken() -> None:
    candidates = [_at(250, 0.9), _at(740, 0.6), _at(760, 0.8)]
    assert _columns(candidates) == [250, 760]


def test_the_order_in_which_places_come_changes_nothing() -> None:
    candidates = [_at(250, 0.9), _at(260, 0.9), _at(740, 0.9), _at(760, 0.9), _at(500, 0.4)]
    first = choose_joints(candidates, film_columns=FILM_COLUMNS)
    for seed in range(10):
        shuffled = random.Random(seed).sample(candidates, len(candidates))
        assert choose_joints(shuffled, film_columns=FILM_COLUMNS) == first
