"""The vocabulary: enumerations and frozen records that every other module speaks in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple

UNKNOWN = "-"


class Laterality(StrEnum):
    """Side of the body, DICOM (0020,0060) and (0020,0062)."""

    LEFT = "L"
    RIGHT = "R"

    @property
    def other(self) -> Laterality:
        """The opposite side."""
        return Laterality.LEFT if self is Laterality.RIGHT else Laterality.RIGHT


class View(StrEnum):
    """Radiographic projection of the knee."""

    PA_FIXED_FLEXION = "PA_FIXED_FLEXION"
    AP = "AP"
    LATERAL = "LATERAL"
    SKYLINE = "SKYLINE"
    OBLIQUE = "OBLIQUE"
    UNKNOWN = "UNKNOWN"


FRONTAL_VIEWS = (View.PA_FIXED_FLEXION, View.AP, View.UNKNOWN)
"""Views that knees are cut from. A film whose header names none is taken for one."""


class Photometric(StrEnum):
    """DICOM Photometric Interpretation (0028,0004) of a greyscale film."""

    MONOCHROME1 = "MONOCHROME1"
    """Low values are bright."""
    MONOCHROME2 = "MONOCHROME2"
    """Low values are dark."""


class SpacingSource(StrEnum):
    """Where the millimetres of a film come from."""

    CALIBRATED = "CALIBRATED"
    """Pixel Spacing (0028,0030): in the plane of the patient as far as the maker calibrated it."""
    DETECTOR = "DETECTOR"
    """Imager Pixel Spacing (0018,1164): at the detector, larger than in the patient."""
    USER = "USER"
    """Stated by the user."""
    NONE = "NONE"
    """Unknown: there are no millimetres."""


class KLGrade(IntEnum):
    """Kellgren-Lawrence grade (Kellgren and Lawrence 1957, Ann Rheum Dis 16:494)."""

    NONE = 0
    DOUBTFUL = 1
    MINIMAL = 2
    MODERATE = 3
    SEVERE = 4


KL_CLASSES = tuple(str(int(grade)) for grade in KLGrade)
OSTEOARTHRITIS = KLGrade.MINIMAL
"""The grade from which a knee has definite osteoarthritis."""
WITHOUT_READING = "_prob_without_reading"
"""Ends the column of a risk without the reading, of a model that has a risk with it, too."""


class Outcome(StrEnum):
    """Progression outcomes; the value is the column of the cohort table."""

    JSL_48M = "jsl_48m"
    """Loss of at least 0.7 mm of minimum medial joint-space width, baseline to 48 months."""
    JSL_FNIH = "jsl_fnih"
    """Such a loss on any film of 24, 36 and 48 months, of knees with KL grade 1 to 3."""
    JSL_OR_KR_48M = "jsl_or_kr_48m"
    """Such a loss, or replacement of the knee, by 48 months."""
    KL_PROGRESSION = "kl_progression"
    """Rise of the KL grade to 2 or more, baseline to 48 months, within one reading project."""
    TKR = "tkr"
    """Knee replacement, adjudicated or seen on film."""
    PAIN_PROGRESSION = "pain_progression"
    """Rise of WOMAC pain by at least 2 of 20 points at two visits or more by 48 months."""


class PredictionStatus(StrEnum):
    """Why a row of a prediction table has, or lacks, its probabilities."""

    OK = "ok"
    UNREADABLE = "unreadable"
    """The image could not be read."""
    REJECTED = "rejected"
    """The film was refused during preprocessing; ``rejects.csv`` says why."""
    NOT_A_KNEE = "not_a_knee"
    """The image resembles no knee that the model learnt from."""


class PixelSpacing(NamedTuple):
    """Distance between pixel centres in millimetres: down a column, then along a row."""

    row_mm: float
    column_mm: float


class Box(NamedTuple):
    """A box on a film in pixels; right and bottom are exclusive."""

    left_px: int
    top_px: int
    right_px: int
    bottom_px: int

    @property
    def width_px(self) -> int:
        """Columns covered."""
        return self.right_px - self.left_px

    @property
    def height_px(self) -> int:
        """Rows covered."""
        return self.bottom_px - self.top_px

    @property
    def centre_px(self) -> tuple[float, float]:
        """Centre as (column, row)."""
        return (self.left_px + self.right_px) / 2, (self.top_px + self.bottom_px) / 2


_KNEE_ID = re.compile(
    r"^(?P<cohort>[^:]+):(?P<subject>[^:]+):(?P<months>\d+|-):(?P<side>[LR-])(?::(?P<copy>\d+))?$"
)


@dataclass(frozen=True, order=True)
class KneeKey:
    """One person, one side, one visit.

    Its text form is the ``knee_id``: ``<cohort>:<subject_id>:<months>:<L|R>``, with ``-`` for what
    is unknown and ``:2`` appended for a second film of the same knee and visit.

    Example:
        >>> str(KneeKey("oai", "9003175", 0, Laterality.LEFT))
        'oai:9003175:0:L'
        >>> KneeKey.parse("-:9003175:-:R:2")
        KneeKey(cohort=None, subject_id='9003175', months=None, laterality=<...'R'>, copy=2)
    """

    cohort: str | None
    subject_id: str | None
    months: int | None
    laterality: Laterality | None
    copy: int = 1

    def __str__(self) -> str:
        parts = (self.cohort, self.subject_id, self.months, self.laterality)
        text = ":".join(UNKNOWN if part is None else str(part) for part in parts)
        return text if self.copy == 1 else f"{text}:{self.copy}"

    @classmethod
    def parse(cls, knee_id: str) -> KneeKey:
        """Read a ``knee_id``.

        Raises:
            ValueError: The text is no knee_id.
        """
        match = _KNEE_ID.match(knee_id)
        if match is None:
            raise ValueError(
                f"knee_id must be <cohort>:<subject>:<months>:<L|R>[:<copy>], got {knee_id!r}"
            )
        known = {k: (None if v == UNKNOWN else v) for k, v in match.groupdict().items()}
        months, side = known["months"], known["side"]
        return cls(
            known["cohort"],
            known["subject"],
            None if months is None else int(months),
            None if side is None else Laterality(side),
            int(match["copy"] or 1),
        )

    @property
    def file_stem(self) -> str:
        """The knee_id as a file name that every system accepts.

        Example:
            >>> KneeKey("oai", "9003175", 0, Laterality.LEFT).file_stem
            'oai_9003175_0_L'
        """
        return re.sub(r"[^A-Za-z0-9.-]", "_", str(self))


_SUBJECT_AND_SIDE = (
    re.compile(r"^(?P<subject>.*\d)[-_ ]?(?P<side>[LR])$"),
    re.compile(r"^(?P<subject>.*\d)[-_ ](?P<side>(?i:left|right))$"),
    re.compile(r"^(?P<subject>.+)_(?P<side>[12])$"),
)
_SIDE_WORD = re.compile(r"(?<![^-_ ])(L|R|LEFT|RIGHT)(?![^-_ ])", re.IGNORECASE)
_SIDES = {"L": Laterality.LEFT, "R": Laterality.RIGHT, "1": Laterality.RIGHT, "2": Laterality.LEFT}


def subject_and_side(stem: str) -> tuple[str | None, Laterality | None]:
    """Subject and side in the name of an image of one knee.

    Names are ``<subject><L|R>``, perhaps with ``-``, ``_`` or a space between, ``<subject>_LEFT``
    in any case, or ``<subject>_<1|2>`` with 1 for right and 2 for left, as in the Kellgren-Lawrence
    collections derived from the OAI.

    Args:
        stem: The file name without its suffix.

    Example:
        >>> subject_and_side("9003175L"), subject_and_side("9003175_1")
        (('9003175', <Laterality.LEFT: 'L'>), ('9003175', <Laterality.RIGHT: 'R'>))
        >>> subject_and_side("knee")
        (None, None)
    """
    for pattern in _SUBJECT_AND_SIDE:
        match = pattern.match(stem)
        if match:
            return match["subject"], _SIDES[match["side"][0].upper()]
    return None, None


def named_side(stem: str) -> Laterality | None:
    """The side that a word of a file's name claims: L, R, left or right, in any case.

    Args:
        stem: The file name without its suffix. Words are parted by ``-``, ``_`` and spaces, so that
            ``lateral`` is none of them; a name that claims both sides claims neither.

    Example:
        >>> named_side("R_knee"), named_side("12345 left"), named_side("left and right")
        (<Laterality.RIGHT: 'R'>, <Laterality.LEFT: 'L'>, None)
    """
    sides = {_SIDES[word[0].upper()] for word in _SIDE_WORD.findall(stem)}
    return sides.pop() if len(sides) == 1 else None


@dataclass(frozen=True)
class Reject:
    """An item that was not used, and why. ``message`` carries no personal data."""

    source: str
    stage: str
    code: str
    message: str


@dataclass(frozen=True)
class Estimate:
    """A statistic with its interval, or the reason why there is none.

    Attributes:
        value: The statistic; None where the sample does not define it.
        ci_low: Lower 95 % limit; None without an interval.
        ci_high: Upper 95 % limit.
        n: Rows.
        reason: Why there is no value, or no interval.
        note: What makes an interval that is there doubtful.
    """

    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int = 0
    reason: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class StageResult:
    """What a stage did: the last lines of its command, and its ``--json`` document.

    Attributes:
        command: Name of the command.
        out: Where the outputs are.
        outputs: Role to path of every artefact written.
        counts: Items done, rejected, and so on.
        failed: Items that failed and are listed; makes the exit code 4.
        figures: Numbers worth showing (metrics and the like).
        notes: Things a person should know.
        next_step: The command to run next.
    """

    command: str
    out: Path
    outputs: dict[str, Path] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    figures: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    next_step: str = ""
