"""The report in a real browser: no complaint, every picture there, nothing too wide or tiny."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import Tab, open_browser
from report_runs import EVIL

from kneeoa_mm.analysis.report import report

PICTURES = "[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt])"
TOO_WIDE = """[...document.querySelectorAll('body *')]
    .filter(e => !e.closest('.scroll') && !e.closest('pre'))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.tagName + ' ' + e.textContent.slice(0, 60))"""
TINY = """[...document.querySelectorAll('main *')]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .filter(e => e.getClientRects().length && parseFloat(getComputedStyle(e).fontSize) < 11.5)
    .map(e => e.tagName + ' ' + e.textContent.slice(0, 60))"""


@pytest.fixture(scope="module")
def page(tmp_path_factory, runs) -> Path:
    out = tmp_path_factory.mktemp("report") / "report.html"
    return report([runs], out, title=f"{EVIL} title").out


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.mark.parametrize("width_px", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_stands_without_complaint(tab: Tab, page, width_px, scheme):
    tab.open(page, width_px=width_px, scheme=scheme)
    pictures = tab.ask(PICTURES)
    assert len(pictures) > 10
    assert [alt for is_whole, alt in pictures if not is_whole] == []
    assert tab.ask("document.title") == f"{EVIL} title"
    assert tab.errors == []


@pytest.mark.parametrize("width_px", [1280, 390])
def test_nothing_is_wider_than_the_screen_or_too_small_to_read(tab: Tab, page, width_px):
    tab.open(page, width_px=width_px)
    assert tab.ask("document.documentElement.scrollWidth") == width_px
    assert tab.ask(TOO_WIDE) == []
    assert tab.ask(TINY) == []


def test_it_prints(tab: Tab, page):
    tab.open(page, width_px=1280)
    content = tab.pdf()
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") > 5


def test_the_browser_would_have_complained(tab: Tab, tmp_path):
    """The test can fail: a missing picture and a forbidden script are both noticed."""
    broken = tmp_path / "broken.html"
    policy = "default-src 'none'; img-src data:"
    broken.write_text(
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<img src="data:image/png;base64,AAAA" alt="lost"><script>alert(1)</script>'
    )
    tab.open(broken, width_px=1280)
    assert tab.ask(PICTURES) == [[False, "lost"]]
    assert any("Content Security Policy" in error for error in tab.errors)
    tab.errors.clear()
