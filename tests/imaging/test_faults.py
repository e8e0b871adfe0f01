"""Whatever is raised while a film is read costs that film, and only a person ends the run."""

from __future__ import annotations

import errno

import pytest
from PIL import UnidentifiedImageError

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.faults import as_item_errors


class _PanicException(BaseException):
    """As a decoder in Rust panics: past every ``except Exception``."""


def _fault(error: BaseException) -> ItemError:
    with pytest.raises(ItemError) as caught, as_item_errors("decode", "E_DECODE"):
        raise error
    return caught.value


def test_a_decoder_that_panics_costs_its_film_and_tells_nothing_of_it() -> None:
    fault = _fault(_PanicException("called on Zelenka"))
    assert (fault.code, fault.stage) == ("E_DECODE", "decode")
    assert "Zelenka" not in str(fault)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_person_who_ends_the_run_is_obeyed(error: type[BaseException]) -> None:
    with pytest.raises(error), as_item_errors("decode", "E_DECODE"):
        raise error


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_what_the_system_refuses_is_no_fault_of_the_film(number: int) -> None:
    """At whatever step the drive fails: it may be back when the run goes on."""
    fault = _fault(OSError(number, "of Zelenka"))
    assert (fault.code, fault.stage) == ("E_READ", "read")
    assert errno.errorcode[number] in fault.message
    assert "Zelenka" not in str(fault)


def test_a_library_that_calls_damage_an_error_of_the_system_is_not_believed() -> None:
    """Pillow raises an OSError for a file that it cannot make out."""
    assert _fault(UnidentifiedImageError("damaged")).code == "E_DECODE"
    assert _fault(OSError("image file is truncated")).code == "E_DECODE"
