"""Films saved as pictures: greys survive, and nothing that is no film passes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import phantoms
import pytest
from PIL import Image

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.pictures import is_picture, read_picture
from kneeoa_mm.imaging.radiograph import Radiograph
from kneeoa_mm.records import SpacingSource, View

FILM = phantoms.knee_film(spacing_mm=(4.0, 4.0))
DEEP = phantoms.stored(FILM, bits=16)
FLAT_8 = phantoms.stored(FILM, bits=8)


def _read(path: Path, max_pixels: int = 1_000_000) -> Radiograph:
    return read_picture(path, max_pixels=max_pixels)


def _save(path: Path, values: np.ndarray | Image.Image, **options: Any) -> Path:
    picture = Image.fromarray(values) if isinstance(values, np.ndarray) else values
    picture.save(path, **options)
    return path


def _refusal(path: Path, max_pixels: int = 1_000_000) -> ItemError:
    with pytest.raises(ItemError) as caught:
        _read(path, max_pixels)
    return caught.value


def _greys(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.int64) - values.min()).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "values", "options"),
    [
        ("a.png", DEEP, {}),
        ("a.tif", DEEP, {}),
        ("a.tif", DEEP.astype(">u2"), {}),
        ("a.tiff", DEEP, {"compression": "tiff_lzw"}),
        ("a.tif", DEEP.astype(np.int32), {}),
        ("a.png", FLAT_8, {}),
        ("a.tif", FLAT_8, {"compression": "tiff_deflate"}),
        ("a.bmp", FLAT_8, {}),
    ],
)
def test_lossless_pictures_give_their_greys(
    tmp_path: Path, name: str, values: np.ndarray, options: dict[str, Any]
) -> None:
    """Sixteen bits stay sixteen: Pillow's own way to grey clips them at 255."""
    film = _read(_save(tmp_path / name, values, **options))
    np.testing.assert_array_equal(film.pixels, _greys(values))
    assert film.pixels.dtype == np.float32


def test_jpeg_stays_near_the_film(tmp_path: Path) -> None:
    film = _read(_save(tmp_path / "a.jpg", FLAT_8, quality=95))
    assert np.abs(film.pixels - film.pixels.mean() - FLAT_8 + FLAT_8.mean()).mean() < 3


@pytest.mark.parametrize("values", [DEEP, FLAT_8])
def test_tiffs_whose_zero_is_white_are_turned(tmp_path: Path, values: np.ndarray) -> None:
    """Pillow turns them where they have 8 bits, and forgets to where they have 16."""
    path = _save(tmp_path / "a.tif", values, compression=None)
    top = int(np.iinfo(values.dtype).max)
    content = path.read_bytes()
    photometric = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert photometric in content
    path.write_bytes(content.replace(photometric, struct.pack("<HHIHH", 262, 3, 1, 0, 0)))
    np.testing.assert_array_equal(_read(path).pixels, _greys(top - values.astype(int)))


def _channels(values: np.ndarray, mode: str) -> Image.Image:
    grey = Image.fromarray(values)
    bands = [grey] * 3 if mode.startswith("RGB") else [grey]
    if mode.endswith("A"):
        bands.append(Image.new("L", grey.size, 255))
    return Image.merge(mode, bands)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_in_several_channels_is_grey(tmp_path: Path, mode: str) -> None:
    film = _read(_save(tmp_path / "a.png", _channels(FLAT_8, mode)))
    np.testing.assert_array_equal(film.pixels, _greys(FLAT_8))


def test_a_palette_of_greys_is_looked_up(tmp_path: Path) -> None:
    picture = Image.fromarray(FLAT_8)
    picture.putpalette([255 - level // 3 for level in range(768)])
    film = _read(_save(tmp_path / "a.png", picture))
    np.testing.assert_array_equal(film.pixels, _greys(255 - FLAT_8.astype(int)))


def test_a_picture_that_says_how_it_is_turned_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = _save(tmp_path / "a.png", np.rot90(DEEP).copy(), exif=exif)
    np.testing.assert_array_equal(_read(path).pixels, _greys(DEEP))


def test_dots_an_inch_never_become_millimetres(tmp_path: Path) -> None:
    path = _save(tmp_path / "L_9000017.png", DEEP, dpi=(150, 150))
    film = _read(path)
    assert (film.spacing, film.spacing_source) == (None, SpacingSource.NONE)
    assert (film.stated_sides, film.patient_id, film.view) == (frozenset(), None, View.UNKNOWN)
    told = read_picture(path, max_pixels=1_000_000, user_spacing_mm=0.15)
    assert (told.spacing, told.spacing_source) == ((0.15, 0.15), SpacingSource.USER)


def _deep_colour(path: Path) -> Path:
    return phantoms.write_deep_png(path, np.repeat(DEEP[..., None], 3, axis=2))


def _tinted(values: np.ndarray) -> Image.Image:
    grey = Image.fromarray(values)
    return Image.merge("RGB", [grey, grey, grey.point(lambda level: level // 2)])


def _holed(values: np.ndarray) -> Image.Image:
    picture = _channels(values, "LA")
    picture.putpixel((3, 3), (0, 0))
    return picture


NOT_FILMS: list[tuple[str, str, Callable[[Path], Any]]] = [
    ("a.png", "E_EMPTY", lambda path: path.write_bytes(b"")),
    ("a.png", "E_NOT_PICTURE", lambda path: path.write_bytes(b"GIF89a and more")),
    ("a.png", "E_NOT_PROJECTION_XR", lambda path: _save(path, _tinted(FLAT_8))),
    ("a.png", "E_NOT_PROJECTION_XR", lambda path: _save(path, _holed(FLAT_8))),
    ("a.png", "E_NOT_PROJECTION_XR", _deep_colour),
    ("a.png", "E_NOT_PROJECTION_XR", lambda path: _save(path, FLAT_8 > 128)),
    ("a.tif", "E_NOT_PROJECTION_XR", lambda path: _save(path, FILM.astype(np.float32))),
    ("a.jpg", "E_NOT_PROJECTION_XR", lambda path: _save(path, Image.new("CMYK", (99, 99)))),
    (
        "a.tif",
        "E_NOT_PROJECTION_XR",
        lambda path: _save(path, DEEP, save_all=True, append_images=[Image.fromarray(DEEP)]),
    ),
    ("a.tif", "E_DECODE", lambda path: _save(path, DEEP.astype(np.int32) * 2)),
    ("a.png", "E_TOO_SMALL", lambda path: _save(path, FLAT_8[:31])),
    ("a.png", "E_FLAT", lambda path: _save(path, DEEP * 0)),
    ("a.png", "E_HEADER", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))),
]


@pytest.mark.parametrize(("name", "code", "make"), NOT_FILMS)
def test_what_is_no_film_is_refused_by_name(
    tmp_path: Path, name: str, code: str, make: Callable[[Path], Any]
) -> None:
    make(tmp_path / name)
    assert _refusal(tmp_path / name).code == code


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.tif", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.bmp", {}),
        ("a.jpg", {}),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_pictures_are_refused(
    tmp_path: Path, name: str, options: dict[str, Any], share: float
) -> None:
    path = _save(tmp_path / name, FLAT_8, **options)
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    assert _refusal(path).code in {"E_DECODE", "E_HEADER"}


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred million pixels in a few hundred kilobytes, fewer than Pillow itself minds."""
    path = _save(tmp_path / "bomb.png", Image.new("L", (10_000, 8_000)))
    assert path.stat().st_size < 200_000

    def never(*_: Any) -> None:
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    assert _refusal(path, max_pixels=50_000_000).code == "E_TOO_LARGE"


def test_what_pillow_itself_refuses_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    assert _refusal(_save(tmp_path / "a.png", DEEP)).code == "E_TOO_LARGE"


def test_a_file_larger_than_any_picture_is_not_even_opened(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", DEEP)
    with path.open("r+b") as stream:
        stream.truncate(50_000_000)
    assert _refusal(path).stage == "read"


def test_libtiff_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = _save(tmp_path / "a.tif", FLAT_8, compression="tiff_lzw")
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    assert _refusal(path).code == "E_DECODE"
    assert capfd.readouterr() == ("", "")


def test_pictures_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.tif", "a.bmp"):
        path = _save(tmp_path / name, FLAT_8)
        assert is_picture(path.rename(tmp_path / "000123"))
    text = tmp_path / "a.png"
    text.write_text("no picture")
    assert not is_picture(text)
    assert not is_picture(phantoms.write_film(tmp_path / "film.dcm", film=FILM))
