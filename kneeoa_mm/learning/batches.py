"""Batches of prepared knees, in an order and with augmentations that only the seed decides."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kneeoa_mm.learning.augmentation import draw_amounts, mix, vary
from kneeoa_mm.learning.dataset import to_input
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.settings import AugmentConfig


class Batches:
    """One pass over some rows, in an order and with augmentations that only the seed decides.

    Where several processes train together, each makes its share of a batch: every n-th row. In
    training their shares are equal, so up to n - 1 rows of a pass are left out, others each time;
    in evaluation every row has exactly one process.

    Instead of ``images`` there may be ``features`` (n, V, D) of V views of each: training meets a
    view drawn anew each time, evaluation the first, which is the image itself, unless it wants all.

    Args:
        arrays: Name to tensor; ``images`` are bytes (n, S, S), all others have n rows.
        rows: Rows to visit.
        contract: The model's preprocessing.
        batch_size: Rows a batch and process; the last may be smaller, but a single left-over row
            joins its neighbour, for batch normalisation cannot learn from one image.
        augment: How to vary the images; None for evaluation, which also keeps the order.
        weights: How often each row is drawn, in relation to the others (as many are drawn as there
            are rows); None draws each once.
        seed: Seeds of order and augmentation.
        share: Number of this process, from 0, and how many there are.
        all_views: Keep features as (B, V, D).
        device: Where images are normalised and varied; the draws are those of the CPU everywhere.
    """

    def __init__(
        self,
        arrays: dict[str, Tensor],
        rows: NDArray[np.int64],
        contract: Preprocessing,
        *,
        batch_size: int,
        augment: AugmentConfig | None = None,
        weights: Tensor | None = None,
        seed: tuple[int, ...] = (),
        share: tuple[int, int] = (0, 1),
        all_views: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self._arrays = arrays
        self._rows = torch.as_tensor(rows, dtype=torch.long)
        self._number, self._processes = share
        if augment is None:
            self._rows = self._rows[self._number :: self._processes]
            self._number, self._processes = 0, 1
        self._contract = contract
        self._batch_size = batch_size
        self._augment = augment
        self._weights = weights
        self._seed = seed
        self._all_views = all_views
        self._device = torch.device(device)

    def __len__(self) -> int:
        return len(self._bounds())

    def _bounds(self) -> list[tuple[int, int]]:
        """First and last place, in the order of the pass, of each batch of all processes."""
        n, size = len(self._rows), self._batch_size * self._processes
        if self._augment is not None:
            n -= n % self._processes
        starts = list(range(0, n, size))
        if self._augment is not None and len(starts) > 1 and n - starts[-1] == self._processes:
            starts.pop()
        return list(itertools.pairwise([*starts, n]))

    def _drawn(self, generator: torch.Generator) -> Tensor:
        n = len(self._rows)
        if self._weights is None:
            return torch.randperm(n, generator=generator)
        return torch.multinomial(self._weights, n, replacement=True, generator=generator)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        order, generator = self._rows, None
        if self._augment is not None:
            entropy = np.random.SeedSequence(self._seed).generate_state(1, np.uint64)[0]
            generator = torch.Generator().manual_seed(int(entropy) % 2**63)
            order = order[self._drawn(generator)]
        for start, stop in self._bounds():
            mine = slice(self._number, stop - start, self._processes)
            rows = order[start:stop][mine]
            batch = {
                name: self._move(each.index_select(0, rows)) for name, each in self._arrays.items()
            }
            # drawn for the whole batch, so that it does not matter who shares it
            drawn = stop - start
            if "features" in batch and not self._all_views:
                view = self._views(drawn, batch["features"].shape[1], generator)[mine]
                batch["features"] = batch["features"][torch.arange(len(rows)), view]
            if "images" in batch:
                batch["images"] = to_input(batch["images"], self._contract)
            if self._augment is not None and generator is not None:
                if "images" in batch:
                    amounts = draw_amounts(drawn, self._augment, generator)[mine]
                    batch["images"] = vary(batch["images"], self._move(amounts))
                if self._augment.mixup:
                    batch = mix(batch, self._augment.mixup, generator)
            yield batch

    @staticmethod
    def _views(n: int, n_views: int, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            return torch.zeros(n, dtype=torch.long)
        return torch.randint(n_views, (n,), generator=generator)

    def _move(self, values: Tensor) -> Tensor:
        if self._device.type != "cuda":
            return values.to(self._device)
        # pinned memory is copied while the device works on the batch before
        return values.pin_memory().to(self._device, non_blocking=True)
