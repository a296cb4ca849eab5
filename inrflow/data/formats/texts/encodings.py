"""Encodings of text files, told by their first bytes: UTF-8, Windows-1252, UTF-16 and UTF-32, also within gzip."""

from __future__ import annotations

import codecs
import gzip
import io
import warnings
import zlib
from pathlib import Path
from typing import Any

_GZIP = b"\x1f\x8b"
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
          codecs.BOM_UTF16_BE: "utf-16"}  # those of 32 bits first, as one begins like one of 16
_LOOKED_AT = 64  # bytes that tell UTF-16 without a mark: every second one is zero


def opened_text(path: Path) -> io.TextIOBase:
    """The text of a file, from its beginning, with line ends as they are."""
    with path.open("rb") as file:
        start = file.read(4096)
    opened: Any = gzip.open if start.startswith(_GZIP) else open
    name = encoding_of(unpacked(start))
    errors = _bytes_of_windows(path) if name == "utf-8-sig" else None
    text: io.TextIOBase = opened(path, "rt", newline="", encoding=name, errors=errors)
    return text


def encoding_of(start: bytes) -> str:
    """Name of the encoding of text with these first bytes."""
    marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    start = start[:_LOOKED_AT]
    for zero, name in enumerate(("utf-16-be", "utf-16-le")):
        if marked is None and len(start) > 3 and not any(start[zero::2]) and all(start[1 - zero :: 2]):
            marked = name
    return marked or "utf-8-sig"


def unpacked(start: bytes) -> bytes:
    """First bytes of a file, decompressed if it is a gzip file; empty if that is damaged."""
    if not start.startswith(_GZIP):
        return start
    try:
        return zlib.decompressobj(31).decompress(start, 4096)
    except zlib.error:
        return b""


def _bytes_of_windows(path: Path) -> str:
    """Name of an error handler for decoding UTF-8 that reads other bytes of a file as Windows-1252, which includes all
    printable characters of Latin-1, with one warning."""
    told, name = list[str](), f"inrflow {hash(path)}"

    def decoded(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeDecodeError):
            raise error
        text = error.object[error.start:error.end].decode("cp1252")
        if not told:
            told.append(text)
            warnings.warn(f"{path} is no UTF-8: its letters beyond ASCII, the first of which is {text!r}, are taken as "
                          "those of Windows-1252 (Latin-1); if names look wrong, save it as UTF-8", stacklevel=2)
        return text, error.end

    codecs.register_error(name, decoded)
    return name
