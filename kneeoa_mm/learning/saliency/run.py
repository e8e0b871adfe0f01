"""The output folder of ``explain``, filled a knee at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm import __version__
from kneeoa_mm.atomic_files import atomic_path, write_json
from kneeoa_mm.errors import ItemError
from kneeoa_mm.learning.dataset import read_grey
from kneeoa_mm.learning.networks import Network
from kneeoa_mm.learning.saliency import faithfulness
from kneeoa_mm.learning.saliency.explained_knee import MEAN, ExplainedKnee, Voice
from kneeoa_mm.learning.saliency.faithfulness_table import Checks
from kneeoa_mm.learning.saliency.feature_maps import LEAST_CELLS
from kneeoa_mm.learning.saliency.joint_spaces import JointSpaces
from kneeoa_mm.learning.saliency.knee_sheet import knee_sheet
from kneeoa_mm.learning.saliency.mean_maps import MeanMaps
from kneeoa_mm.learning.saliency.overlays import overlay, scaled, small, to_grey
from kneeoa_mm.learning.saliency.question import Attribution, Method
from kneeoa_mm.learning.saliency.randomisation import STAGES, randomise
from kneeoa_mm.learning.saliency.removal import control_orders, remove_at_random
from kneeoa_mm.learning.saliency.sample import spread
from kneeoa_mm.learning.saliency.tables import (
    FILM,
    IMAGE,
    LIMITS,
    factor_rows,
    knee_columns,
    map_columns,
    place_columns,
)
from kneeoa_mm.records import KneeKey
from kneeoa_mm.settings import ExplainConfig
from kneeoa_mm.tables import escape_formulas

ReadFilm = Callable[[str], NDArray[np.float32]]
"""Greys (rows, columns) of the film that ``source`` names; raises ItemError."""

_NOISE = 0.02
"""Largest noise for maximum sensitivity, as a share of the grey range (Yeh et al. 2019)."""
_WIDE_GAP = 0.1
"""Share of a difference by which integrated gradients may miss it before a note says so."""


class SaliencyRun:
    """The output folder, filled a knee at a time.

    Args:
        out: The folder.
        config: What was asked for.
        spaces: Outlines of joint spaces, for the checks.
        read_film: Gives films to draw on.
        means: Collects the mean maps.
        n_knees: How many are going to be added.
        chosen: How they were chosen.
    """

    def __init__(
        self,
        out: Path,
        config: ExplainConfig,
        spaces: JointSpaces,
        read_film: ReadFilm | None,
        means: MeanMaps,
        n_knees: int,
        chosen: str,
    ) -> None:
        self._out, self._config, self._spaces, self._means = out, config, spaces, means
        self._chosen = chosen
        self._read_film = None if read_film is None else lru_cache(maxsize=1)(read_film)
        self._checks = Checks()
        self._repeated = set(spread(np.arange(n_knees), config.repeat_knees).tolist())
        self._factors: list[dict[str, Any]] = []
        self._gaps: list[float] = []
        self._n_checked = self._n_on_film = 0
        self._film_faults: Counter[str] = Counter()
        self._stems: set[str] = set()
        self._weights: dict[str, str] = {}
        self._randomised: dict[str, list[Network]] = {}
        self._summary: list[dict[str, Any]] = []
        self.maps: list[dict[str, Any]] = []
        """Rows of ``saliency.csv``."""

    def add(self, found: ExplainedKnee, groups: list[str]) -> None:
        """Write what belongs to one knee, and count it in the mean maps of ``groups``."""
        stem = self._take_stem(str(found.knee["knee_id"]))
        told = {voice.member.name: voice.maps for voice in found.voices}
        self._weights |= {v.member.name: v.member.card.weights_sha256 for v in found.voices}
        if len(told) > 1:
            told = {MEAN: found.mean, **told}
        arrays = {f"{name}/{m.method}": m.pixels for name, maps in told.items() for m in maps}
        _write_arrays(arrays, self._out / "maps" / f"{stem}.npz")
        with atomic_path(self._out / "images" / f"{stem}.png") as temporary:
            knee_sheet(found, told).save(temporary)
        drawn_on = self._draw_where_it_was_taken(found, stem)
        knee = {
            "knee_id": found.knee["knee_id"],
            "image": f"images/{stem}.png",
            "map": f"maps/{stem}.npz",
            "overlay": f"overlays/{stem}.png",
            "drawn_on": drawn_on,
            **knee_columns(found),
        }
        places = {MEAN: found.placement} | {v.member.name: v.placement for v in found.voices}
        for name, maps in told.items():
            place = place_columns(found, places[name], drawn_on)
            self.maps += [knee | {"member": name} | map_columns(each) | place for each in maps]
            for each in maps:
                self._factors += factor_rows(found, name, each)
        first, *_ = told.values()
        difference = abs(found.log_odds - found.reference_log_odds)
        self._gaps += [
            abs(each.gap) / difference
            for each in first
            if each.method is Method.INTEGRATED_GRADIENTS and each.gap is not None and difference
        ]
        self._means.add(found.person, groups, found.grey, found.mean)
        if self._config.check:
            self._check(found)

    def _take_stem(self, knee_id: str) -> str:
        stem = KneeKey.parse(knee_id).file_stem
        if stem.casefold() in self._stems:
            # two identifiers may differ only in what a file name cannot show
            stem = f"{stem}-{hashlib.sha256(knee_id.encode()).hexdigest()[:8]}"
        self._stems.add(stem.casefold())
        return stem

    def _draw_where_it_was_taken(self, found: ExplainedKnee, stem: str) -> str:
        """The first method over the whole film, or without a film over the whole knee image."""
        place, drawn_on, on_film = found.placement, IMAGE, found.on_film(found.placement)
        pixels = None
        if self._read_film is not None and on_film is not None and "source" in found.knee:
            try:
                pixels, place, drawn_on = self._read_film(found.knee["source"]), on_film, FILM
            except ItemError as error:
                self._film_faults[error.code] += 1
        self._n_on_film += drawn_on == FILM
        grey = to_grey(read_grey(found.image_path) if pixels is None else pixels)
        heat = place.lay(scaled(found.mean[0]), (grey.shape[0], grey.shape[1]))
        with atomic_path(self._out / "overlays" / f"{stem}.png") as temporary:
            small(overlay(grey, heat)).save(temporary)
        return drawn_on

    def _check(self, found: ExplainedKnee) -> None:
        is_repeated = self._n_checked in self._repeated
        for number, voice in enumerate(found.voices):
            # each knee has its own draws, so that they vary between persons as the knees do
            rng = np.random.default_rng([self._config.seed, self._n_checked, number])
            self._check_voice(found, voice, rng, is_repeated=is_repeated)
        self._n_checked += 1

    def _check_voice(
        self, found: ExplainedKnee, voice: Voice, rng: np.random.Generator, *, is_repeated: bool
    ) -> None:
        """Check the maps of one member on one knee."""
        knee_id = str(found.knee["knee_id"])
        knee = {"knee_id": knee_id, "person": found.person, "member": voice.member.name}
        mask = self._spaces.mask(found, voice.placement, len(voice.grey))
        for name, order in control_orders(voice.question, rng).items():
            control = faithfulness.check_order(voice.question, order, self._config)
            self._checks.add(knee, name, *control)
        removals = remove_at_random(voice.question, self._config.infidelity_draws, rng)
        for each in voice.found:
            if each.is_drawn:
                values, curves = faithfulness.check(
                    voice.question, each, self._config, removals=removals, mask=mask
                )
                if is_repeated:
                    values |= self._check_again(voice, each)
                self._checks.add(knee, str(each.method), values, curves)

    def _check_again(self, voice: Voice, found: Attribution) -> dict[str, float]:
        member = voice.member
        if member.name not in self._randomised:
            question = voice.question
            self._randomised[member.name] = randomise(
                question.network, question.images, len(STAGES), self._config.seed
            )
        return faithfulness.check_again(
            voice.question,
            found,
            self._config,
            radius=_NOISE / member.card.preprocessing.std,
            randomised=self._randomised[member.name],
        )

    def finish(self) -> dict[str, Path]:
        """Write the tables and the mean maps, and return what was written."""
        out = self._out
        outputs = {"saliency": _write_csv(self.maps, out / "saliency.csv")}
        outputs |= {name: out / name for name in ("images", "overlays", "maps")}
        if self._factors:
            outputs["factors"] = _write_csv(self._factors, out / "factors.csv")
        if self.maps:
            _write_arrays(self._means.arrays(), out / "mean_maps.npz")
            with atomic_path(out / "mean_maps.png") as temporary:
                self._means.picture([Method(name) for name in self._config.methods]).save(temporary)
            outputs["mean maps"] = out / "mean_maps.png"
        if self._config.check:
            self._summary = self._checks.summary(self._config.seed)
            outputs["faithfulness"] = _write_csv(self._summary, out / "faithfulness.csv")
            _write_csv(self._checks.by_knee(), out / "faithfulness_knees.csv")
            _write_csv(self._checks.mean_curves(), out / "curves.csv")
        outputs["document"] = write_json(out / "saliency.json", self._document())
        return outputs

    def _document(self) -> dict[str, Any]:
        layers = {(row["member"], row["layer"], row["cells"]) for row in self.maps if row["layer"]}
        return {
            "package_version": __version__,
            "members": {k: {"weights_sha256": v} for k, v in sorted(self._weights.items())},
            "methods": list(self._config.methods),
            "answers": sorted({row["target"] for row in self.maps}),
            "knees": len({row["knee_id"] for row in self.maps}),
            "chosen": self._chosen,
            "drawn_on_film": self._n_on_film,
            "gradcam_layers": [
                {"member": member, "layer": layer, "cells": cells}
                for member, layer, cells in sorted(layers)
            ],
            "statuses": dict(Counter(f"{row['method']}: {row['status']}" for row in self.maps)),
            "faithfulness": self._summary,
            "limits": list(LIMITS),
        }

    def figures(self) -> dict[str, Any]:
        """The checks, for the last lines of the command."""
        found: dict[str, Any] = {}
        for row in self._summary:
            found.setdefault(row["method"], {})[row["measure"]] = row["value"]
        return found

    def _coarse(self) -> list[tuple[str, str]]:
        """Members whose Grad-CAM is too coarse, with its cells."""
        found = {(r["member"], r["cells"]) for r in self.maps if r["layer"] and r["member"] != MEAN}
        return sorted(each for each in found if int(each[1].split("x")[0]) < LEAST_CELLS)

    def notes(self) -> tuple[str, ...]:
        """What a person should know."""
        n_knees = len({row["knee_id"] for row in self.maps})
        notes = [LIMITS[0]]
        if self._n_on_film < n_knees:
            why = "".join(f"; {n} films: {code}" for code, n in self._film_faults.items())
            n = n_knees - self._n_on_film
            notes.append(f"{n} overlays are drawn on the knee image, not on the film{why}.")
        notes += [
            f"{name} has no layer with {LEAST_CELLS} x {LEAST_CELLS} cells: its Grad-CAM of "
            f"{cells} cells cannot tell one side of the joint from the other."
            for name, cells in self._coarse()
        ]
        n_answers = len({row["target"] for row in self.maps})
        if n_answers > 1:
            notes.append(
                f"The mean maps are of {n_answers} different answers; name one with --target."
            )
        gap = float(np.median(self._gaps)) if self._gaps else 0.0
        if gap > _WIDE_GAP:
            notes.append(
                f"Integrated gradients are {gap:.0%} off the difference that they share out "
                "(median); more steps lessen it (steps)."
            )
        odd = Counter(f"{r['method']}: {r['status']}" for r in self.maps if r["status"] != "ok")
        notes += [f"{count} maps of {text}." for text, count in odd.items()]
        seen = len({row["knee_id"] for row in self.maps if row["seen_in_training"]})
        if seen:
            notes.append(f"{seen} knees are of persons that every member was trained on.")
        if self._config.check and self._n_checked > len(self._repeated):
            notes.append(
                f"Sensitivity and random weights were tried on {len(self._repeated)} of the knees "
                "(repeat_knees)."
            )
        return tuple(notes)


def _write_arrays(arrays: Mapping[str, Any], path: Path) -> None:
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _write_csv(rows: list[dict[str, Any]] | pd.DataFrame, path: Path) -> Path:
    with atomic_path(path) as temporary:
        table = escape_formulas(pd.DataFrame(rows))
        table.to_csv(temporary, index=False, lineterminator="\n")
    return path
