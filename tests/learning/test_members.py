"""What a member's card says of how it was made."""

from kneeoa_mm.learning import members


def test_a_library_that_is_an_extra_need_not_be_there(monkeypatch):
    monkeypatch.setattr(members, "_LIBRARIES", ("torch", "no-such-library"))
    assert set(members._software()) == {"python", "torch"}
