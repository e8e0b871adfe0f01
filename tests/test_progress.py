"""Progress: plain lines where nobody watches, a bar on a terminal, and honest times."""

import io
import re

import pytest

from kneeoa_mm import progress


class Clock:
    """Time that passes only when told."""

    def __init__(self):
        self.seconds = 100.0

    def monotonic(self):
        return self.seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def slowly(clock, *seconds):
    for item, pause in enumerate(seconds):
        clock.seconds += pause
        yield item


def test_lines_tell_speed_time_left_and_what_else_there_is(clock, capsys):
    """Of 1000, 400 were done before; neither they nor the start count for the speed."""
    rejected = []
    tracked = progress.track(
        slowly(clock, 11, 4, 4, 4),
        total=1000,
        already=400,
        label="preprocess",
        status=lambda: f"{len(rejected)} rejected",
    )
    for item in tracked:
        if item % 2 == 0:
            rejected.append(item)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "preprocess: 401/1000, 1 rejected",
        "preprocess: 404/1000, 0.2/s, 0:39:44 left, 2 rejected",
    ]


def test_quick_work_says_nothing_and_all_items_come_through(clock, capsys):
    tracked = progress.track(slowly(clock, *[0.1] * 50), total=50, label="read")
    assert list(tracked) == list(range(50))
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_the_same_facts(clock, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    tracked = progress.track(
        slowly(clock, 2, 2), total=4, already=2, label="preprocess", status=lambda: "1 rejected"
    )
    assert list(tracked) == [0, 1]
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "4/4" in shown
    assert "0.5/s, 0:00:00 left, 1 rejected" in shown
