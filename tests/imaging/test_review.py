"""The review page: names are never run, the doubtful come first, and it stays small."""

from __future__ import annotations

import csv
import html
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from kneeoa_mm.imaging import review
from kneeoa_mm.imaging.contact_sheet import Entry, doubtful_first, write_contact_sheet
from kneeoa_mm.imaging.exclusions import read_exclusions
from kneeoa_mm.imaging.review import write_review
from kneeoa_mm.records import Reject

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


class _Page(HTMLParser):
    """Tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def _entry(folder: Path, name: str, flags: str = "", score: float = 0.9, source: str = "") -> Entry:
    image = folder / "knee.png"
    if not image.exists():
        grey = np.random.default_rng(0).integers(0, 2**16, (90, 60), dtype=np.uint16)
        Image.fromarray(grey).save(image)
    return Entry(image, name, score, flags, source)


def _write(
    folder: Path, entries: list[Entry], rejects: tuple[Reject, ...] = ()
) -> tuple[str, _Page]:
    text = write_review(entries, rejects, folder / "review.html").read_text(encoding="utf-8")
    return text, _Page(text)


def test_names_are_shown_and_never_run(tmp_path: Path) -> None:
    entries = [_entry(tmp_path, EVIL, EVIL, source=EVIL)]
    text, page = _write(tmp_path, entries, (Reject(EVIL, EVIL, EVIL, EVIL),))
    assert EVIL not in text
    heading = re.search("<h2>(.*?)</h2>", text)
    assert heading is not None
    assert html.unescape(heading[1]) == EVIL
    assert len(page.of("script")) == 1
    assert [image for image in page.of("img") if not (image["src"] or "").startswith("data:")] == []
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    (card,) = [item for item in page.of("li") if "data-knee" in item]
    assert card["data-knee"] == EVIL


def test_the_page_asks_no_server(tmp_path: Path) -> None:
    text, page = _write(tmp_path, [_entry(tmp_path, "a:1:0:L", "negative")])
    assert "://" not in text
    assert page.of("link") == []
    (policy,) = [meta for meta in page.of("meta") if "http-equiv" in meta]
    assert "default-src 'none'" in (policy["content"] or "")


def test_knees_with_doubts_come_before_those_with_remarks(tmp_path: Path) -> None:
    """A run without millimetres flags all its knees; that must not hide the one negative."""
    entries = [
        _entry(tmp_path, "sure", "spacing_none;already_cropped", 0.9),
        _entry(tmp_path, "plain", "", 0.1),
        _entry(tmp_path, "unsure", "spacing_none", 0.3),
        _entry(tmp_path, "negative", "negative", 0.9),
        _entry(tmp_path, "worst", "rotated;hardware", 0.9),
        _entry(tmp_path, "negative2", "negative", 0.5),
    ]
    names = [entry.knee_id for entry in doubtful_first(entries)]
    assert names == ["worst", "negative2", "negative", "sure", "unsure", "plain"]
    _, page = _write(tmp_path, entries)
    assert [item["data-knee"] for item in page.of("li") if "data-knee" in item] == names


def test_a_large_run_makes_a_bounded_page_with_counts_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review, "_MOST_KNEES", 5)
    entries = [_entry(tmp_path, f"a:{i}:0:L", "hardware" if i % 2 else "") for i in range(40)]
    text, page = _write(tmp_path, entries)
    assert len(page.of("img")) == 5
    assert re.search(r"<b>20</b> carry a doubt", text)
    assert "5 of 20" in text


@pytest.mark.parametrize("knees", [0, 1])
def test_films_without_a_knee_are_listed_by_their_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knees: int
) -> None:
    """The most frequent reason first, and no list too long to look through."""
    monkeypatch.setattr(review, "_MOST_REJECTS", 3)
    rejects = [Reject("a.dcm", "read", "E_EMPTY", "the file is empty")]
    rejects += [Reject(f"{i}.dcm", "detect", "E_NO_JOINT", "no joint") for i in range(5)]
    entries = [_entry(tmp_path, "a:1:0:L")] * knees
    text, _ = _write(tmp_path, entries, tuple(rejects))
    assert re.findall("<h3>(.*?)</h3>", text) == ["E_NO_JOINT", "E_EMPTY"]
    assert re.findall("<li>(.*?): no joint</li>", text) == ["0.dcm", "1.dcm", "2.dcm"]
    assert "and 2 more" in text
    assert "<li>a.dcm: the file is empty</li>" in text


def test_pictures_keep_their_shape_and_are_small(tmp_path: Path) -> None:
    _, page = _write(tmp_path, [_entry(tmp_path, "a:1:0:L")])
    (image,) = page.of("img")
    assert int(image["height"] or 0) == 160
    assert int(image["width"] or 0) == round(160 * 60 / 90)


def test_the_contact_sheet_takes_images_of_any_shape(tmp_path: Path) -> None:
    sheet = write_contact_sheet([_entry(tmp_path, "a:1:0:L")], tmp_path / "sheet.png")
    with Image.open(sheet) as picture:
        pixels = np.asarray(picture)
    assert pixels[:176, 30:140].std() > 20


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser to run the page in")
def test_the_list_that_the_page_saves_is_read_back(tmp_path: Path) -> None:
    """A browser ticks a knee, gives a reason, and hands over the text of exclude.csv."""
    names = ["-:1:0:L", 'a:quo"ted, name:0:R', EVIL]
    text, _ = _write(tmp_path, [_entry(tmp_path, name) for name in names])
    steps = """
    document.querySelectorAll(".card").forEach(card => {
      tick(card).click();
      reason(card).value = 'an "implant",\\n in view';
    });
    document.title = encodeURIComponent(csv());
    </script></body>"""
    page = tmp_path / "driven.html"
    page.write_text(text.replace("</script>\n</body>", steps), encoding="utf-8")
    browser = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    saved = tmp_path / "exclude.csv"
    title = re.search("<title>(.*?)</title>", browser.stdout, re.DOTALL)
    assert title is not None
    saved.write_bytes(unquote(html.unescape(title[1])).encode())
    with saved.open(newline="", encoding="utf-8") as stream:
        rows = {row["knee_id"]: row["reason"] for row in csv.DictReader(stream)}
    assert rows == dict.fromkeys(names, 'an "implant", in view')
    assert dict(read_exclusions(saved).reasons) == rows
