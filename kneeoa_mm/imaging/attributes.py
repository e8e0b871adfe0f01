"""Tolerant, typed access to the elements of a DICOM data set.

Real headers break the standard everywhere: an element that is absent, empty or broken reads as
None or as an empty tuple, and never raises.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kneeoa_mm.imaging.greyscale import Lut


class Attributes:
    """The elements of one data set.

    Args:
        dataset: A pydicom Dataset.
        is_little_endian: Byte order of its transfer syntax.
    """

    def __init__(self, dataset: Any, *, is_little_endian: bool = True) -> None:
        self._dataset = dataset
        self._order = "<" if is_little_endian else ">"

    def text(self, keyword: str, index: int = 0) -> str | None:
        """A text value without its padding; None where absent, empty or broken.

        Args:
            keyword: DICOM keyword.
            index: Which value, of an element with several.
        """
        try:
            value = self._dataset.get(keyword)
            if value is not None and not isinstance(value, str):
                value = value[index]
        except Exception:
            return None
        return str(value or "").strip(" \0") or None

    def integer(self, keyword: str) -> int | None:
        """A whole number; None where absent, empty or broken."""
        try:
            return int(self._dataset.get(keyword))
        except Exception:
            return None

    def numbers(self, keyword: str) -> tuple[float, ...] | None:
        """Numbers: None where the element is absent or empty, () where they are no numbers.

        A decimal comma, which the standard forbids, is read as what it means.
        """
        if keyword not in self._dataset:
            return None
        try:
            value = self._dataset[keyword].value
        except Exception:
            return ()
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            value = [value]
        texts = ["" if part is None else str(part).strip(" \0").replace(",", ".") for part in value]
        if not any(texts):
            return None
        try:
            numbers = tuple(float(text) for text in texts)
        except ValueError:
            return ()
        return numbers if np.isfinite(numbers).all() else ()

    def meaning(self, keyword: str) -> str | None:
        """Code Meaning (0008,0104) of the first item of a sequence of codes; None as in text."""
        try:
            return Attributes(self._dataset.get(keyword)[0]).text("CodeMeaning")
        except Exception:
            return None

    def lut(self, keyword: str) -> Lut | None:
        """The first look-up table of a sequence; None where there is no sequence.

        Raises:
            ValueError: The table is broken, or maps everything to one grey.
        """
        try:
            items = self._dataset.get(keyword)
            if not items:
                return None
            length, first, _ = (int(value) for value in items[0].LUTDescriptor)
            data = items[0].LUTData
        except Exception as error:
            raise ValueError("the LUT cannot be read") from error
        # the VR is ambiguous: read as unsigned, the first value of a signed film wraps around
        if self.integer("PixelRepresentation") == 1 and first >= 2**15:
            first -= 2**16
        length = length or 2**16
        if isinstance(data, bytes):
            # eight-bit entries are packed two to a word, with one byte more where they are odd
            is_packed = len(data) <= length + 1
            data = np.frombuffer(data, "u1" if is_packed else f"{self._order}u2")
        entries = tuple(int(value) for value in data)[:length]
        if len(entries) < length or len(set(entries)) < 2:
            raise ValueError("the LUT lacks entries, or maps everything to one grey")
        return Lut(first, entries)
