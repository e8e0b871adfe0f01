"""What an encoder makes of images, computed once where the encoder does not learn."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor

from kneeoa_mm.atomic_files import atomic_path
from kneeoa_mm.learning.batches import Batches
from kneeoa_mm.learning.job import Job
from kneeoa_mm.learning.networks import Network
from kneeoa_mm.learning.views import ITSELF, Views
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.progress import track

BATCH_SIZES = {"cpu": 8, "cuda": 64}
"""On a CPU what a larger batch needs leaves the cache: 64 took twice as long as eight times 8."""
FEATURES_FOLDER = "KNEEOA_MM_FEATURES"
"""Environment variable that names a folder in which features outlive their run."""


def cached_features(job: Job, encoder: str, folder: Path, views: Views, *, device: str) -> Tensor:
    """Features of all images of a job, out of their file, which is written where it is not there.

    Args:
        job: Whose images and network.
        encoder: What tells its encoder from others.
        folder: Where the file goes, unless KNEEOA_MM_FEATURES names another one: there it outlives
            the run, for others on the same encoder and images.
        views: Of each image.
        device: ``cpu`` or ``cuda``.

    Returns:
        Shape (n, V, D).
    """
    images = job.arrays["images"]
    described = f"{encoder} {job.image_file and job.image_file.stem} {views}"
    name = hashlib.sha256(described.encode()).hexdigest()[:16]
    path = Path(os.environ.get(FEATURES_FOLDER) or folder) / f"features-{name}.safetensors"
    if not path.is_file():
        features = encode(
            job.network,
            images,
            job.contract,
            np.arange(len(images)),
            device=device,
            views=views,
            label=f"{job.name}: features",
        )
        with atomic_path(path) as temporary:
            temporary.write_bytes(save({"features": features}))
    return load_file(path)["features"]


def encode(
    network: Network,
    images: Tensor,
    contract: Preprocessing,
    rows: NDArray,
    *,
    device: str,
    views: Views = ITSELF,
    label: str = "",
) -> Tensor:
    """Features of some images.

    Args:
        network: Its encoder is asked; it is left in evaluation mode.
        images: Bytes (n, S, S), prepared by the contract.
        contract: The network's preprocessing.
        rows: Which of the images, (m,).
        device: ``cpu`` or ``cuda``.
        views: Of each image.
        label: Of the progress that is shown; empty for none.

    Returns:
        Shape (m, V, D), the image itself first among its views.
    """
    size = BATCH_SIZES[device]
    batches = Batches({"images": images}, rows, contract, batch_size=size)
    shown = track(batches, total=len(batches), label=label) if label else batches
    with lent(network, device), torch.inference_mode():
        parts = [
            torch.stack(
                [network.encoder(v).float().cpu() for v in views.of(batch["images"].to(device))], 1
            )
            for batch in shown
        ]
    return torch.cat(parts)


@contextmanager
def lent(network: Network, device: str) -> Iterator[None]:
    """Lend a network to a device, in evaluation mode.

    It comes back to main memory, for a GPU need not hold all members of an ensemble. In torch's
    inference mode a network could not learn any more after it.
    """
    network.to(device).to(memory_format=torch.channels_last).eval()
    try:
        yield
    finally:
        network.cpu()
