"""Sanitising of names from data files for use as file names and for printing on a terminal."""

from __future__ import annotations

import hashlib

_LONGEST = 100  # bytes; file systems allow 255, temporary names and suffixes are added
_KEPT = " -_.,=+()"  # besides letters and digits of any script
_OF_RUNS = ("checkpoints", ".json", ".jsonl", ".yaml", ".safetensors", ".png", ".gif")  # ends of names of a run


def safe_name(name: str) -> str:
    """Component of a path for a `name` from a file: never empty, hidden, absolute, leading out of its folder, or that
    of another part of a run directory.

    Safe names are unchanged. In others, unsafe characters are replaced by `_` and a digest of the original is appended,
    so that different names stay different.
    """
    safe = "".join(c if c.isalnum() or c in _KEPT else "_" for c in name).strip(" ").lstrip(".")
    safe = safe.encode()[:_LONGEST].decode(errors="ignore").rstrip(" .")
    if safe == name and safe and not safe.lower().endswith(_OF_RUNS):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{safe}-{digest}" if safe else digest


def printable(text: object) -> str:
    """`text` with control characters, terminal escapes and lone surrogates written as backslash escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
