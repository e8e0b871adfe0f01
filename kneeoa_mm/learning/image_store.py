"""Images of some knees, prepared for each model that wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from kneeoa_mm.learning.dataset import load_images
from kneeoa_mm.learning.framing import Framing
from kneeoa_mm.learning.image_cache import cached_images
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.records import Reject


class ImageStore:
    """Prepared images of some knees, read once for each distinct contract.

    Args:
        knees: Rows of ``sources.read_knees``.
        cache: Folder of files from which the images are mapped; without, they stay in memory.
    """

    def __init__(self, knees: pd.DataFrame, cache: Path | None = None) -> None:
        self._knees = knees
        self._cache = cache
        self._prepared: dict[Preprocessing, Tensor] = {}
        self.files: dict[Preprocessing, Path] = {}
        """Where the images of each contract are mapped from."""
        self.readable: NDArray[np.bool_] = np.ones(len(knees), dtype=bool)
        self.framing: tuple[Framing | None, ...] = (None,) * len(knees)
        """How each image was framed for the first contract; None where it could not be read."""
        self.rejects: list[Reject] = []

    def get(self, contract: Preprocessing) -> Tensor:
        """Images as bytes (n, S, S); zero where one could not be read."""
        if contract not in self._prepared:
            if self._cache is None:
                loaded = load_images(self._knees, contract)
            else:
                loaded, self.files[contract] = cached_images(self._knees, contract, self._cache)
            if not self._prepared:
                self.framing = loaded.framing
            known = {reject.source for reject in self.rejects}
            self.rejects += [reject for reject in loaded.rejects if reject.source not in known]
            self.readable &= [framing is not None for framing in loaded.framing]
            self._prepared[contract] = torch.from_numpy(loaded.pixels)
        return self._prepared[contract]
