"""Outlines of joint spaces, drawn by a person on knee images or known of phantoms on films."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.errors import InputError
from kneeoa_mm.learning.saliency.explained_knee import ExplainedKnee
from kneeoa_mm.learning.saliency.placement import Placement, Points

_BONE = "bone"
_COLUMN = "joint_space_px"


@dataclass(frozen=True)
class JointSpaces:
    """Polygons of some knees.

    Attributes:
        on_images: By name of the image file without its suffix, or by ``knee_id``: polygons as
            shares of the image's width and height.
        on_films: By ``knee_id``: polygons in pixels of the film.
    """

    on_images: Mapping[str, list[Points]] = field(default_factory=dict)
    on_films: Mapping[str, list[Points]] = field(default_factory=dict)

    def mask(
        self, found: ExplainedKnee, on_image: Placement, size_px: int
    ) -> NDArray[np.float32] | None:
        """How much of each pixel of a network's input is joint space, (S, S); None if unknown.

        Args:
            found: The knee.
            on_image: Where the input lies on its image.
            size_px: S.
        """
        knee_id = str(found.knee["knee_id"])
        on_film = found.on_film(on_image)
        if on_film is not None and knee_id in self.on_films:
            return on_film.mask(self.on_films[knee_id], size_px)
        shares = self.on_images.get(knee_id, self.on_images.get(found.image_path.stem))
        if shares is None:
            return None
        return on_image.mask([polygon * found.shape[::-1] for polygon in shares], size_px)


def read_joint_spaces(path: Path) -> JointSpaces:
    """Read outlines of joint spaces.

    Args:
        path: A JSON file, image name or ``knee_id`` to ``width``, ``height`` and ``shapes``, each
            with ``label`` and ``points`` in px of the knee image (shapes whose label names a bone
            are left out), or a table (Parquet or CSV) with ``knee_id`` and ``joint_space_px``, a
            JSON list of points in px of the film, such as ``truth/knees.parquet`` of
            ``synthesize``.

    Raises:
        InputError: The file is neither.
    """
    if not path.is_file():
        raise InputError("The outlines of joint spaces are not there.", where=path)
    try:
        if path.suffix == ".json":
            drawn = json.loads(path.read_text(encoding="utf-8"))
            return JointSpaces(on_images={name: _shapes(each) for name, each in drawn.items()})
        table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
        known = table.dropna(subset=_COLUMN)
        polygons = {
            str(knee): [np.array(json.loads(text), dtype=float).reshape(-1, 2)]
            for knee, text in zip(known["knee_id"], known[_COLUMN], strict=True)
        }
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            "The outlines of joint spaces cannot be read.",
            expected="JSON with width, height and shapes by image name, or a table with knee_id "
            f"and {_COLUMN}",
            found=f"{type(error).__name__}: {error}",
            where=path,
        ) from error
    return JointSpaces(on_films=polygons)


def _shapes(drawn: Mapping[str, Any]) -> list[Points]:
    size = np.array([drawn["width"], drawn["height"]], dtype=float)
    return [
        np.array(shape["points"], dtype=float).reshape(-1, 2) / size
        for shape in drawn["shapes"]
        if _BONE not in str(shape["label"]).lower()
    ]
