"""The knees of a run of ``explain``, with all that a member is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from kneeoa_mm.learning.clinical import ClinicalEncoding
from kneeoa_mm.learning.heads import N_GRADES
from kneeoa_mm.learning.inference import Ensemble, ImageStore, Model, further_inputs
from kneeoa_mm.metrics import persons_of

READING = "kl_grade_read"


@dataclass(frozen=True, eq=False)
class Factors:
    """Encoded factors.

    Attributes:
        own: Of each knee, (n, F).
        average: Of the average person of the table, (1, F).
        columns: Which of them belong to each factor.
    """

    own: Tensor
    average: Tensor
    columns: Mapping[str, list[int]]

    def reference(self, index: int) -> Tensor:
        """What a knee is compared with, (1, F): the average person.

        Without a reading another branch of the network speaks, so a knee that has none is compared
        with persons who have none.
        """
        reading = self.columns.get(READING, [])
        reference = self.average.clone()
        if not self.own[index, reading].any():
            reference[:, reading] = 0
        return reference


@dataclass(frozen=True, eq=False)
class Sample:
    """The knees of a run.

    Attributes:
        ensemble: The model.
        knees: Rows of ``sources.read_knees``: first those to explain, then others to compare with.
        n_explained: How many are explained.
        clinical: Factors by ``knee_id``; None without.
        device: ``cpu`` or ``cuda``.
    """

    ensemble: Ensemble
    knees: pd.DataFrame
    n_explained: int
    clinical: pd.DataFrame | None
    device: str

    @cached_property
    def store(self) -> ImageStore:
        """Their images."""
        return ImageStore(self.knees)

    @cached_property
    def persons(self) -> NDArray[np.str_]:
        """The person of each knee."""
        return persons_of(self.knees["subject_id"], self.knees["knee_id"])

    def factors(self, member: Model) -> Factors | None:
        """What a member is told beside the picture; None for an image-only one."""
        ids = self.knees["knee_id"]
        table = pd.DataFrame(index=ids) if self.clinical is None else self.clinical
        mine = table.reindex(ids)
        # as prediction does: a reading that comes with the knees goes before that of the table
        read = self.knees.set_index("knee_id") if "kl_grade" in self.knees else mine
        own = further_inputs(member, read, mine)
        if not own:
            return None
        everyone = further_inputs(member, table if "kl_grade" in table else read, table)
        columns = {} if member.clinical is None else factor_columns(member.clinical)
        if "kl_read" in own:
            first = own["clinical"].shape[1] if "clinical" in own else 0
            columns[READING] = list(range(first, first + N_GRADES))
        average = torch.cat([each.mean(dim=0) for each in everyone.values()])
        return Factors(
            torch.cat(list(own.values()), dim=1).to(self.device),
            average[None].to(self.device),
            columns,
        )


def factor_columns(encoding: ClinicalEncoding) -> dict[str, list[int]]:
    """The encoded columns of each factor, its indicator of missing values among them."""
    widths = dict.fromkeys(encoding.continuous, 2)
    widths |= {name: len(known) + 1 for name, known in encoding.categorical.items()}
    ends = np.cumsum(list(widths.values()))
    starts = ends - list(widths.values())
    return {
        name: list(range(start, end))
        for name, start, end in zip(widths, starts.tolist(), ends.tolist(), strict=True)
    }
