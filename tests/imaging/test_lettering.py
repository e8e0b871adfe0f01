"""Lines of text in the borders of a film: rows of glyphs raise the flag, side markers do not."""

from __future__ import annotations

import numpy as np
import phantoms
import pytest
from PIL import Image, ImageDraw, ImageFont

from kneeoa_mm.imaging.lettering import shows_text

FILM = (phantoms.knee_film(spacing_mm=(0.3, 0.3)) * 3000).astype(np.float32)


def _printed(text: str, *, size: int = 28, place: tuple[float, float] = (0.03, 0.04)) -> np.ndarray:
    """The film with ``text`` in white, its upper left corner at shares of width and height."""
    rows, columns = FILM.shape
    ink = Image.new("L", (columns, rows))
    font = ImageFont.load_default(size=size)
    ImageDraw.Draw(ink).text((place[0] * columns, place[1] * rows), text, fill=255, font=font)
    return np.where(np.asarray(ink) > 127, 4095, FILM).astype(np.float32)


@pytest.mark.parametrize(
    ("film", "is_text"),
    [
        (_printed("DOE JANE 1951-02-03"), True),
        (_printed("Hospital of Somewhere"), True),
        (_printed("DOE JANE 1951-02-03", place=(0.5, 0.95)), True),
        (_printed("DOE JANE\n1951-02-03 F", size=20), True),
        (FILM, False),
        (_printed("R"), False),
        (_printed("R  PA", size=60), False),
        (_printed("L STAND"), False),
        # on the knee itself nothing is looked for
        (_printed("DOE JANE 1951-02-03", place=(0.3, 0.5)), False),
        # ten balls of a positioning frame, below each other
        (_printed("\n".join("o" * 12)), False),
    ],
)
def test_only_lines_of_many_glyphs_are_suspected(film: np.ndarray, is_text: bool) -> None:
    assert shows_text(film) == is_text


@pytest.mark.parametrize("share", [0.0, 0.002, 0.02, 0.5, 1.0])
def test_noise_and_overexposure_are_no_text(share: float) -> None:
    rng = np.random.default_rng(1)
    film = np.where(rng.random(FILM.shape) < share, 4095, FILM).astype(np.float32)
    assert not shows_text(film)
