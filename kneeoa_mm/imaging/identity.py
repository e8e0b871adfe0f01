"""Whose film it is and when it was taken, and how outputs may say so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from kneeoa_mm.cohort_spec import CohortSpec, visit_digits
from kneeoa_mm.errors import ConfigError, ItemError
from kneeoa_mm.identifiers import Identifiers
from kneeoa_mm.imaging.dicom import DICOM_SUFFIXES
from kneeoa_mm.imaging.header import read_months
from kneeoa_mm.imaging.pictures import PICTURE_SUFFIXES
from kneeoa_mm.imaging.radiograph import Radiograph
from kneeoa_mm.records import FRONTAL_VIEWS, Laterality, View, named_side, subject_and_side

_KEPT_SUFFIXES = DICOM_SUFFIXES | PICTURE_SUFFIXES
_SIDES = {"R": Laterality.RIGHT, "1": Laterality.RIGHT, "L": Laterality.LEFT, "2": Laterality.LEFT}


@dataclass(frozen=True)
class FilmIdentity:
    """Whose film, when, and the side that its path names; None is unknown.

    Attributes:
        subject_id: As outputs carry it.
        months: Since baseline.
        path_side: Side in the path.
        is_contradicted: The header names another person or visit than the path, which counted.
        is_visit_unlisted: The path names a visit that the cohort does not list.
    """

    subject_id: str | None
    months: int | None
    path_side: Laterality | None
    is_contradicted: bool = False
    is_visit_unlisted: bool = False


@dataclass(frozen=True)
class Naming:
    """How films of one run are identified.

    Attributes:
        identifiers: Keeps or hashes identifiers.
        cohort: Name of the cohort, or None.
        path_pattern: See :class:`~kneeoa_mm.cohort_spec.FilmsSpec`.
        visits: Visit code to months.
        views: Those of the cohort's knee films.
    """

    identifiers: Identifiers
    cohort: str | None = None
    path_pattern: str | None = None
    visits: Mapping[str, int] | None = None
    views: tuple[View, ...] = FRONTAL_VIEWS

    @classmethod
    def of(cls, identifiers: Identifiers, spec: CohortSpec | None) -> Naming:
        """The naming of a cohort, or of films that belong to none.

        Raises:
            ConfigError: The cohort's path pattern is no regular expression.
        """
        if spec is None:
            return cls(identifiers)
        try:
            re.compile(spec.films.path_pattern or "")
        except re.error as error:
            raise ConfigError(
                "films.path_pattern is no regular expression.",
                found=f"{spec.films.path_pattern} ({error})",
                where=f"cohort {spec.name}",
            ) from error
        films = spec.films
        return cls(identifiers, spec.name, films.path_pattern, dict(spec.visits), films.views)

    def identify(self, source: str, film: Radiograph) -> FilmIdentity:
        """Read the identity from the path, and from the header where the path does not tell.

        Without a cohort's path pattern, the file's name counts where it has the form
        ``<subject><L|R>``, and in pictures, which have no header, ``<subject>_<1|2>`` too. A word
        of the name such as ``L`` or ``right`` counts where the pattern finds no side. A side in a
        name is a claim like any other, a subject only fills the header's gap. A visit may be given
        by its code or the digits of it; one that is not listed leaves the word to the header.

        Args:
            source: Path of the film relative to the studies, with ``/``.
            film: The film.

        Raises:
            ItemError: The identifier cannot stand in a knee_id.
        """
        in_path = self._in_path(source)
        stem = _stem(PurePosixPath(source))
        side = None if self.path_pattern else _from_name(source, stem)[1]
        subject = self.source_id(source, film.patient_id)
        if subject is not None and self.identifiers.key is None and ":" in subject:
            message = "the subject identifier holds a colon; hash identifiers with --ids KEYFILE"
            raise ItemError("E_IDENTITY", message, stage="identify")
        in_pattern = _SIDES.get((in_path.get("side") or "")[:1].upper())
        visits = self.visits or {}
        visit, time_point = in_path.get("visit"), film.time_point
        codes = [code for code in (_code(visit, visits), _code(time_point, visits)) if code]
        return FilmIdentity(
            None if subject is None else self.identifiers.subject_id(subject),
            read_months(codes[0] if codes else None, film.days_since_baseline, visits),
            in_pattern or side or named_side(stem),
            _are_of_two(in_path.get("subject"), film.patient_id)
            or len({visits[code] for code in codes}) > 1,
            bool(visit) and _code(visit, visits) is None,
        )

    def source_id(self, source: str, patient_id: str | None) -> str | None:
        """The subject as path or header name it.

        Where identifiers are hashed, no output and no message may carry it.

        Args:
            source: Path of the film relative to the studies, with ``/``.
            patient_id: Of the header.
        """
        if self.path_pattern:
            return self._in_path(source).get("subject") or patient_id
        return patient_id or _from_name(source, _stem(PurePosixPath(source)))[0]

    def _in_path(self, source: str) -> dict[str, str | None]:
        match = re.search(self.path_pattern, source) if self.path_pattern else None
        return match.groupdict() if match else {}

    def masked(self, source: str) -> str:
        """The path of a film as outputs may show it.

        Paths name people, so where identifiers are hashed each part of the path is hashed too,
        except for the codes of known visits and the suffix of a film.

        Example:
            >>> naming = Naming(Identifiers(b"0" * 16), visits={"V00": 0})
            >>> naming.masked("V00/Jane Doe.dcm")
            'V00/08b69a17fadbdfb0.dcm'
            >>> Naming(Identifiers(None)).masked("V00/9000017.dcm")
            'V00/9000017.dcm'
        """
        if self.identifiers.key is None:
            return source
        return "/".join(self._masked_part(part) for part in PurePosixPath(source).parts)

    def _masked_part(self, part: str) -> str:
        if part in (self.visits or {}):
            return part
        suffix = PurePosixPath(part).suffix
        # as it is: IM1.DCM and IM1.dcm are two films
        kept = suffix if suffix.lower() in _KEPT_SUFFIXES else ""
        return self.identifiers.subject_id(part.removesuffix(suffix) if kept else part) + kept


def _code(text: str | None, visits: Mapping[str, int]) -> str | None:
    """The code that a text is, or that alone has it for its digits, as 0 stands for V0."""
    if not text or text in visits:
        return text or None
    meant = [code for code in visits if visit_digits(code) == text]
    return meant[0] if len(meant) == 1 else None


def _are_of_two(subject: str | None, patient_id: str | None) -> bool:
    """Whether two identifiers are of two people: they share no number, whatever is around it."""
    if subject is None or patient_id is None or subject.casefold() == patient_id.casefold():
        return False
    first, second = (set(map(int, re.findall(r"\d+", each))) for each in (subject, patient_id))
    return not first & second


def _stem(path: PurePosixPath) -> str:
    return path.stem if path.suffix.lower() in _KEPT_SUFFIXES else path.name


def _from_name(source: str, stem: str) -> tuple[str | None, Laterality | None]:
    is_picture = PurePosixPath(source).suffix.lower() in PICTURE_SUFFIXES
    # a number at the end of a DICOM's name counts images more often than it tells sides
    return subject_and_side(stem) if is_picture or stem[-1:] in {"L", "R"} else (None, None)
