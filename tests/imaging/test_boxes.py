"""Boxed films: both notations, and what is refused before any training starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kneeoa_mm.errors import InputError, ItemError
from kneeoa_mm.imaging.boxes import JointBox, read_labelled_films

HEADER = "image,left_px,top_px,right_px,bottom_px\n"


def _film(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((50, 100), dtype=np.uint8)).save(path)
    return path


def test_a_table_and_text_files_say_the_same(tmp_path: Path) -> None:
    _film(tmp_path / "a" / "film.png")
    (tmp_path / "a" / "boxes.csv").write_text(HEADER + "film.png,10,5,30,25\nfilm.png,60,5,80,25\n")
    _film(tmp_path / "b" / "film.png")
    (tmp_path / "b" / "film.txt").write_text("0 0.2 0.3 0.2 0.4\n0 0.7 0.3 0.2 0.4\n")
    (of_table,) = read_labelled_films(tmp_path / "a")
    (of_text,) = read_labelled_films(tmp_path / "b")
    for ours, theirs in zip(of_table.boxes_on(50, 100), of_text.boxes_on(50, 100), strict=True):
        assert isinstance(ours, JointBox)
        assert ours == pytest.approx(theirs) or (ours.x, ours.y, ours.width, ours.height) == (
            pytest.approx((theirs.x, theirs.y, theirs.width, theirs.height))
        )


def test_text_files_may_stand_in_a_folder_of_their_own(tmp_path: Path) -> None:
    _film(tmp_path / "images" / "film.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "film.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (film,) = read_labelled_films(tmp_path)
    assert film.boxes == (JointBox(0.5, 0.5, 0.2, 0.4),)


def test_a_film_without_a_joint_is_a_row_without_edges_or_no_text_file(tmp_path: Path) -> None:
    _film(tmp_path / "empty.png")
    (tmp_path / "boxes.csv").write_text(HEADER + "empty.png,,,,\n")
    (of_table,) = read_labelled_films(tmp_path / "boxes.csv")
    _film(tmp_path / "b" / "film.png")
    (of_text,) = read_labelled_films(tmp_path / "b")
    assert of_table.boxes == of_text.boxes == ()


@pytest.mark.parametrize(
    "row",
    [
        *("a.png,30,5,10,25", "a.png,10,25,30,5", "a.png,10,5,30,", "a.png,x,5,30,25"),
        *("a.png,10,5,inf,25", "a.png,0.1,0.2,0.3,0.4"),
    ],
)
def test_an_impossible_box_is_named_by_its_line(tmp_path: Path, row: str) -> None:
    (tmp_path / "boxes.csv").write_text(HEADER + "good.png,1,1,5,5\n" + row + "\n")
    with pytest.raises(InputError, match="line 3"):
        read_labelled_films(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        *("0 0.5 0.5 0.2", "0 0.5 0.5 -0.2 0.1", "knee 1 1 1 1", "0 nan 1 1 1", "0 0.5 0.5 0.2 0"),
        # pixels, a middle beside the film, a box wider than it, and things that are no joints
        *("0 120 150 60 60", "0 1.1 0.5 0.2 0.2", "0 0.5 -0.1 0.2 0.2", "0 0.5 0.5 1.1 0.2"),
        *("1 0.5 0.5 0.2 0.4", "-1 0.5 0.5 0.2 0.4", "0.5 0.5 0.5 0.2 0.4"),
    ],
)
def test_an_impossible_text_line_is_named(tmp_path: Path, line: str) -> None:
    _film(tmp_path / "film.png")
    (tmp_path / "film.txt").write_text(f"0 0.5 0.5 0.2 0.4\n{line}\n")
    with pytest.raises(InputError, match=r"film\.txt:2"):
        read_labelled_films(tmp_path)


@pytest.mark.parametrize("row", ["90,5,130,25", "10,40,30,80", "-30,5,10,25", "10,-30,30,10"])
def test_a_film_whose_box_lies_beside_it_is_refused_by_its_size(tmp_path: Path, row: str) -> None:
    """Only the film tells; cut to its edge, the box would vanish or stand where no joint is."""
    _film(tmp_path / "film.png")
    (tmp_path / "boxes.csv").write_text(HEADER + f"film.png,10,5,30,25\nfilm.png,{row}\n")
    (film,) = read_labelled_films(tmp_path)
    with pytest.raises(ItemError, match=r"E_BOX: 1 of 2 boxes .* 50 rows and 100 columns"):
        film.boxes_on(50, 100)


def test_a_box_may_reach_beyond_the_film_that_has_its_middle(tmp_path: Path) -> None:
    _film(tmp_path / "film.png")
    (tmp_path / "boxes.csv").write_text(HEADER + "film.png,-10,-5,30,25\nfilm.png,80,5,120,25\n")
    (film,) = read_labelled_films(tmp_path)
    assert [box.x for box in film.boxes_on(50, 100)] == [0.1, 1.0]


@pytest.mark.parametrize("content", ["", "image,left\na.png,1\n", "\x00\x01"])
def test_a_table_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "boxes.csv").write_text(content)
    with pytest.raises(InputError):
        read_labelled_films(tmp_path)


def test_a_table_that_names_absent_films_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(HEADER + "gone.png,1,1,5,5\n")
    with pytest.raises(InputError, match=r"gone\.png"):
        read_labelled_films(tmp_path)


def test_a_folder_without_films_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no labelled films"):
        read_labelled_films(tmp_path)
