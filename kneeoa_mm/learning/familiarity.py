"""Whether an image resembles the knees that a network learnt from, so that it can abstain.

A network gives any picture a grade. Its features tell more: those of knees lie close to a space of
few dimensions, and those of other pictures lie off it. How far off is the "distance from feature
space" of Moghaddam and Pentland 1997 (IEEE Trans Pattern Anal Mach Intell 19:696), here of the
signed square roots of features, so that a few strong ones do not decide alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from kneeoa_mm.atomic_files import atomic_path
from kneeoa_mm.errors import ModelFolderError
from kneeoa_mm.learning.features import encode
from kneeoa_mm.learning.networks import Network
from kneeoa_mm.model_folder import Preprocessing

FAMILIARITY_FILE = "familiarity.safetensors"
MIN_KNEES = 200
"""On fewer that the network did not learn from, its limit would refuse more than one in 200."""
_COMPONENTS = 32
_SLACK = 1.001
"""The strangest of them must not lie beyond its own limit, in any batch and on any machine."""

Features = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Where the features of knees lie.

    Attributes:
        mean: Of the roots of features, shape (D,).
        components: Orthonormal rows in half precision, shape (K, D).
        limit: Distance beyond which an image is no knee.
    """

    mean: Features
    components: NDArray[np.float16]
    limit: float

    def distance(self, features: Features) -> NDArray[np.float64]:
        """How far features lie off the space of knees.

        Args:
            features: Shape (n, D).

        Returns:
            Shape (n,).
        """
        away = _roots(features) - self.mean
        directions = self.components.astype(np.float64)
        distance: NDArray[np.float64] = np.linalg.norm(
            away - away @ directions.T @ directions, axis=1
        )
        return distance

    def strangeness(self, features: Features) -> NDArray[np.float64]:
        """The distance as a share of the limit, (n,): above 1 is no knee.

        Args:
            features: Shape (n, D).
        """
        return self.distance(features) / self.limit

    def write(self, folder: Path) -> str:
        """Write the file into a model folder.

        Returns:
            Its SHA-256, for the model card.
        """
        serialised = save({name: np.asarray(value) for name, value in vars(self).items()})
        with atomic_path(folder / FAMILIARITY_FILE) as temporary:
            temporary.write_bytes(serialised)
        return hashlib.sha256(serialised).hexdigest()

    @classmethod
    def read(cls, folder: Path, sha256: str) -> Familiarity:
        """Read the file of a model folder.

        Args:
            folder: The model folder.
            sha256: What its card says of the file.

        Raises:
            ModelFolderError: It is absent, or not the one that the card describes.
        """
        path = folder / FAMILIARITY_FILE
        try:
            serialised = path.read_bytes()
            found = f"sha256 {hashlib.sha256(serialised).hexdigest()}"
            if found == f"sha256 {sha256}":
                tensors = load(serialised)
                return cls(tensors["mean"], tensors["components"], float(tensors["limit"]))
        except (OSError, SafetensorError, KeyError) as error:
            found = str(error)
        raise ModelFolderError(
            "What tells knees from other pictures is not what the model card describes.",
            expected=f"sha256 {sha256}",
            found=found,
            where=path,
            fix="copy the folder again from its source, or train anew",
        )


def fit(training: Features, unseen: Features) -> Familiarity | None:
    """Learn the space from knees that the network learnt from, and the limit from others.

    None of the others lies beyond the limit; of m others, so does one new knee in m + 1.

    Args:
        training: Features of the former, shape (n, D).
        unseen: Features of the latter, shape (m, D).

    Returns:
        None where there are fewer than ``MIN_KNEES`` of either.
    """
    if min(len(training), len(unseen)) < MIN_KNEES:
        return None
    roots = _roots(training)
    mean = roots.mean(axis=0)
    # in order of rising variance
    _, directions = np.linalg.eigh(np.cov(roots, rowvar=False))
    known = Familiarity(
        mean=mean.astype(np.float32),
        components=np.ascontiguousarray(directions[:, -_COMPONENTS:].T).astype(np.float16),
        limit=0.0,
    )
    return replace(known, limit=float(known.distance(unseen).max()) * _SLACK)


def _roots(features: Features) -> NDArray[np.float64]:
    roots: NDArray[np.float64] = np.sign(features) * np.sqrt(np.abs(features.astype(np.float64)))
    return roots


def learn(
    network: Network,
    images: Tensor,
    contract: Preprocessing,
    *,
    training: NDArray[np.int64],
    unseen: NDArray[np.int64],
    device: str,
) -> Familiarity | None:
    """What a trained network's features tell of knees.

    Args:
        network: The network; it is left in evaluation mode.
        images: Bytes (n, S, S), prepared by the network's contract.
        contract: The contract.
        training: Rows that the network learnt from.
        unseen: Rows that it did not learn from.
        device: ``cpu`` or ``cuda``.

    Returns:
        None where there are too few knees.
    """
    if min(len(training), len(unseen)) < MIN_KNEES:
        return None
    return fit(
        *(
            encode(network, images, contract, rows, device=device)[:, 0].numpy()
            for rows in (training, unseen)
        )
    )
