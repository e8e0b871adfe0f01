"""Numbers as texts of the report."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kneeoa_mm.analysis.report.parts import NOTHING, Bar, Tile
from kneeoa_mm.records import Estimate


def show(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits, or a dash.

    Example:
        >>> show(0.5), show(None), show(-0.0001)
        ('0.500', '–', '0.000')
    """
    if value is None:
        return NOTHING
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def show_interval(estimate: Estimate, digits: int = 3) -> str:
    """The interval, or a dash.

    Example:
        >>> show_interval(Estimate(0.7, 0.61, 0.79, 100), digits=2)
        '0.61 to 0.79'
    """
    if estimate.ci_low is None or estimate.ci_high is None:
        return NOTHING
    return f"{show(estimate.ci_low, digits)} to {show(estimate.ci_high, digits)}"


def with_interval(estimate: Estimate, digits: int = 3) -> str:
    """Value and interval in one cell; without a value, why there is none.

    Example:
        >>> with_interval(Estimate(0.7, 0.61, 0.79, 100), digits=2)
        '0.70 (0.61 to 0.79)'
        >>> with_interval(Estimate(None, reason="no events"))
        'no events'
    """
    if estimate.value is None:
        return estimate.reason or NOTHING
    if estimate.ci_low is None or estimate.ci_high is None:
        return show(estimate.value, digits)
    return f"{show(estimate.value, digits)} ({show_interval(estimate, digits)})"


def tile_of(label: str, estimate: Estimate, digits: int = 2) -> Tile:
    """A tile of an estimate; without a value or a sound interval it says why."""
    if estimate.value is None:
        return Tile(label, NOTHING, estimate.reason or "")
    interval = f"95 % CI {show_interval(estimate, digits)}"
    interval += f"; {estimate.note}" if estimate.note else ""
    detail = interval if estimate.ci_low is not None else estimate.reason or ""
    return Tile(label, show(estimate.value, digits), detail)


def bar_of(estimate: Estimate) -> Bar | None:
    """The little plot of an estimate between 0 and 1."""
    if estimate.value is None or estimate.ci_low is None or estimate.ci_high is None:
        return None
    within = 0 <= estimate.ci_low <= estimate.ci_high <= 1
    return Bar(estimate.ci_low, estimate.value, estimate.ci_high) if within else None


def p_value(value: float | None) -> str:
    """A P value as papers write it.

    Example:
        >>> p_value(0.0004), p_value(0.0412), p_value(None)
        ('<0.001', '0.041', '–')
    """
    if value is None or not np.isfinite(value):
        return NOTHING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def plain(name: object) -> str:
    """A name of a column or code in words.

    Example:
        >>> plain("no_baseline_reading"), plain("baseline_kl_4")
        ('no baseline reading', 'baseline KL 4')
    """
    words = str(name).replace("_", " ").split(" ")
    return " ".join("KL" if word == "kl" else word for word in words)


def setting(name: str, value: object) -> str:
    """A setting in words, its unit behind the number.

    Example:
        >>> setting("rotation_deg", 10.0), setting("image_size_px", 96), setting("dropout", 0.2)
        ('rotation 10°', 'image size 96 px', 'dropout 0.2')
    """
    stem, _, unit = name.rpartition("_")
    number = f"{value:g}" if isinstance(value, float) else str(value)
    if unit == "deg":
        return f"{plain(stem)} {number}°"
    return f"{plain(stem)} {number} {unit}" if unit in {"mm", "px"} else f"{plain(name)} {number}"


def listed(items: Iterable[object]) -> str:
    """Things in a sentence.

    Example:
        >>> listed(["a", "b", "c"]), listed(["a"])
        ('a, b and c', 'a')
    """
    texts = [str(item) for item in items]
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else "".join(texts)


def counted(number: int, thing: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "knee"), counted(1200, "knee")
        ('1 knee', '1,200 knees')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
