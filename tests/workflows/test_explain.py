"""Films for ``explain``: read as ``preprocess`` reads them, and from their folder alone."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from kneeoa_mm.errors import InputError, ItemError
from kneeoa_mm.learning.saliency import explain as stage
from kneeoa_mm.records import StageResult
from kneeoa_mm.settings import PreprocessConfig
from kneeoa_mm.workflows.explain import explain


@pytest.fixture
def read_film(tmp_path, monkeypatch):
    """What the workflow hands to ``learning`` for a folder with one film."""
    greys = np.tile(np.arange(100, dtype=np.uint8), (80, 1))
    (tmp_path / "films" / "V00").mkdir(parents=True)
    for path in ("films/V00/1.png", "outside.png"):
        Image.fromarray(greys).save(tmp_path / path)
    monkeypatch.setattr(stage, "explain", lambda *_, **options: options["read_film"])
    return explain(tmp_path, tmp_path, tmp_path, films=tmp_path / "films")


def test_a_film_is_read_by_its_source(read_film):
    greys = read_film("V00/1.png")
    assert greys.shape == (80, 100)
    assert greys[0, 0] < greys[0, 99]


@pytest.mark.parametrize("source", ["../outside.png", "V00/2.png", "V00"])
def test_a_film_that_is_not_in_the_folder_costs_its_overlay_alone(read_film, source):
    with pytest.raises(ItemError):
        read_film(source)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_films_are_refused_by_the_settings_of_the_run_that_cut_the_knees(read_film, tmp_path):
    """And read apart: one that hangs its decoder, as a pipe does, is given up in time."""
    film, hanging = (tmp_path / "films" / "V00" / name for name in ("1.png", "hangs.png"))
    os.mkfifo(hanging)
    (tmp_path / ".inputs.json").write_text("{}")
    settings = PreprocessConfig(max_pixels=100, film_timeout_s=0.5)
    (tmp_path / "config.yaml").write_text(settings.to_yaml())
    table = tmp_path / "knees.parquet"
    for data in (tmp_path, table):
        read = explain(data, tmp_path, tmp_path, films=tmp_path / "films")
        with pytest.raises(ItemError, match="E_TOO_LARGE"):
            read(f"V00/{film.name}")
    with pytest.raises(ItemError, match="E_TIMEOUT"):
        read(f"V00/{hanging.name}")


def test_a_folder_that_is_not_there_stops_the_run(tmp_path):
    with pytest.raises(InputError, match="films"):
        explain(tmp_path, tmp_path, tmp_path, films=tmp_path / "absent")


def test_maps_of_held_out_knees_leave_a_line_beside_the_model(tmp_path, monkeypatch):
    model, out = tmp_path / "runs" / "kl", tmp_path / "out"
    model.mkdir(parents=True)
    (model / "config.yaml").write_text("seed: 0\n")

    def explained(*_args, **_options):
        out.mkdir()
        rows = ["knee_id,member,split", "a,00,test", "a,01,test", "b,00,train"]
        (out / "saliency.csv").write_text("\n".join(rows))
        return StageResult("explain", out)

    monkeypatch.setattr(stage, "explain", explained)
    result = explain(tmp_path, model, out)
    (line,) = (tmp_path / "runs" / "kl.looks.jsonl").read_text().splitlines()
    assert (json.loads(line)["command"], json.loads(line)["knees"]) == ("explain", 1)
    assert any("the first look" in note for note in result.notes)
