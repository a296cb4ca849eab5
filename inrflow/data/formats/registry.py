"""Registry of data formats, their interface, and recognition of the format of a file.

A new format is one module: a subclass of Format, or of TableFormat (table_format.py) if its files are tables,
registered with `@register_format`. It is then available in `inrflow convert`, `inrflow inspect` and `inrflow query`.
Tables are written by a TableWriter, which appends blocks of columns to a file that is renamed when complete.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import stat
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from inrflow.data.calendar import moments_to_texts
from inrflow.data.description import Description, Symmetries
from inrflow.data.formats.columns import (
    IN_FILES,
    Columns,
    Grid,
    PointTable,
    Roles,
    all_numbers,
    column_numbers,
    observations_of,
    spanning_columns,
)
from inrflow.data.formats.schema import require_storable
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES, named_lonlat
from inrflow.data.observations import Observations
from inrflow.errors import UserError, missing
from inrflow.runtime.atomic_files import AtomicFile, damage_as_user_error

CHUNK_ROWS = 16384


class TableWriter(ABC):
    """Writer that appends blocks of columns to a new file, which gets its name when it is complete.

    A format implements `_start` (create `_file`, at `_target`) and `_add` (a block). verbatim: whether numbers read as
    text are written as the same text. run: the run that predicted, for formats with a history.
    """

    verbatim, run = False, ""

    _file: Any = None

    def __init__(self, path: Path, description: Description | None, overwrite: bool) -> None:
        self._target = AtomicFile(path, overwrite, store=self.is_store)
        self.path, self.description = path, description
        self._rows, self._numbers = 0, set[str]()

    @staticmethod
    def is_store(path: Path) -> bool:
        """Whether a folder holds one file of the format and nothing else, and may be written over."""
        return False

    def append(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        """Add rows; names and grid are the same in every call."""
        try:
            with self._target.guard():
                encoded = {name: self._encoded(values) for name, values in columns.items()}
                if self._rows == 0:
                    self._numbers = set() if self.verbatim else {
                        name for name, values in encoded.items()
                        if values.dtype == object and self._is_number(name) and all_numbers(values)}
                for name in self._numbers:
                    encoded[name] = column_numbers(encoded[name], name, self.path, self._rows)
                if self._rows == 0:
                    self._start(encoded, grid)
                self._add(encoded)
            self._rows += len(next(iter(columns.values())))
        except BaseException:
            self.abandon()
            raise

    def close(self) -> None:
        """Complete the file and give it its name."""
        try:
            if self._rows == 0:
                raise UserError(f"there are no rows to write to {self.path}; give at least one point")
            self._complete()
        finally:
            self.abandon()

    def _complete(self) -> None:
        with self._target.guard():
            self._finish()
        self._target.complete()

    def abandon(self) -> None:
        """Remove the unfinished file."""
        try:
            self._finish()
        except OSError:
            pass  # text that did not fit a full disk is removed anyway
        self._target.discard()

    def _encoded(self, values: np.ndarray) -> np.ndarray:
        """Text and dates as arrays of str objects; numbers unchanged."""
        values = np.asarray(values)
        if values.dtype.kind == "M":
            return moments_to_texts(values)
        return values.astype(object) if values.dtype.kind in "US" else values

    def _is_number(self, name: str) -> bool:
        """Whether a column holds places or channels, which are numbers even if a table gives them as text."""
        about = self.description
        known = () if about is None else (*about.coordinates, *about.channels)
        return name.removesuffix("_observed") in known or name.lower() in (*LONGITUDES, *LATITUDES)

    @abstractmethod
    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None: ...

    @abstractmethod
    def _add(self, columns: Mapping[str, np.ndarray]) -> None: ...

    def _finish(self) -> None:
        if self._file is not None:
            self._file.close()


#: Suffix of predicted columns -> description and CF modifier of the standard name.
_PREDICTED = {"std": ("standard deviation", " standard_error"), "q05": ("5 % quantile", ""), "q50": ("median", ""),
              "q95": ("95 % quantile", "")}


def units_of_columns(description: Description | None) -> dict[str, str]:
    """Known units by column name: channels, their standard deviations and quantiles, and t."""
    if description is None:
        return {}
    units = dict(zip(description.channels, description.units or (), strict=False))
    units |= {f"{name}_{what}": unit for name, unit in units.items() for what in _PREDICTED}
    return units | ({"t": description.time_units} if description.time_units else {})


def attributes_of(name: str, known: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Attributes of a column: its own, of the observed column, or derived from those of its channel."""
    own = known.get(name, known.get(name.removesuffix("_observed")))
    channel, _, what = name.rpartition("_")
    if own is not None or what not in _PREDICTED:
        return own or {}
    found, (words, modifier) = known.get(channel, {}), _PREDICTED[what]
    same = "cell_methods", "grid_mapping", "mesh", "location"
    named: dict[str, Any] = {key: found[key] for key in same if key in found}
    named |= {"standard_name": f"{found['standard_name']}{modifier}"} if "standard_name" in found else {}
    return {"long_name": f"{found.get('long_name', channel)}, {words}", **named}


_HEAD = 4096  # bytes of a file that `sniff` is given
_LISTED = 1000  # files of a folder that are looked at


@dataclass(frozen=True)
class ReadOptions:
    """Options of the user for reading a file as trajectories; None or empty: as the file declares.

    channels, coordinates: names of variables or columns. time: name of the variable or column of times. trajectory:
    dimension along which trajectories are stacked. select: an index for each of some other dimensions. stations: a
    table with the names and places of stations.
    description: attributes of Description (symmetries by their names) that override those of the file.
    """

    channels: Sequence[str] | None = None
    coordinates: Sequence[str] | None = None
    time: str | None = None
    trajectory: str | None = None
    select: Mapping[str, int] = field(default_factory=dict)
    stations: str | None = None
    description: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.time is not None:
            object.__setattr__(self, "time", self.time.replace(*IN_FILES))
        for key in ("channels", "coordinates"):
            if (names := getattr(self, key)) is not None:
                object.__setattr__(self, key, [str(name).replace(*IN_FILES) for name in names])

    @property
    def lonlat(self) -> list[str] | None:
        """Longitude and latitude on a sphere, where `coordinates` are two."""
        return named_lonlat(self.coordinates) if self.coordinates is not None and len(self.coordinates) == 2 else None

    def describe(self, path: Path, channels: Sequence[str], coordinates: Sequence[str], **found: Any) -> Description:
        """Description of a file from the attributes found in it (None: not found), overridden by the user's."""
        values = {"name": path.stem, **{key: value for key, value in found.items() if value is not None},
                  **self.description}
        symmetries = values.pop("symmetries", ())
        try:
            described = Description(channels=tuple(channels), coordinates=tuple(coordinates), **values)
            require_storable(described)
            return replace(described, symmetries=Symmetries.by_name(symmetries, described)) if symmetries else described
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


class Content(ABC):
    """Context manager of the trajectories of a file with known structure; values are read by `write`."""

    description: Description
    #: Whether the file holds one frame without a time.
    timeless = False

    @abstractmethod
    def write(self, target: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the trajectories to `target` in the project's schema. Raises UserError, naming the source, for invalid
        values."""

    def close(self) -> None:  # noqa: B027  most formats keep nothing open
        """Close the file."""

    def __enter__(self) -> Content:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Format(ABC):
    """Format of data files.

    name: as shown to users. about: name and expected content, for messages. suffixes: suffixes of files that
    `open_writer` writes; none if the format is only read. answers: suffixes of files that `open_answer` writes in the
    layout of the file of points. table: whether `open_columns` reads it. text: whether it is written by hand, so that
    unknown columns are likely mistakes. binary: whether every file has a NUL byte near its start, so that text need not
    be examined. named_dimensions: whether ReadOptions.trajectory and select apply. folder: whether it is one, no
    file. fixed_points: whether its tables must have numbers at the same points at every time. dates: form of dates in
    forecasts, "text" or "moments" (datetime64); None: numbers in the data's units. signature: pattern of the first
    bytes, by which `sniff` recognises it.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[str, ...]] = ()
    table: ClassVar[bool] = False
    text: ClassVar[bool] = False
    binary: ClassVar[bool] = False
    named_dimensions: ClassVar[bool] = False
    folder: ClassVar[bool] = False
    fixed_points: ClassVar[bool] = False
    dates: ClassVar[str | None] = None
    signature: ClassVar[re.Pattern[bytes] | None] = None
    options: ReadOptions = ReadOptions()

    def with_options(self, options: ReadOptions) -> Format:
        """Copy of the format that also reads tables with these options."""
        told = copy(self)
        told.options = options
        return told

    def sniff(self, path: Path, start: bytes) -> bool:
        """Whether a regular file (or a folder, if `folder`) has this format; `start`: its first bytes."""
        return self.signature is not None and self.signature.match(start) is not None

    @abstractmethod
    def read(self, path: Path, options: ReadOptions) -> Content:
        """File as trajectories. Raises UserError if the roles of its parts cannot be determined."""

    @abstractmethod
    def summary(self, path: Path) -> list[tuple[str, str]]:
        """(label, text) rows on the content of the file."""

    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
        """File as a table, for observations and query points.

        wanted: groups of alternative names of the columns that define the rows, if the file has arrays of several
        shapes. Raises UserError if it is no table.
        """
        tables = ", ".join(known.about for known in FORMATS if known.table)
        raise UserError(f"{path} holds {self.about}, which is not a table; convert it with `inrflow convert`, or give "
                        f"one of {tables}")

    def points(self, path: Path, description: Description, rows: int) -> Iterator[PointTable]:
        """Query points of a file in blocks of about `rows`; see tables.PointReader."""
        named = self.options.lonlat
        with self.open_columns(path, [*spanning_columns(description), *((name,) for name in named or ())]) as columns:
            roles = Roles(path, columns, description, self.options.time, named)
            count = 0
            for block in columns.blocks(rows):
                table = roles.points(block, count)
                count += len(table)
                yield table
            if not count:
                raise UserError(f"{path} has no rows; give at least one point")

    def observations(self, path: Path, description: Description) -> dict[int, Observations]:
        """Observations in a file by trajectory number; see tables.read_observations."""
        named = self.options.lonlat
        wanted = [*spanning_columns(description), *((name,) for name in (*description.channels, *(named or ())))]
        with self.open_columns(path, wanted) as columns:
            strict = self.text and self.options.channels is None  # chosen channels leave out other columns
            return observations_of(columns, path, description, strict, self.options.time, named)

    def open_writer(self, path: Path, description: Description | None, overwrite: bool) -> TableWriter:
        """Writer of a table with new columns. Raises UserError if the format is only read."""
        raise UserError(f"{path}: {self.name} is read but not written; use one of {', '.join(writable())}")

    def open_answer(self, path: Path, description: Description | None, overwrite: bool, asked: Path) -> TableWriter:
        """Writer of the points of the file `asked`, which has this format, with new columns in its layout."""
        return self.open_writer(path, description, overwrite)


FORMATS: list[Format] = []
_Registered = TypeVar("_Registered", bound=type[Format])


def register_format(kind: _Registered) -> _Registered:
    """Class decorator that registers a format. If several recognise a file, the one registered last is used."""
    FORMATS.append(kind())
    return kind


def format_of(path: Path) -> Format:
    """Format of a file, by its content. Raises UserError if it is missing, not a regular file, or unknown."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            store = next((known for known in reversed(FORMATS) if known.folder and known.sniff(path, b"")), None)
            if store is not None:
                return store
            raise UserError(f"{path} is a folder, and neither Zarr nor a case of OpenFOAM; give a file in it, or "
                            f"several by a pattern, as '{pattern_in(path) or path / '*.nc'}'")
        if not stat.S_ISREG(mode):
            raise UserError(f"{path} is a device, pipe or socket; give a regular file: {readable()}")
        with path.open("rb") as file:
            start = file.read(_HEAD)
    except FileNotFoundError as error:
        raise UserError(missing(path)) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({os.strerror(error.errno or 0)}); give a file: "
                        f"{readable()}") from error
    if not start:
        raise UserError(f"{path} is empty; give a file: {readable()}")
    binary = b"\0" in start
    for known in reversed(FORMATS):
        if known.folder or (known.binary and not binary):
            continue
        with damage_as_user_error(path):
            if known.sniff(path, start):
                return known
    kind = "binary file" if binary else "text file"
    raise UserError(f"{path} is a {kind} of an unknown format; give {readable()}")


def expanded(source: str | os.PathLike[str]) -> list[Path]:
    """Files that match a name with *, ? or [, in the order of their names; the files of a list [a.csv,b.csv]; the case
    of an empty file .foam; any other name unchanged. Raises UserError if nothing matches.
    """
    if (path := Path(source)).exists() or not glob.has_magic(str(source)):
        return [path.parent if path.suffix.lower() in (".foam", ".openfoam") and path.is_file() else path]
    if (name := str(source)).startswith("[") and name.endswith("]"):
        return [path for one in name[1:-1].split(",") for path in expanded(one.strip(" '\""))]
    found = sorted(glob.glob(str(source)))
    if not found:
        raise UserError(f"no file matches {source}; check the folder and the pattern")
    return [Path(name) for name in found]


def pattern_in(folder: Path) -> str | None:
    """A pattern of most files in a folder, or, where there are none, in those in it; None where they have no suffix."""
    for level in ("*", "*/*", "*/*/*"):
        files = [item for item in itertools.islice(folder.glob(level), _LISTED) if item.is_file() and item.suffix]
        named = next((str(item) for item in files if item.suffix in (".case", ".pvd", ".xdmf")), None)
        if named or files:
            return named or f"{folder}/{level}{Counter(item.suffix for item in files).most_common(1)[0][0]}"
    return None


def format_for_writing(path: Path) -> Format:
    """Format that writes files with the suffix of `path`. Raises UserError if there is none."""
    for known in reversed(FORMATS):
        if path.name.lower().endswith(known.suffixes):
            return known
    raise UserError(f"cannot tell the format of {path} by its suffix {path.suffix!r}; use one of "
                    f"{', '.join(writable())}")


def readable() -> str:
    """Names of all readable formats, for messages."""
    return ", ".join(known.about for known in FORMATS if known.about)


def writable() -> list[str]:
    """Suffixes of all files that can be written as tables."""
    return [suffix for known in FORMATS for suffix in known.suffixes]
