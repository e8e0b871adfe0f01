"""Images as a network sees them: prepared once, kept as bytes, augmented a batch at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from kneeoa_mm.config import AugmentConfig
from kneeoa_mm.errors import ItemError
from kneeoa_mm.learning.framing import Framing, frame
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.progress import track
from kneeoa_mm.records import Reject

_EDGE_FRACTION = 0.1
_MIDDLE = (0.3, 0.7)


def read_grey(path: Path) -> NDArray[np.float32]:
    """Read a greyscale image of 8 or 16 bits in its own units, shape (rows, columns).

    Raises:
        ItemError: The file is no image that can be read, or is damaged.
    """
    try:
        with Image.open(path) as image:
            # Pillow's conversion of 16 bits to "L" clips at 255, so only colour is converted
            grey = image if image.mode in {"L", "I;16", "I", "F"} else image.convert("L")
            pixels = np.asarray(grey, dtype=np.float32)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise ItemError("E_UNREADABLE", type(error).__name__, stage="read image") from error
    except Image.DecompressionBombError as error:
        raise ItemError("E_TOO_LARGE", "more pixels than are safe", stage="read image") from error
    return pixels


def is_negative(pixels: NDArray[np.float32]) -> bool:
    """Whether a knee image is a photometric negative.

    Bone stands in the middle and attenuates most; in a positive it is brighter than the soft tissue
    and air at the left and right edge.

    Args:
        pixels: Grey values, shape (rows, columns).
    """
    columns = pixels.shape[1]
    edge = max(1, round(columns * _EDGE_FRACTION))
    left, right = (round(columns * share) for share in _MIDDLE)
    middle = np.median(pixels[:, left:right])
    sides = np.median(np.concatenate([pixels[:, :edge], pixels[:, -edge:]], axis=1))
    return bool(middle < sides)


def prepare(
    pixels: NDArray[np.float32],
    contract: Preprocessing,
    *,
    mirror: bool,
    field_of_view: float | None = None,
) -> tuple[NDArray[np.uint8], Framing]:
    """Bring an image into the form that a model's contract states.

    The image is cut to the model's field of view first: its greys are stretched by what the
    network sees, not by what lies around it.

    Args:
        pixels: Grey values in any unit, shape (rows, columns).
        contract: The model's preprocessing.
        mirror: The image is a left knee in native orientation.
        field_of_view: Longer side of the image in tibial-plateau widths; None where unknown, and
            the image is used whole.

    Returns:
        Shape (image_size_px, image_size_px), and how the image was framed.

    Raises:
        ItemError: The image is flat.
    """
    square, framing = frame((pixels.shape[0], pixels.shape[1]), field_of_view, contract)
    low, high = np.percentile(square.inside(pixels), contract.clip_percentiles)
    if not high > low:
        raise ItemError("E_FLAT", "all pixels have the same value", stage="prepare image")
    grey = np.clip((pixels - low) / (high - low), 0, 1).astype(np.float32)
    if contract.reinvert_negatives and is_negative(square.inside(grey)):
        grey = 1 - grey
    resized = square.resample(grey, contract.image_size_px)
    return np.round((resized[:, ::-1] if mirror else resized) * 255).astype(np.uint8), framing


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """The images of some knees, in the form that one contract states.

    Attributes:
        pixels: Shape (n, size, size), zero where an image could not be read.
        framing: How each was framed, (n,); None where it could not be read.
        rejects: Why the others could not be read.
    """

    pixels: NDArray[np.uint8]
    framing: tuple[Framing | None, ...]
    rejects: tuple[Reject, ...]


def load_images(
    knees: pd.DataFrame, contract: Preprocessing, pixels: NDArray[np.uint8] | None = None
) -> LoadedImages:
    """Read and prepare the images of all knees.

    Args:
        knees: Rows of ``sources.read_knees``.
        contract: The model's preprocessing.
        pixels: Zeros of shape (n, size, size) to fill; without, they are made in memory.
    """
    if pixels is None:
        pixels = np.zeros((len(knees), *[contract.image_size_px] * 2), dtype=np.uint8)
    framing: list[Framing | None] = [None] * len(knees)
    rejects: list[Reject] = []

    def load(
        item: tuple[str, bool, float],
    ) -> tuple[NDArray[np.uint8], Framing] | ItemError:
        path, mirror, field_of_view = item
        try:
            grey = read_grey(Path(path))
            known = None if np.isnan(field_of_view) else field_of_view
            return prepare(grey, contract, mirror=mirror, field_of_view=known)
        except ItemError as error:
            return error

    items = list(
        zip(
            knees["image_path"], knees["mirror"], knees["field_of_view_plateau_widths"], strict=True
        )
    )
    with ThreadPoolExecutor() as pool:
        loaded = track(pool.map(load, items), total=len(items), label="read images")
        for i, result in enumerate(loaded):
            if isinstance(result, ItemError):
                source = Path(items[i][0]).name
                rejects.append(Reject(source, result.stage, result.code, result.message))
            else:
                pixels[i], framing[i] = result
    return LoadedImages(pixels, tuple(framing), tuple(rejects))


def to_input(images: Tensor, contract: Preprocessing) -> Tensor:
    """Bytes (B, S, S) to the network's input (B, 1, S, S)."""
    grey = images.unsqueeze(1).float() / 255
    return (grey - contract.mean) / contract.std


class Batches:
    """One pass over some rows, in an order and with augmentations that only the seed decides.

    Where several processes train together, each makes its share of a batch: every n-th row. In
    training their shares are equal, so up to n - 1 rows of a pass are left out, others each time;
    in evaluation every row has exactly one process.

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
            batch["images"] = to_input(batch["images"], self._contract)
            if self._augment is not None and generator is not None:
                # drawn for the whole batch, so that it does not matter who shares it
                amounts = draw_amounts(stop - start, self._augment, generator)[mine]
                batch["images"] = vary(batch["images"], self._move(amounts))
                if self._augment.mixup:
                    batch = mix(batch, self._augment.mixup, generator)
            yield batch

    def _move(self, values: Tensor) -> Tensor:
        if self._device.type != "cuda":
            return values.to(self._device)
        # pinned memory is copied while the device works on the batch before
        return values.pin_memory().to(self._device, non_blocking=True)


def mix(batch: dict[str, Tensor], alpha: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Mix each knee of a batch with another one, images and labels alike (Zhang et al. 2018).

    Args:
        batch: Tensors of floating point, B rows each; a missing label (NaN) stays missing, and a
            missing grade keeps no more than the other knee's share.
        alpha: Of the Beta distribution from which the batch's share is drawn.
        generator: Source of randomness.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    partner = torch.randperm(len(batch["images"]), generator=generator)
    partner = partner.to(batch["images"].device)
    return {name: share * own + (1 - share) * own[partner] for name, own in batch.items()}


def draw_amounts(n: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Random amounts by which ``vary`` changes n images.

    Args:
        n: Number of images.
        config: Largest amounts.
        generator: Source of randomness.

    Returns:
        Shape (n, 8): an affine matrix (2, 3), contrast, and brightness.
    """

    def uniform(largest: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * largest

    angle = torch.deg2rad(uniform(config.rotation_deg))
    zoom = 1 + uniform(config.scale)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    # grid coordinates run from -1 to 1, so a share of the width is twice that
    across, down = uniform(2 * config.translation), uniform(2 * config.translation)
    flip = torch.ones(n)
    if config.horizontal_flip:
        flip = (torch.rand(n, generator=generator) < 0.5).float() * 2 - 1
    contrast, brightness = 1 + uniform(config.contrast), uniform(config.brightness)
    rows = cos * flip, -sin, across, sin * flip, cos, down
    return torch.stack([*rows, contrast, brightness], 1)


def vary(images: Tensor, amounts: Tensor) -> Tensor:
    """Rotate, scale, shift and change the exposure of each image by its own amounts.

    Args:
        images: Shape (B, 1, S, S).
        amounts: Of ``draw_amounts``, (B, 8).

    Returns:
        Shape (B, 1, S, S).
    """
    matrices, contrast, brightness = amounts[:, :6].reshape(-1, 2, 3), amounts[:, 6], amounts[:, 7]
    return warp(images, matrices) * contrast.view(-1, 1, 1, 1) + brightness.view(-1, 1, 1, 1)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Move images by affine maps; what lies beyond an edge is as the edge.

    The same as torch's ``affine_grid`` and ``grid_sample``, without the matrix product for each
    pixel that takes ``affine_grid`` twice as long on a CPU as the sampling.

    Args:
        images: Square, shape (B, 1, S, S).
        matrices: From places in the result to places in the image, which run from -1 to 1 across
            and down, shape (B, 2, 3).

    Returns:
        Shape (B, 1, S, S).
    """
    size = images.shape[-1]
    place = (torch.arange(size, device=images.device) * 2 + 1) / size - 1
    across = matrices[:, None, :, 0] * place[:, None]
    down = matrices[:, None, :, 1] * place[:, None] + matrices[:, None, :, 2]
    grid = across[:, None] + down[:, :, None]
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
