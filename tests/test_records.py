"""The vocabulary keeps its promises: identifiers survive a round trip and make safe file names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneeoa_mm.records import Box, KneeKey, Laterality, named_side, subject_and_side

names = st.text(st.characters(categories=("L", "N"), include_characters="_-. "), min_size=1).filter(
    lambda text: text != "-"
)
keys = st.builds(
    KneeKey,
    cohort=st.none() | names,
    subject_id=st.none() | names,
    months=st.none() | st.integers(0, 999),
    laterality=st.none() | st.sampled_from(Laterality),
    copy=st.integers(1, 9),
)


@given(keys)
def test_a_knee_id_reads_back_as_the_key_that_wrote_it(key):
    assert KneeKey.parse(str(key)) == key


@given(keys)
def test_a_file_stem_has_only_characters_that_every_system_accepts(key):
    assert re.fullmatch(r"[A-Za-z0-9._-]+", key.file_stem)


@pytest.mark.parametrize("text", ["", "oai:1:0", "oai:1:0:X", "oai:1:zero:L", "oai:1:0:L:two"])
def test_what_is_no_knee_id_is_refused_with_the_expected_form(text):
    with pytest.raises(ValueError, match=re.escape("<cohort>:<subject>:<months>:<L|R>")):
        KneeKey.parse(text)


def test_a_box_knows_its_size_and_centre():
    box = Box(10, 20, 30, 60)
    assert (box.width_px, box.height_px, box.centre_px) == (20, 40, (20, 40))


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("9003175L", ("9003175", "L")),
        ("9003175_R", ("9003175", "R")),
        ("9003175_1", ("9003175", "R")),
        ("P-12_2", ("P-12", "L")),
        ("12345-L", ("12345", "L")),
        ("12345 R", ("12345", "R")),
        ("9000017_RIGHT", ("9000017", "R")),
        ("9000017-left", ("9000017", "L")),
        ("9000017 bright", (None, None)),
        ("knee", (None, None)),
        ("L", (None, None)),
        ("9003175", (None, None)),
    ],
)
def test_subject_and_side_are_read_from_the_name(stem, expected):
    assert subject_and_side(stem) == expected


@pytest.mark.parametrize(
    ("stem", "side"),
    [
        ("12345-L", "L"),
        ("12345 R", "R"),
        ("9000017_RIGHT", "R"),
        ("KNEE_LEFT", "L"),
        ("knee_R", "R"),
        ("R_knee", "R"),
        ("r", "R"),
        ("knee_right_2", "R"),
        ("right knee R", "R"),
        # no words, or words of both sides
        ("lateral", None),
        ("9003175L", None),
        ("bright_knee", None),
        ("L5.R1", None),
        ("R_and_L", None),
        ("left right", None),
    ],
)
def test_a_side_is_a_word_of_the_name_of_its_own(stem, side):
    assert named_side(stem) == side
