"""Several processes that train one network: the first runs the command, the others help it train.

``torchrun`` starts them, on one machine or on many. Only the first reads data, claims folders and
writes results; the others wait for what it hands out: a function to be called in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Result = TypeVar("Result")

_PATIENCE = timedelta(days=7)
"""How long the others wait while the first reads images or predicts; torchrun ends them all as soon
as one of them fails."""


def run(command: Callable[[], object]) -> None:
    """Run a command in the first process, and what it hands out in all.

    Args:
        command: Ends with SystemExit, as command lines do.
    """
    distributed.init_process_group(timeout=_PATIENCE)
    if number():
        while (task := _broadcast(None)) is not None:
            function, arguments = task
            function(*arguments)
    else:
        try:
            command()
        except SystemExit as end:
            if end.code:
                raise  # torchrun ends the others
        _broadcast(None)
    distributed.destroy_process_group()


def everywhere(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in all processes at once; called by the first alone."""
    if count() > 1:
        _broadcast((function, arguments))
    return function(*arguments)


def number() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if _is_joined() else 0


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _is_joined() else 1


def gathered(value: Result) -> list[Result]:
    """The values of all processes, in their order, in each of them."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    distributed.all_gather_object(values, value)
    return values


def average(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their means over the processes; whole numbers stay."""
    if count() == 1:
        return
    for tensor in tensors:
        if tensor.is_floating_point():
            distributed.all_reduce(tensor)
            tensor /= count()


def interleaved(parts: list[Tensor]) -> Tensor:
    """Rows that processes took in turn, in their order.

    Example:
        >>> interleaved([torch.tensor([0, 2, 4]), torch.tensor([1, 3])]).tolist()
        [0, 1, 2, 3, 4]
    """
    whole = torch.cat(parts)
    for first, part in enumerate(parts):
        whole[first :: len(parts)] = part
    return whole


def _broadcast(task: tuple[Callable[..., Any], tuple[Any, ...]] | None) -> Any:
    box = [task]
    distributed.broadcast_object_list(box)
    return box[0]


def _is_joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()
