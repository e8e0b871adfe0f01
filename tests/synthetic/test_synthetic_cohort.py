"""``synthesize``: the same seed gives the same bytes, and no person depends on the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from kneeoa_mm.errors import ConfigError, OutputExistsError
from kneeoa_mm.records import StageResult
from kneeoa_mm.synthetic.cohort import TRUTH, synthesize
from kneeoa_mm.tables import read_table

SPACING_MM = 0.8


def make(out: Path, **arguments: object) -> StageResult:
    return synthesize(out, seed=2, pixel_spacing_mm=SPACING_MM, **arguments)  # type: ignore[arg-type]


def contents(out: Path, keep: Callable[[Path], bool] = lambda path: True) -> dict[str, bytes]:
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and keep(path))
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "small"
    make(out, subjects=3)
    return out


def test_same_seed_same_bytes_in_one_process_or_two(small: Path, tmp_path: Path) -> None:
    make(tmp_path / "again", subjects=3, jobs=2)
    assert contents(tmp_path / "again") == contents(small)


def test_a_person_is_the_same_whatever_the_size_of_the_cohort(small: Path, tmp_path: Path) -> None:
    make(tmp_path / "smaller", subjects=1)
    first = contents(tmp_path / "smaller" / "studies")
    assert first
    assert first.items() <= contents(small / "studies").items()
    for name in ("Enrollees.txt", "AllClinical00.txt", "kxr_qjsw_duryea06.txt", "Outcomes99.txt"):
        alone = (tmp_path / "smaller" / "tables" / name).read_text()
        assert (small / "tables" / name).read_text().startswith(alone)


def test_films_of_baseline_alone_are_those_of_the_whole_cohort(small: Path, tmp_path: Path) -> None:
    make(tmp_path / "baseline", subjects=3, films="baseline")
    assert contents(tmp_path / "baseline" / "tables") == contents(small / "tables")
    films = contents(tmp_path / "baseline" / "studies")
    assert films == contents(small / "studies", lambda path: path.parent.name == "V00")
    assert len(films) == 3


def test_films_of_baseline_are_the_same_in_either_scenario(small: Path, tmp_path: Path) -> None:
    make(tmp_path / "null", subjects=3, scenario="null", films="baseline")
    films = contents(tmp_path / "null" / "studies")
    assert films == contents(small / "studies", lambda path: path.parent.name == "V00")


def test_another_seed_gives_other_films(small: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "other", subjects=1, seed=3, pixel_spacing_mm=SPACING_MM)
    name = "studies/V00/9000017.dcm"
    first, second = (pydicom.dcmread(out / name) for out in (small, tmp_path / "other"))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert not np.array_equal(first.pixel_array, second.pixel_array)


def test_no_clock_is_in_the_films(small: Path) -> None:
    for path in small.rglob("*.dcm"):
        dates = [element for element in pydicom.dcmread(path) if element.VR in {"DA", "TM", "DT"}]
        assert not any(element.value for element in dates)


def test_truth_names_two_knees_for_every_film_and_their_boxes_lie_on_it(small: Path) -> None:
    truth = read_table(small / "truth" / "knees.parquet", TRUTH)
    films = {path.relative_to(small / "studies").as_posix() for path in small.rglob("*.dcm")}
    assert set(truth["source"]) == films
    for source, knees in truth.groupby("source"):
        film = pydicom.dcmread(small / "studies" / str(source))
        right, left = (knees[knees["laterality"] == side].iloc[0] for side in "RL")
        assert 0 < right["box_left_px"] < left["box_left_px"] < left["box_right_px"] < film.Columns
        assert (knees["box_top_px"] >= 0).all()
        assert (knees["box_bottom_px"] <= film.Rows).all()
        square = knees["box_right_px"] - knees["box_left_px"]
        assert np.allclose(square, knees["box_bottom_px"] - knees["box_top_px"], atol=1)
        assert set(knees["photometric"]) == {film.PhotometricInterpretation}


def test_progress_is_told_at_baseline_only(small: Path) -> None:
    truth = read_table(small / "truth" / "knees.parquet", TRUTH)
    later = truth[truth["months"] > 0]
    assert later[["x_image", "jsl_48m", "jsl_48m_prob", "jsl_48m_reason"]].isna().all(axis=None)
    baseline = truth[truth["months"] == 0]
    assert baseline["jsl_48m"].isna().eq(baseline["jsl_48m_reason"].notna()).all()


def test_best_possible_is_written_with_its_model(small: Path, tmp_path: Path) -> None:
    best = json.loads((small / "truth" / "best_possible.json").read_text())
    assert best["jsl_48m"]["both"] > best["jsl_48m"]["image"] > best["jsl_48m"]["clinical"] > 0.5
    assert (best["scenario"], best["seed"], best["subjects"]) == ("standard", 2, 3)
    assert set(best["jsl_48m_this_cohort"]) >= {"image", "clinical", "both", "knees", "events"}
    make(tmp_path / "null", subjects=1, scenario="null")
    null = json.loads((tmp_path / "null" / "truth" / "best_possible.json").read_text())
    assert null["coefficients"]["clinical"] == null["coefficients"]["interaction"] == 0.0


def test_earlier_output_is_not_overwritten_unasked(small: Path) -> None:
    before = contents(small)
    with pytest.raises(OutputExistsError):
        make(small, subjects=1)
    assert contents(small) == before


@pytest.mark.parametrize(
    "wrong",
    [{"subjects": 0}, {"seed": -1}, {"scenario": "hopeful"}, {"films": "none"}],
)
def test_wrong_arguments_are_refused_before_anything_is_made(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    arguments: dict[str, object] = {"subjects": 1, "seed": 0, **wrong}
    with pytest.raises(ConfigError):
        synthesize(tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
