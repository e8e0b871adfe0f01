"""The folder beside a report: every table and figure of the page, safe to open and to replace."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from report_runs import EVIL, Page

from kneeoa_mm.analysis.report import report
from kneeoa_mm.errors import OutputExistsError


@pytest.fixture(scope="module")
def made(tmp_path_factory, runs) -> tuple[Path, Page]:
    """The folder, and the page that it stands beside."""
    out = tmp_path_factory.mktemp("report") / "paper.html"
    report([runs], out)
    return out.with_name("paper_files"), Page(out)


def index(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "index.csv", keep_default_na=False)


def test_every_table_of_the_page_is_a_csv_of_its_own(made):
    folder, page = made
    tables = index(folder).query("label.str.startswith('Table')")
    ids = [value for tag, name, value in page.attributes if (tag, name) == ("p", "id")]
    assert tables["label"].str.lower().str.replace(" ", "-").tolist() == ids
    for name in tables["file"]:
        with (folder / name).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream))
        assert len({len(row) for row in rows}) == 1, name
        assert len(set(rows[0])) == len(rows[0]), "columns have names of their own"


def test_figures_are_svg_and_png_and_pictures_of_pixels_png(made):
    folder, page = made
    figures = index(folder).query("label.str.startswith('Figure')")
    assert figures["label"].nunique() == len(page.pictures())
    by_label = figures.groupby("label")["file"].agg(lambda f: {Path(n).suffix for n in f})
    assert {frozenset(suffixes) for suffixes in by_label} == {
        frozenset({".png"}),
        frozenset({".png", ".svg"}),
    }
    drawn = figures[figures["run"].str.endswith(("evaluation", "survival", "comparison"))]
    assert {".png", ".svg"} == {Path(name).suffix for name in drawn["file"]}
    for name in figures["file"]:
        content = (folder / name).read_bytes()
        if name.endswith(".svg"):
            assert b"</svg>" in content
        else:
            Image.open(io.BytesIO(content)).load()


def test_names_of_files_are_plain_whatever_runs_contain(made):
    folder, _ = made
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    assert names
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.") for name in names)


def test_a_model_card_is_a_file_that_shows_hostile_text_as_text(made):
    folder, _ = made
    (card,) = (folder / "model-cards").iterdir()
    text = card.read_text(encoding="utf-8")
    assert "## Intended use" in text
    assert EVIL not in text
    assert "\\<script\\>" in text


def test_methods_hold_the_numbers_of_the_runs(made):
    folder, page = made
    text = (folder / "methods.txt").read_text(encoding="utf-8")
    assert "240 knees of 120 persons" in text
    assert "120 knees of 60 persons" in text
    assert "square crops of 140 mm" in text
    assert "seed 7" in text
    assert " ".join(text.split())[:200] in " ".join(page.text.split())


def test_an_earlier_folder_is_replaced_and_a_foreign_one_is_kept(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "saliency.csv").write_text("knee_id,image\n")
    out = tmp_path / "r.html"
    report([tmp_path / "run"], out)
    (tmp_path / "r_files" / "old.txt").write_text("old")
    with pytest.raises(OutputExistsError):
        report([tmp_path / "run"], out)
    report([tmp_path / "run"], out, overwrite=True)
    assert not (tmp_path / "r_files" / "old.txt").exists()
    (tmp_path / "s_files").mkdir()
    (tmp_path / "s_files" / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        report([tmp_path / "run"], tmp_path / "s.html", overwrite=True)
    assert (tmp_path / "s_files" / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "s.html").exists()
