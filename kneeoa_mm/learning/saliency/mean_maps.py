"""Mean maps of many knees, all as right knees, by grade and by error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kneeoa_mm.learning.saliency.overlays import overlay, scaled, sheet
from kneeoa_mm.learning.saliency.question import Attribution, Method
from kneeoa_mm.metrics import DECISION_THRESHOLD

ALL = "all"
_IMAGE = "image"
"""Stands for the knee itself where a method stands for its map."""


def groups_of(grade: int | None, predicted: int | None) -> list[str]:
    """The groups of a knee by its grade: all, its true grade, and how the model erred.

    Example:
        >>> groups_of(3, 2)
        ['all', 'true_kl_3', 'graded_too_low']
        >>> groups_of(None, 2)
        ['all', 'predicted_kl_2']
    """
    if grade is None:
        return [ALL, f"predicted_kl_{predicted}"]
    errors = {-1: "graded_too_low", 0: "graded_right", 1: "graded_too_high"}
    return [ALL, f"true_kl_{grade}", errors[int(np.sign((predicted or 0) - grade))]]


def risk_groups(event: int | None, probability: float, grade: int | None = None) -> list[str]:
    """The groups of a knee by its outcome, at a risk of one half, and by its grade.

    Example:
        >>> risk_groups(1, 0.2, 2)
        ['all', 'true_kl_2', 'event', 'event_missed']
        >>> risk_groups(None, 0.2)
        ['all']
    """
    groups = [ALL] if grade is None else [ALL, f"true_kl_{grade}"]
    if event is None:
        return groups
    is_alarm = probability >= DECISION_THRESHOLD
    if event:
        return [*groups, "event", "event_found" if is_alarm else "event_missed"]
    return [*groups, "no_event", "false_alarm" if is_alarm else "no_event_found"]


class _Knee(NamedTuple):
    """What waits for the other knees of its person."""

    groups: list[str]
    grey: NDArray[np.uint8]
    found: list[Attribution]


@dataclass
class MeanMaps:
    """Sums of maps by group and method, which grow a person at a time.

    Each person counts once in each group: their knees there share the weight, and knees of other
    groups take none of it.
    """

    knees_of: Mapping[str, int]
    """Number of explained knees of each person; when the last is added, the person is counted."""
    _waiting: dict[str, list[_Knee]] = field(default_factory=dict)
    _sums: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)
    _persons: Counter[tuple[str, str]] = field(default_factory=Counter)
    _knees: Counter[str] = field(default_factory=Counter)

    def add(
        self, person: str, groups: list[str], grey: NDArray[np.uint8], found: list[Attribution]
    ) -> None:
        """Add the maps of one knee.

        Args:
            person: Whose knee.
            groups: Where it belongs.
            grey: The knee as the network saw it, (S, S).
            found: Its maps, (S, S) each.
        """
        self._knees.update(groups)
        knees = self._waiting.setdefault(person, [])
        knees.append(_Knee(groups, grey, found))
        if len(knees) == self.knees_of[person]:
            self._count(self._waiting.pop(person))

    def _count(self, knees: list[_Knee]) -> None:
        """Add the mean of a person's knees in each group."""
        pictures: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
        for knee in knees:
            maps = {str(each.method): _summed(each) for each in knee.found if each.is_drawn}
            for name, pixels in {_IMAGE: knee.grey.astype(np.float64), **maps}.items():
                for group in knee.groups:
                    pictures.setdefault((group, name), []).append(pixels)
        for key, own in pictures.items():
            mean = np.mean(own, axis=0)
            self._sums[key] = self._sums[key] + mean if key in self._sums else mean
            self._persons[key] += 1

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Means by ``<group>/<method>``, and of the knees by ``<group>/image``."""
        return {
            "/".join(key): (total / self._persons[key]).astype(np.float32)
            for key, total in self._sums.items()
        }

    def picture(self, methods: list[Method]) -> Image.Image:
        """A row a group: the mean knee, then the mean map of each method over it."""
        means = self.arrays()
        rows = []
        for group in [ALL, *sorted(set(self._knees) - {ALL})]:
            grey = np.round(means[f"{group}/{_IMAGE}"]).astype(np.uint8)
            tiles = [("mean knee", grey)]
            for method in methods:
                mean = means.get(f"{group}/{method}")
                if mean is not None:
                    tiles.append((str(method), overlay(grey, scaled(Attribution(method, mean)))))
            counts = f"knees {self._knees[group]}, persons {self._persons[group, _IMAGE]}"
            rows.append((f"{group.replace('_', ' ')}: {counts}", tiles))
        return sheet(rows)


def _summed(found: Attribution) -> NDArray[np.float64]:
    """The pixels of a map as they are summed, (S, S)."""
    # signs of an input gradient cancel between knees; its size does not
    pixels = np.abs(found.pixels) if found.method is Method.SALIENCY else found.pixels
    return pixels.astype(np.float64)
