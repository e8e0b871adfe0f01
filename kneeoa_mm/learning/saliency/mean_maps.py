"""Mean maps of many knees, all as right knees, by grade and by error."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kneeoa_mm.learning.saliency.overlays import overlay, scaled, sheet
from kneeoa_mm.learning.saliency.question import Attribution, Method
from kneeoa_mm.metrics import DECISION_THRESHOLD

ALL = "all"


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


@dataclass
class MeanMaps:
    """Sums of maps by group and method, which grow a knee at a time.

    Each person counts once: the maps of both knees share the weight.
    """

    knees_of: dict[str, int]
    """Number of explained knees of each person."""
    _maps: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)
    _grey: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    _weights: dict[tuple[str, str], float] = field(default_factory=dict)
    _knees: dict[str, int] = field(default_factory=dict)
    _persons: dict[str, set[str]] = field(default_factory=dict)

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
        weight = 1 / self.knees_of[person]
        for group in groups:
            self._knees[group] = self._knees.get(group, 0) + 1
            self._persons.setdefault(group, set()).add(person)
            self._grey.setdefault(group, np.zeros(grey.shape))
            self._grey[group] += weight * grey
            self._weights[group, ""] = self._weights.get((group, ""), 0.0) + weight
            for each in found:
                if each.is_drawn:
                    key = (group, str(each.method))
                    self._maps.setdefault(key, np.zeros(grey.shape))
                    # signs of an input gradient cancel between knees; its size does not
                    is_size = each.method is Method.SALIENCY
                    self._maps[key] += weight * (np.abs(each.pixels) if is_size else each.pixels)
                    self._weights[key] = self._weights.get(key, 0.0) + weight

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Means by ``<group>/<method>``, and of the knees by ``<group>/image``."""
        maps = {
            "/".join(key): (total / self._weights[key]).astype(np.float32)
            for key, total in self._maps.items()
        }
        images = {
            f"{group}/image": (total / self._weights[group, ""]).astype(np.float32)
            for group, total in self._grey.items()
        }
        return maps | images

    def picture(self, methods: list[Method]) -> Image.Image:
        """A row a group: the mean knee, then the mean map of each method over it."""
        means = self.arrays()
        rows = []
        for group in [ALL, *sorted(set(self._grey) - {ALL})]:
            grey = np.round(means[f"{group}/image"]).astype(np.uint8)
            tiles = [("mean knee", grey)]
            for method in methods:
                mean = means.get(f"{group}/{method}")
                if mean is not None:
                    tiles.append((str(method), overlay(grey, scaled(Attribution(method, mean)))))
            counts = f"knees {self._knees[group]}, persons {len(self._persons[group])}"
            rows.append((f"{group.replace('_', ' ')}: {counts}", tiles))
        return sheet(rows)
