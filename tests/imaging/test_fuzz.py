"""Two thousand damaged films: each is read or refused by name, and none does any harm."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import phantoms
import pytest
from encodings_of_films import LOSSLESS, LOSSY, write_encoded
from mutations import Damage, Outcome, read_damaged
from PIL import Image

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.runner import run_films

FILMS = 2000
MOST_MEMORY_MB = 600
"""Of a worker; about 150 MB are Python and its libraries."""


def _bases(folder: Path) -> list[Path]:
    film = phantoms.knee_film(spacing_mm=(3.5, 3.5))
    bases = []
    for number, name in enumerate([*LOSSLESS, *LOSSY]):
        bits = 8 if name == "JPEG baseline" else 12
        values = phantoms.stored(film, bits=bits)
        elements = {"WindowCenter": 2**bits // 2, "WindowWidth": 2**bits, "PixelPaddingValue": 0}
        path = folder / f"film{number}.dcm"
        try:
            bases.append(write_encoded(name, path, values, bits=bits, **elements))
        except pytest.skip.Exception:
            continue
    for suffix, bits in {"png": 16, "tif": 16, "tiff": 8, "jpg": 8, "bmp": 8}.items():
        bases.append(folder / f"picture.{suffix}")
        options = {"compression": "tiff_lzw"} if suffix == "tiff" else {}
        Image.fromarray(phantoms.stored(film, bits=bits)).save(bases[-1], **options)
    return bases


def test_no_damaged_film_crashes_hangs_or_prints(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bases = _bases(tmp_path)
    damages = [Damage(bases[seed % len(bases)], seed, tmp_path) for seed in range(FILMS)]
    outcomes: list[Outcome] = []
    for damage, outcome in zip(
        damages, run_films(read_damaged, damages, jobs=2, timeout_s=20.0), strict=True
    ):
        assert not isinstance(outcome, ItemError), f"{damage.base.name} {damage.seed}: {outcome}"
        assert not outcome.fault, f"{outcome.name}: {outcome.fault}"
        outcomes.append(outcome)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert max(outcome.peak_mb for outcome in outcomes) < MOST_MEMORY_MB
    codes = Counter(outcome.code for outcome in outcomes)
    assert 0.1 < codes["film"] / FILMS < 0.7
    assert {"E_TRUNCATED", "E_DECODE", "E_TRANSFER_SYNTAX", "E_TOO_LARGE"} <= set(codes)
