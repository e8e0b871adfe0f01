"""Who and when: path before header, codes before guesses, and nothing personal in outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import phantoms
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from kneeoa_mm.cohort_spec import (
    CohortSpec,
    FilmsSpec,
    read_cohort_spec,
    shipped_cohorts,
    visit_digits,
)
from kneeoa_mm.errors import ConfigError, ItemError
from kneeoa_mm.identifiers import Identifiers
from kneeoa_mm.imaging.identity import FilmIdentity, Naming
from kneeoa_mm.imaging.radiograph import Radiograph
from kneeoa_mm.imaging.source_ids import source_ids
from kneeoa_mm.imaging.studies import find_films
from kneeoa_mm.records import Laterality

KEEP, HASH = Identifiers(None), Identifiers(b"k" * 32)
PIXELS = np.zeros((2, 2), dtype=np.float32)

LAYOUTS = {
    "most": [
        ("MB00001/{code}/f.dcm", "MB00001"),
        ("MB00001/{digits}/f.dcm", "MB00001"),
        ("MB00001_{digits}_f.dcm", "MB00001"),
    ],
    "oai": [("{code}/9000099/f.dcm", "9000099"), ("{code}_9000099.dcm", "9000099")],
    "oai/nda": [("{code}/9000099/f.dcm", "9000099")],
    "synthetic": [("studies/{code}/9000099.dcm", "9000099")],
}
"""Paths that the pages and comments of each shipped cohort promise to read, and their subject."""


def _cohort(pattern: str | None) -> CohortSpec:
    return CohortSpec(
        name="oai", visits={"V00": 0, "V06": 48}, films=FilmsSpec(path_pattern=pattern)
    )


def _film(patient_id: str | None = "9000017", time_point: str | None = "V00") -> Radiograph:
    return Radiograph(PIXELS, patient_id=patient_id, time_point=time_point)


def test_the_path_names_the_film_where_its_pattern_matches() -> None:
    naming = Naming.of(KEEP, _cohort(r"(?P<visit>V\d\d)/(?P<subject>\d{7})_(?P<side>[LR])"))
    found = naming.identify("V06/9000099_L.dcm", _film("9000099", "V06"))
    assert found == FilmIdentity("9000099", 48, Laterality.LEFT)
    assert naming.identify("else/where.dcm", _film()) == FilmIdentity("9000017", 0, None)


def test_groups_that_a_pattern_lacks_come_from_the_header() -> None:
    naming = Naming.of(KEEP, _cohort(r"(?P<subject>\d{7})"))
    assert naming.identify("9000099.dcm", _film(time_point="V06")).months == 48


def test_what_nothing_names_stays_unknown() -> None:
    assert Naming(KEEP).identify("a.dcm", _film(None, "V00")) == FilmIdentity(None, None, None)


def test_films_are_asked_for_the_names_that_were_hashed(tmp_path: Path) -> None:
    """By these a model knows whom it learnt from; films that gave no knee are left alone."""
    film = phantoms.dataset(np.tile(np.arange(64, dtype=np.uint16), (64, 1)), PatientID="9000017")
    phantoms.write(film, tmp_path / "plain.dcm")
    film.PatientID = "9000034"
    phantoms.write(film, tmp_path / "small.dcm", syntax=DeflatedExplicitVRLittleEndian)
    phantoms.write(film, tmp_path / "V06" / "9000099.dcm")
    film.PatientID = "9000051"
    phantoms.write(film, tmp_path / "unused.dcm")
    phantoms.write(film, tmp_path / "torn.dcm").write_bytes(b"")
    naming = Naming.of(HASH, _cohort(r"(?P<visit>V\d\d)/(?P<subject>\d{7})"))
    shown = {naming.masked(p) for p in ("plain.dcm", "small.dcm", "V06/9000099.dcm", "torn.dcm")}
    found = source_ids(find_films(tmp_path), naming, shown, max_pixels=10_000)
    assert set(found.values()) == {"9000017", "9000034", "9000099"}
    assert all(HASH.subject_id(name) == hashed for hashed, name in found.items())


def test_hashed_identifiers_join_and_do_not_show_the_source() -> None:
    naming = Naming(HASH)
    first, second, other = (
        naming.identify(f"{name}.dcm", _film(name)).subject_id for name in ("Doe", "Doe", "Roe")
    )
    assert first == second != other
    assert "Doe" not in str(first)


def test_an_identifier_that_would_break_the_knee_id_is_refused_unless_hashed() -> None:
    film = _film("a:b")
    with pytest.raises(ItemError) as caught:
        Naming(KEEP).identify("x.dcm", film)
    assert caught.value.code == "E_IDENTITY"
    assert Naming(HASH).identify("x.dcm", film).subject_id


def test_paths_are_masked_part_by_part() -> None:
    naming = Naming(HASH, visits={"V00": 0})
    masked = naming.masked("V00/Doe^Jane/film.of.Jane.DCM")
    visit, folder, name = masked.split("/")
    assert visit == "V00"
    assert name.endswith(".DCM")
    assert not any(part in masked for part in ("Doe", "Jane", "film"))
    assert folder == naming.masked("Doe^Jane")


def test_films_that_differ_in_the_case_of_their_suffix_stay_apart() -> None:
    """Exports of two devices, copied into one folder."""
    names = ["IM1", "IM1.dcm", "IM1.DCM", "IM1.Dcm", "im1.dcm"]
    assert len({Naming(HASH).masked(name) for name in names}) == len(names)


def test_a_suffix_that_may_be_a_name_is_masked_too() -> None:
    assert "Smith" not in Naming(HASH).masked("scan.Smith")


def test_a_pattern_that_is_no_regular_expression_stops_the_run() -> None:
    with pytest.raises(ConfigError, match="regular expression"):
        Naming.of(KEEP, _cohort("(?P<subject>"))


@pytest.mark.parametrize(
    ("source", "patient_id", "subject", "side"),
    [
        # a picture has nothing but its name
        ("0/9003175L.png", None, "9003175", Laterality.LEFT),
        ("0/9003175_1.JPG", None, "9003175", Laterality.RIGHT),
        ("knee.png", None, None, None),
        # the header of a DICOM names the subject, its name claims a side
        ("9003175_R.dcm", "9000017", "9000017", Laterality.RIGHT),
        ("9003175_R", None, "9003175", Laterality.RIGHT),
        ("knee_left.dcm", "9000017", "9000017", Laterality.LEFT),
        # numbered images are no sides, and words that end in L or R are none either
        ("IM_1.dcm", "9000017", "9000017", None),
        ("IM_2.dcm", None, None, None),
        ("lateral.dcm", "9000017", "9000017", None),
        ("1.2.840.113.5.2", "9000017", "9000017", None),
    ],
)
def test_names_of_files_fill_gaps_and_claim_sides(
    source: str, patient_id: str | None, subject: str | None, side: Laterality | None
) -> None:
    found = Naming(KEEP).identify(source, _film(patient_id, None))
    assert (found.subject_id, found.path_side) == (subject, side)


@pytest.mark.parametrize(
    ("name", "side"),
    [("9000099L", None), ("9000099-L", "L"), ("9000099 right", "R"), ("R_9000099", "R")],
)
def test_beside_a_path_pattern_without_a_side_only_a_word_of_the_name_claims_one(
    name: str, side: str | None
) -> None:
    naming = Naming.of(KEEP, _cohort(r"(?P<subject>\d{7})"))
    assert naming.identify(f"{name}.dcm", _film()).path_side == side


def test_the_side_of_a_path_pattern_stands_before_words_of_the_name() -> None:
    naming = Naming.of(KEEP, _cohort(r"(?P<side>left|right)/(?P<subject>\d{7})"))
    assert naming.identify("left/9000017_R.dcm", _film()).path_side is Laterality.LEFT


@pytest.mark.parametrize("name", shipped_cohorts())
def test_a_shipped_cohort_finds_each_of_its_visits_in_the_paths_it_documents(name: str) -> None:
    """Films without months join no cohort, and nobody learns why."""
    cohort = read_cohort_spec(name)
    naming = Naming.of(KEEP, cohort)
    assert bool(LAYOUTS.get(name)) is bool(cohort.films.path_pattern), "document its paths"
    for layout, subject in LAYOUTS.get(name, []):
        for code, months in cohort.visits.items():
            source = layout.format(code=code, digits=visit_digits(code))
            found = naming.identify(source, _film(None, None))
            assert found == FilmIdentity(subject, months, None), source


@pytest.mark.parametrize(
    ("folder", "time_point", "months", "is_unlisted"),
    [
        ("V4", "V5", 84, True),
        ("V4", None, None, True),
        ("V5", "V4", 84, False),
        ("5", "5", 84, False),
    ],
)
def test_a_visit_of_the_path_that_is_not_listed_is_told_and_hides_no_header(
    folder: str, time_point: str | None, months: int | None, is_unlisted: bool
) -> None:
    naming = Naming.of(KEEP, read_cohort_spec("most"))
    found = naming.identify(f"MB00001/{folder}/f.dcm", _film(None, time_point))
    assert found == FilmIdentity("MB00001", months, None, is_visit_unlisted=is_unlisted)


def test_digits_that_two_visits_share_name_neither() -> None:
    cohort = CohortSpec(
        name="x", visits={"V00": 0, "P00": 6}, films=FilmsSpec(path_pattern=r"^(?P<visit>\w+)/")
    )
    found = Naming.of(KEEP, cohort).identify("00/a.dcm", _film(None, None))
    assert found == FilmIdentity(None, None, None, is_visit_unlisted=True)


@pytest.mark.parametrize(
    ("patient_id", "time_point", "is_contradicted"),
    [
        ("9000099", "V06", False),
        ("OAI-9000099", "V06", False),
        ("0009000099", None, False),
        (None, "V99", False),
        ("9000017", "V06", True),
        ("9000099", "V00", True),
        ("Zelenka", "V06", True),
    ],
)
def test_a_header_that_names_another_person_or_visit_than_the_path_is_told(
    patient_id: str | None, time_point: str | None, is_contradicted: bool
) -> None:
    """Two films that changed places would be read as each other's person for ever."""
    naming = Naming.of(KEEP, _cohort(r"(?P<visit>V\d\d)/(?P<subject>\d{7})"))
    found = naming.identify("V06/9000099.dcm", _film(patient_id, time_point))
    assert found == FilmIdentity("9000099", 48, None, is_contradicted)


def test_the_subject_in_a_name_is_hashed_like_any_other() -> None:
    by_name = Naming(HASH).identify("9003175L.png", _film(None, None))
    by_header = Naming(HASH).identify("film.dcm", _film("9003175", None))
    assert by_name.subject_id == by_header.subject_id != "9003175"


def test_pictures_keep_their_suffix_where_names_are_masked() -> None:
    masked = Naming(HASH).masked("Jane Doe L.PNG")
    assert masked.endswith(".PNG")
    assert "Jane" not in masked
