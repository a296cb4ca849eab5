"""MAT-files of versions 4, 5 (MathWorks, MAT-File Format) and 7.3 (HDF5, axes in reverse): arrays of numbers, those in
structures, and cells of arrays of one shape, which are stacked.

Versions 4 and 5 are read here, since scipy's reader ends the process at some damaged files.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from inrflow.data.formats.builtin.arrays import ArrayFormat
from inrflow.data.formats.schema import open_hdf5
from inrflow.errors import UserError

_HEADER, _MATRIX, _COMPRESSED = 128, 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC, _COMPLEX = range(6, 16), 0x800  # classes of arrays of numbers, and the flag of complex ones
_NESTED, _CELL, _STRUCTURE = range(1, 4), 1, 2  # of cells, structures and objects
_NUMBERS_4 = {0: "f8", 10: "f4", 20: "i4", 30: "i2", 40: "u2", 50: "u1"}
_HEADER_4, _LONGEST = 20, 64  # bytes of the header of a matrix of version 4, and of its name
_NONE = np.empty(0, object)  # in place of what is no array of numbers
_LARGEST = 2**33  # bytes of a compressed array


class MatlabFormat(ArrayFormat):
    """Recognised by the text at the beginning, in version 4 by the header of the first array."""

    name = "MATLAB"
    suffixes = (".mat",)
    about = "MATLAB's MAT-files"

    def sniff(self, path: Path, start: bytes) -> bool:
        return start.startswith((b"MATLAB 5.0", b"MATLAB 7.3")) or _header_4(start) is not None

    def save(self, file: Any, arrays: dict[str, np.ndarray]) -> None:
        from scipy.io import savemat

        savemat(file, {re.sub(r"\W", "_", name): array for name, array in arrays.items()}, long_field_names=True,
                do_compression=True)

    def arrays(self, path: Path) -> dict[str, np.ndarray]:
        with path.open("rb") as file:
            version = file.read(10)
        if version == b"MATLAB 7.3":
            with open_hdf5(path) as stored:
                held = {str(name): _version_73(item) for name, item in stored.items() if not name.startswith("#")}
        else:
            held = (_version_5 if version == b"MATLAB 5.0" else _version_4)(path.read_bytes())
        return _of_fields(held)


def _of_fields(held: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays with those of the fields of structures, by the names of fields where these are of one array alone, else
    behind that of the structure."""
    own = {name: item for name, item in held.items() if not isinstance(item, dict)}
    fields = [(outer, name, array) for outer, item in held.items() if isinstance(item, dict)
              for name, array in _of_fields(item).items()]
    names = Counter([*own, *(name for _, name, _ in fields)])
    return own | {name if names[name] == 1 else f"{outer}_{name}": array for outer, name, array in fields}


def _header_4(data: bytes) -> tuple[str, str, tuple[int, int], bool, int] | None:
    """Order and type of numbers, shape, whether they are complex, and the length of the name of an array of version 4,
    by its header; None of all else, and of text and sparse matrices."""
    for order in "<>" if len(data) >= _HEADER_4 else "":
        kind, rows, columns, complex_, length = struct.unpack_from(f"{order}5i", data)
        numbers = _NUMBERS_4.get(kind % 1000)
        if numbers and kind // 1000 == (order == ">") and complex_ in (0, 1) and 1 < length < _LONGEST and (
                rows > 0 < columns) and data[_HEADER_4:].partition(b"\0")[0][:length].isalnum():
            return order, numbers, (rows, columns), bool(complex_), length
    return None


def _version_4(data: bytes) -> dict[str, Any]:
    """The matrices by their names. Raises ValueError where one does not fit the file, or is none of numbers."""
    arrays, place = dict[str, Any](), 0
    while place < len(data):
        found = _header_4(data[place:place + _HEADER_4 + _LONGEST])
        if found is None:
            raise ValueError(f"at byte {place} begins no matrix of numbers")
        order, kind, shape, complex_, length = found
        name, start = data[place + _HEADER_4:place + _HEADER_4 + length - 1].decode(), place + _HEADER_4 + length
        count, size = math.prod(shape), int(kind[1])
        place = start + count * size * (1 + complex_)
        if place > len(data):
            raise ValueError(f"the matrix {name} of shape {shape} reaches beyond the end")
        parts = [np.frombuffer(data, order + kind, count, start + part * count * size).reshape(shape, order="F")
                 for part in range(1 + complex_)]
        arrays[name] = parts[0] + 1j * parts[1] if complex_ else parts[0]
    return arrays


def _version_73(item: h5py.Dataset | h5py.Group) -> Any:
    """The values of an array of numbers, those of a cell stacked, the fields of a structure, nothing of all else."""
    if isinstance(item, h5py.Group):
        return {str(name): _version_73(one) for name, one in item.items()}
    if isinstance(item, h5py.Dataset) and item.dtype == h5py.ref_dtype:
        return _stacked([_version_73(item.file[one]) for one in item[()].T.ravel() if one])
    if isinstance(item, h5py.Dataset) and item.dtype.names == ("real", "imag"):
        return np.asarray(item["real"].T + 1j * item["imag"].T)
    return np.asarray(item[()].T) if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" else _NONE


def _stacked(cells: list[Any]) -> np.ndarray:
    """Arrays of numbers of one shape as one more, nothing of others."""
    numbers = cells and all(isinstance(cell, np.ndarray) and cell.dtype.kind in "fiuc" for cell in cells)
    return np.stack(cells) if numbers and len({cell.shape for cell in cells}) == 1 and cells[0].size else _NONE


def _version_5(data: bytes) -> dict[str, Any]:
    """The arrays of numbers by their names. Raises ValueError where elements do not fit their sizes."""
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


def _matrix(content: memoryview, order: str) -> tuple[str, Any] | None:
    """Name and values of an array of numbers, of a cell of such stacked, the fields of a single structure, `_NONE` of
    others and of objects; None of all else."""
    parts = _elements(content, order)
    flags = int.from_bytes(_following(parts)[1][:4], "little" if order == "<" else "big")
    if flags & 0xFF not in _NUMERIC and flags & 0xFF not in _NESTED:
        return None
    shape = [int(size) for size in np.frombuffer(_following(parts)[1], f"{order}i4")]
    name = bytes(_following(parts)[1]).decode("ascii", "replace")
    if flags & 0xFF == _CELL:
        held = [_matrix(part, order) for kind, part in parts if kind == _MATRIX and len(part)]
        return name, _stacked([_NONE if one is None else one[1] for one in held])
    if flags & 0xFF == _STRUCTURE and math.prod(shape) == 1:
        length = int.from_bytes(_following(parts)[1][:4], "little" if order == "<" else "big", signed=True)
        names = bytes(_following(parts)[1])
        fields = [names[first:first + length].partition(b"\0")[0].decode("ascii", "replace")
                  for first in range(0, len(names), max(length, 1))]
        values = [_matrix(part, order) for kind, part in parts if kind == _MATRIX and len(part)]
        return name, {field: value[1] for field, value in zip(fields, values, strict=False) if value is not None}
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
