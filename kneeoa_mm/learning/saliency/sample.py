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

from kneeoa_mm.learning.heads import N_GRADES
from kneeoa_mm.learning.image_store import ImageStore
from kneeoa_mm.learning.inference import further_inputs
from kneeoa_mm.learning.models import Ensemble, Model
from kneeoa_mm.metrics import persons_of

READING = "kl_grade_read"
MOST_OTHERS = 16
"""Knees that one knee is compared with."""


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

    @cached_property
    def is_read(self) -> NDArray[np.bool_]:
        """Which knees have a reading; without one another branch of the network speaks."""
        reading = self.own[:, self.columns.get(READING, [])]
        return reading.any(dim=1).cpu().numpy()

    def reference(self, index: int) -> Tensor:
        """What a knee is compared with, (1, F): the average person; unread like the knee."""
        reference = self.average.clone()
        if not self.is_read[index]:
            reference[:, self.columns.get(READING, [])] = 0
        return reference


@dataclass(frozen=True, eq=False)
class Sample:
    """The knees of a run.

    Attributes:
        ensemble: The model.
        knees: Rows of ``sources.read_knees``: first those to explain, then more to compare with.
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
        """Their images, as each member wants them."""
        store = ImageStore(self.knees)
        for member in self.ensemble.members:
            store.get(member.card.preprocessing)
        return store

    @cached_property
    def persons(self) -> NDArray[np.str_]:
        """The person of each knee."""
        return persons_of(self.knees["subject_id"], self.knees["knee_id"])

    def speakers(self, index: int) -> tuple[list[Model], bool]:
        """The members that score a knee, and whether all were trained on its person.

        They are those that speak in prediction: a map explains the answer that is given.
        """
        subject = self.knees["subject_id"].iloc[[index]].astype(str)
        scores, is_seen = self.ensemble.who_scores(subject)
        pairs = zip(self.ensemble.members, scores[:, 0], strict=True)
        return [member for member, speaks in pairs if speaks], bool(is_seen[0])

    def others(self, index: int, member: Model) -> NDArray[np.int64]:
        """Knees of other persons to compare a knee with, read or unread like it."""
        fits = (self.persons != self.persons[index]) & self.store.readable
        factors = self.factors(member)
        if factors is not None:
            fits &= factors.is_read == factors.is_read[index]
        return spread(np.flatnonzero(fits), MOST_OTHERS)

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
        columns = {} if member.clinical is None else member.clinical.columns
        if "kl_read" in own:
            first = own["clinical"].shape[1] if "clinical" in own else 0
            columns[READING] = list(range(first, first + N_GRADES))
        average = torch.cat([each.mean(dim=0) for each in everyone.values()])
        return Factors(
            torch.cat(list(own.values()), dim=1).to(self.device),
            average[None].to(self.device),
            columns,
        )


def spread(rows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most ``limit`` of some rows, evenly spread."""
    places = np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)
    return rows[np.unique(places)]
