"""Tables of observations and query points, read in blocks and written with new columns, in any registered format."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats import builtin  # noqa: F401  registers its formats
from inrflow.data.formats.columns import BLOCK_ROWS, PointTable
from inrflow.data.formats.convert import convert, count_times_as
from inrflow.data.formats.registry import Format, ReadOptions, expanded, format_for_writing, format_of
from inrflow.data.formats.schema import in_schema
from inrflow.data.formats.streams.joining import joined_tables
from inrflow.data.formats.streams.stations import StationTables
from inrflow.data.formats.table_format import TableFormat
from inrflow.data.observations import Observations
from inrflow.errors import UserError
from inrflow.runtime.temporary import temporary_folder

__all__ = ["PointReader", "PointTable", "PointWriter", "read_observations", "read_points", "write_points"]


class PointReader:
    """Iterator over the query points of a file in blocks: `for table in PointReader(path, description): ...`

    Reads every registered format of tables (CSV, flat HDF5, NetCDF) and the project's schema, recognised by content.
    Needed are t (or time) and the coordinates, on a sphere also as lon and lat; trajectory is optional (0). If
    `read` has "" for the column of times, none is needed. Raises UserError if columns are missing or times or
    coordinates cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], description: Description, rows: int = BLOCK_ROWS,
                 read: Mapping[str, Any] | None = None) -> None:
        self.path, self.description, self.rows, self.read = Path(path), description, rows, read

    def __iter__(self) -> Iterator[PointTable]:
        with _as_table(self.path, self.description, self.read) as (path, kind):
            yield from kind.points(path, self.description, self.rows)


@contextmanager
def _as_table(path: Path, description: Description, read: Mapping[str, Any] | None) -> Iterator[tuple[Path, Format]]:
    """Context manager of a file and its format, with the options of `convert` by which it is `read`; a file that is no
    table is replaced by a temporary one in the project's schema with the same values."""
    paths, told = expanded(path), dict(read or {})
    kind = format_of(paths[0])
    known = ReadOptions(**{key: told[key] for key in ("channels", "coordinates", "time", "trajectory", "select")
                           if key in told})
    if len(paths) > 1 and isinstance(kind, TableFormat):
        yield paths[0], joined_tables(paths, known).with_options(known)
        return
    if not kind.table and told.get("time") == "":
        del told["time"]
    if len(paths) == 1 and (kind.table or in_schema(path)):
        yield path, kind.with_options(known)
        return
    if description.time_units and not kind.named_dimensions:  # named dimensions have own units
        told["time_units"] = description.time_units
    with temporary_folder() as folder:
        held = folder / "data.h5"
        convert(paths, held, **told)
        if kind.named_dimensions and description.time_units:
            count_times_as(held, description.time_units, assumed=True)
        try:
            yield held, format_of(held)
        except UserError as error:
            raise UserError(str(error).replace(str(held), str(path))) from error


def read_points(path: str | os.PathLike[str], description: Description, read: Mapping[str, Any] | None = None
                ) -> PointTable:
    """All query points of a file, in their order; PointReader reads them in blocks."""
    tables = list(PointReader(path, description, read=read))
    columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in tables[0].columns}
    trajectory, t, x = (np.concatenate([getattr(table, key) for table in tables]) for key in ("trajectory", "t", "x"))
    return PointTable(trajectory, t, x, columns, tables[0].grid, tables[0].time)


def read_observations(path: str | os.PathLike[str], description: Description, stations: str | None = None,
                      read: Mapping[str, Any] | None = None) -> dict[int, Observations]:
    """Observations by trajectory number, from a file in any of the formats of PointReader with a column per channel.

    Empty cells and NaN are missing values. stations: a table of names and places of stations, for tables with a column
    for each station, or a column of names; it is ignored for tables with coordinates. read: options of `convert` for
    files with named dimensions, and files that are no tables. Raises UserError if a channel or coordinate is missing,
    or if a table of text has an unexpected column.
    """
    paths = expanded(path)
    kind = format_of(paths[0])
    if stations is not None and isinstance(kind, TableFormat):
        told = read or {}
        table = kind if len(paths) == 1 else joined_tables(paths, ReadOptions(stations=stations))
        named = StationTables(table, ReadOptions(description.channels, told.get("coordinates"), told.get("time"),
                                                stations=stations))
        if named.fits(paths[0]):
            return named.observations(paths[0], description)
    with _as_table(Path(path), description, read) as (file, kind):
        return kind.observations(file, description)


class PointWriter:
    """Writer of blocks of points with new columns, in the registered format of the suffix of `path` (.csv, .h5, .nc).

    A column of the points that has the name of a new column is kept as `<name>_observed`. The file gets its name
    when it is complete; use with `with`. asked: the file of points, whose layout is kept if the suffix allows
    it. run: the run that predicted, named in the history of NetCDF and Zarr. Raises UserError if the suffix is unknown
    or `path` exists (unless `overwrite`).
    """

    def __init__(self, path: str | os.PathLike[str], description: Description | None = None,
                 overwrite: bool = False, asked: str | os.PathLike[str] | None = None, run: object = "") -> None:
        sources = [] if asked is None else expanded(asked)
        own = format_of(sources[0]) if len(sources) == 1 else None
        if own is not None and os.fspath(path).lower().endswith(own.answers):
            self._writer = own.open_answer(Path(path), description, overwrite, Path(str(asked)))
        else:
            self._writer = format_for_writing(Path(path)).open_writer(Path(path), description, overwrite)
        self._writer.run = str(run)

    def append(self, table: PointTable, columns: Mapping[str, np.ndarray]) -> None:
        """Add the rows of `table` with new `columns` (R,), the same names in every call."""
        for name, values in columns.items():
            if np.shape(values) != (len(table),):
                raise ValueError(f"column {name} has shape {np.shape(values)} for {len(table)} points")
        kept = {f"{name}_observed" if name in columns else name: values for name, values in table.columns.items()}
        self._writer.append({**kept, **columns}, table.grid)

    def close(self) -> None:
        """Complete the file and give it its name."""
        self._writer.close()

    def __enter__(self) -> PointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.abandon()


def write_points(path: str | os.PathLike[str], table: PointTable, columns: Mapping[str, np.ndarray],
                 description: Description | None = None, overwrite: bool = False,
                 asked: str | os.PathLike[str] | None = None) -> None:
    """Write points with their original and new columns; PointWriter writes in blocks."""
    with PointWriter(path, description, overwrite, asked) as writer:
        writer.append(table, columns)
