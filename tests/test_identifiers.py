"""Identifiers: the same key joins tables; another key, or none of it, tells nothing."""

import stat

import pytest

from kneeoa_mm.errors import InputError
from kneeoa_mm.identifiers import new_key_file, read_identifiers


def test_keep_keeps():
    assert read_identifiers("keep").subject_id("9003175") == "9003175"


def test_the_same_key_gives_the_same_id_and_another_key_another(tmp_path):
    made = new_key_file(tmp_path / "a.key")
    again = read_identifiers(str(tmp_path / "a.key"))
    other = new_key_file(tmp_path / "b.key")
    assert made.subject_id("9003175") == again.subject_id("9003175") != "9003175"
    assert other.subject_id("9003175") != made.subject_id("9003175")


def test_a_new_key_is_for_its_owner_alone(tmp_path):
    new_key_file(tmp_path / "a.key")
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "no hex", "abcd"])
def test_what_is_no_key_is_refused(tmp_path, content):
    (tmp_path / "bad.key").write_text(content)
    with pytest.raises(InputError, match="32 hexadecimal digits"):
        read_identifiers(str(tmp_path / "bad.key"))


def test_an_absent_key_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.key"):
        read_identifiers(str(tmp_path / "nowhere.key"))
