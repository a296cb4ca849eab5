"""MAT-files of versions 5 (MathWorks, MAT-File Format) and 7.3 (HDF5, axes in reverse): numeric arrays only, and cell
arrays of numeric arrays of one shape, which are stacked.

Version 5 is read here, since scipy's reader crashes on some damaged files.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from inrflow.data.formats.builtin.arrays import ArrayFormat
from inrflow.data.formats.schema import open_hdf5
from inrflow.errors import UserError

_HEADER, _MATRIX, _COMPRESSED = 128, 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC, _COMPLEX = range(6, 16), 0x800  # classes of numeric arrays, and the flag of complex ones
_NESTED, _CELL = range(1, 4), 1  # classes of cells, structures and objects
_NONE = np.empty(0, object)  # placeholder for anything but numeric arrays
_LARGEST = 2**33  # largest size of a decompressed array in bytes


class MatlabFormat(ArrayFormat):
    """MAT-files, recognised by the text at their beginning."""

    name = "MATLAB"
    suffixes = (".mat",)
    about = "MATLAB's MAT-files"

    def sniff(self, path: Path, start: bytes) -> bool:
        return start.startswith((b"MATLAB 5.0", b"MATLAB 7.3"))

    def save(self, file: Any, arrays: dict[str, np.ndarray]) -> None:
        from scipy.io import savemat

        savemat(file, {re.sub(r"\W", "_", name): array for name, array in arrays.items()}, long_field_names=True,
                do_compression=True)

    def arrays(self, path: Path) -> dict[str, np.ndarray]:
        with path.open("rb") as file:
            newer = file.read(10) == b"MATLAB 7.3"
        if newer:
            with open_hdf5(path) as stored:
                return {str(name): _version_73(item) for name, item in stored.items() if not name.startswith("#")}
        return _version_5(path.read_bytes())


def _version_73(item: h5py.Dataset | h5py.Group) -> np.ndarray:
    """Values of a numeric array, stacked values of a cell array, `_NONE` for all else."""
    if isinstance(item, h5py.Dataset) and item.dtype == h5py.ref_dtype:
        return _stacked([_version_73(item.file[one]) for one in item[()].T.ravel() if one])
    if isinstance(item, h5py.Dataset) and item.dtype.names == ("real", "imag"):
        return np.asarray(item["real"].T + 1j * item["imag"].T)
    return np.asarray(item[()].T) if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" else _NONE


def _stacked(cells: list[np.ndarray]) -> np.ndarray:
    """Numeric arrays of one shape, stacked; `_NONE` for others."""
    alike = cells and len({cell.shape for cell in cells}) == 1 and cells[0].size
    return np.stack(cells) if alike and all(cell.dtype.kind in "fiuc" for cell in cells) else _NONE


def _version_5(data: bytes) -> dict[str, np.ndarray]:
    """Numeric arrays by name. Raises ValueError if elements do not match their sizes."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("the header has no mark of the order of bytes")
    arrays = {}
    for kind, content in _elements(memoryview(data)[_HEADER:], order):
        if kind == _COMPRESSED:
            unpacked = zlib.decompressobj().decompress(content, _LARGEST)
            kind, content = _following(_elements(memoryview(unpacked), order))
        if kind == _MATRIX and (found := _matrix(content, order)) is not None:
            arrays[found[0]] = found[1]
    return arrays


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of the elements, each preceded by a tag of its type and size."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        if kind >> 16:  # a small element shares the eight bytes of its tag
            kind, size, start, after = kind & 0xFFFF, kind >> 16, place + 4, place + 8
            if size > 4:
                raise ValueError(f"a small element has {size} bytes")
        else:
            start = place + 8
            after = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data):
            raise ValueError(f"an element of {size} bytes reaches beyond the end")
        yield kind, data[start : start + size]
        place = after


def _following(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    """Next element. Raises ValueError if there is none."""
    found = next(parts, None)
    if found is None:
        raise ValueError("an element is missing")
    return found


def _matrix(content: memoryview, order: str) -> tuple[str, np.ndarray] | None:
    """Name and values of a numeric array or, stacked, of a cell array; `_NONE` as values of structures and objects;
    None for all else."""
    parts = _elements(content, order)
    flags = int.from_bytes(_following(parts)[1][:4], "little" if order == "<" else "big")
    if flags & 0xFF not in _NUMERIC and flags & 0xFF not in _NESTED:
        return None
    shape = [int(size) for size in np.frombuffer(_following(parts)[1], f"{order}i4")]
    name = bytes(_following(parts)[1]).decode("ascii", "replace")
    if flags & 0xFF == _CELL:
        held = [_matrix(part, order) for kind, part in parts if kind == _MATRIX and len(part)]
        return name, _stacked([_NONE if one is None else one[1] for one in held])
    if flags & 0xFF in _NESTED:
        return name, _NONE
    real = _flat(next(parts, (9, memoryview(b""))), name, order, shape)
    return name, real + 1j * _flat(_following(parts), name, order, shape) if flags & _COMPLEX else real


def _flat(part: tuple[int, memoryview], name: str, order: str, shape: list[int]) -> np.ndarray:
    """Numbers of an element as an array of the given shape. Raises ValueError if the size differs."""
    kind, values = part
    if kind not in _NUMBERS:
        raise UserError(f"the array {name} has numbers of an unknown type {kind}; write it again")
    flat = np.frombuffer(values, order + _NUMBERS[kind])
    if not shape or min(shape) < 0 or math.prod(shape) != len(flat):
        raise ValueError(f"the array {name} of shape {shape} has {len(flat)} values")
    return flat.reshape(shape, order="F")
