"""The door of ONNX: a network as a graph, and how ONNX Runtime answers with it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kneeoa_mm.errors import KneeOAError, MissingExtraError
from kneeoa_mm.learning.inference import to_probabilities
from kneeoa_mm.learning.models import Model
from kneeoa_mm.learning.networks import Network
from kneeoa_mm.model_folder import Preprocessing

OPSET = 18
_EXTRAS = ("onnx", "onnxruntime", "onnxscript")
_ONLY_ERRORS = 3

Answer = Callable[[dict[str, Tensor]], NDArray[np.float32]]
"""Probabilities (B, outputs) of inputs by name."""


def require() -> None:
    """Stop where the extra is missing.

    Raises:
        MissingExtraError: The extra ``onnx`` is not installed.
    """
    absent = [name for name in _EXTRAS if find_spec(name) is None]
    if absent:
        raise MissingExtraError(
            f"Exporting to ONNX needs {', '.join(absent)}.", fix="pip install 'kneeoa-mm[onnx]'"
        )


class _Graph(nn.Module):
    """A network from greys in [0, 1] to probabilities, so that nobody repeats its arithmetic."""

    def __init__(self, network: Network, contract: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self._mean, self._std = contract.mean, contract.std

    def forward(
        self, images: Tensor, clinical: Tensor | None = None, kl_read: Tensor | None = None
    ) -> Tensor:
        """Probabilities (B, outputs) of images (B, 1, S, S) and what stands beside them."""
        further = {"clinical": clinical, "kl_read": kl_read}
        batch = {name: value for name, value in further.items() if value is not None}
        return to_probabilities(self.network(batch | {"images": (images - self._mean) / self._std}))


def to_onnx(member: Model, inputs: dict[str, Tensor]) -> bytes:
    """The graph of a member, for batches of any size.

    Args:
        member: The member.
        inputs: An example of at least two rows: greys in [0, 1] as ``images`` (B, 1, S, S), and
            the ``further_inputs`` that it wants.
    """
    batch = torch.export.Dim("batch")
    given = [inputs.get(name) for name in ("images", "clinical", "kl_read")]
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            # about how the exporter itself uses torch
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Graph(member.network, member.card.preprocessing).eval(),
                tuple(given),
                input_names=list(inputs),
                output_names=["probabilities"],
                dynamic_shapes=tuple(None if each is None else {0: batch} for each in given),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        log.setLevel(level)
    if program is None:
        raise KneeOAError("The exporter gave no graph.", where=member.name)
    return program.model_proto.SerializeToString()


def runtime(graph: bytes, threads: int = 0) -> Answer:
    """How ONNX Runtime answers on the CPU.

    Args:
        graph: Of :func:`to_onnx`.
        threads: How many to use; 0 leaves it to ONNX Runtime.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_ERRORS
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def answer(inputs: dict[str, Tensor]) -> NDArray[np.float32]:
        return session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]

    return answer
