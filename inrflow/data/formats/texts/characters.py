"""Characters of text files: encodings, told by the first bytes (UTF-8, Windows-1252, UTF-16 and UTF-32, also within
gzip), and numbers with decimal commas, thousands separators or the exponents of Fortran."""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inrflow.data.formats.columns import all_numbers

_GROUPED = {mark: re.compile(rf"[-+]?\d{{1,3}}({re.escape(group)}\d{{3}})*({re.escape(mark)}\d+)?") for mark, group in (
    (".", ","), (",", "."))}  # numbers with thousands separators, by their decimal sign
_PARTED, _FORTRAN = re.compile(r"[-+]?\d{1,3}(['’ \u00a0\u202f]\d{3})+([.,]\d+)?"), re.compile(
    r"[-+]?(\d+\.?\d*|\.\d+)[dD][-+]?\d+")  # other thousands separators; Fortran exponents
THOUSANDS = re.compile(r"\s*([-+]?\d{1,3}(\.\d{3})+)?\s*")  # with points between thousands, or three decimals
_NO_THOUSANDS = re.compile(r"\s*[-+]?(\d+,(\d{1,2}|\d{4,})|0,\d+)\s*")  # a decimal comma
_CHANGED = "'’ \u00a0\u202fDd"  # signs that are removed, or replaced by E
UNUSUAL = _CHANGED + ","  # cells without these signs stay as they are until a column had some
GZIP = b"\x1f\x8b"
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
          codecs.BOM_UTF16_BE: "utf-16"}  # those of 32 bits first, as one begins like one of 16
_LOOKED_AT = 64  # bytes that tell UTF-16 without a mark: every second one is zero


@dataclass
class Numerals:
    """How the numbers of a column are written, as its cells show block by block.

    Attributes:
        expected: whether commas are decimal commas, even before three digits.
        commas: whether a number with a decimal comma was found.
        mark: decimal sign of numbers with thousands separators, once one is found.
    """

    expected: bool
    commas: bool = False
    mark: str | None = None

    def rewritten(self, column: Sequence[str]) -> Sequence[str]:
        """The cells of the next block, with decimal points, without thousands separators and with the exponent E if all
        are then numbers."""
        text = "".join(column)
        if any(sign in text for sign in _CHANGED):
            changed = [re.sub("['’ \u00a0\u202f]", "", cell) if _PARTED.fullmatch(cell.strip()) else
                       cell.upper().replace("D", "E") if _FORTRAN.fullmatch(cell.strip()) else cell for cell in column]
            if changed != list(column) and all_numbers(np.array([cell.replace(",", ".", 1) for cell in changed])):
                column = changed
        if self.mark is None and any("," in cell and "." in cell for cell in column):
            self.mark = next((sign for sign, form in _GROUPED.items() if all(
                form.fullmatch(cell.strip()) or all_numbers(np.array([cell, "0"], object)) for cell in column)), None)
        if self.mark is not None:
            self.commas |= self.mark == ","
            group, form = "," if self.mark == "." else ".", _GROUPED[self.mark]
            return [cell.replace(group, "").replace(self.mark, ".") if form.fullmatch(cell.strip()) else cell
                    for cell in column]
        if "," in text and "." not in text and (self.expected or any(map(_NO_THOUSANDS.fullmatch, column))):
            changed = [cell.replace(",", ".", 1) for cell in column]
            if all_numbers(np.array(changed, object)):
                self.expected = self.commas = True
                return changed
        return column


def encoding_of(start: bytes) -> str:
    """Name of the encoding of text with these first bytes, of which some are zero or a mark."""
    marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    start = start[:_LOOKED_AT]
    for zero, name in enumerate(("utf-16-be", "utf-16-le")):
        if marked is None and len(start) > 3 and not any(start[zero::2]) and all(start[1 - zero :: 2]):
            marked = name
    return marked or "utf-8-sig"


def unpacked(start: bytes) -> bytes:
    """Decompressed beginning of a gzip file; empty if it is damaged."""
    try:
        return zlib.decompressobj(31).decompress(start, 4096)
    except zlib.error:
        return b""
