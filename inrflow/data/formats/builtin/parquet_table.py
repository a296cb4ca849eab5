"""Parquet tables, read and written by pyarrow (the extra `parquet`) in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.columns import IN_FILES, IN_TABLES, Columns, Grid, time_column_by_dates
from inrflow.data.formats.registry import TableWriter, units_of_columns
from inrflow.data.formats.streams.tidy import VARIABLES, tidied
from inrflow.data.formats.table_format import TableFormat
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error


class ParquetFormat(TableFormat):
    """Parquet files, recognised by their first bytes."""

    name = "Parquet"
    about = "Parquet"
    suffixes = answers = (".parquet",)
    binary = True
    dates = "moments"

    def sniff(self, path: Path, start: bytes) -> bool:
        return start.startswith(b"PAR1")

    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
        columns = ParquetColumns(path)
        if VARIABLES.isdisjoint(map(str.lower, columns.names)):
            return columns
        columns.close()
        return tidied(lambda: ParquetColumns(path), path)

    def open_writer(self, path: Path, description: Description | None, overwrite: bool) -> TableWriter:
        _pyarrow(path)
        return ParquetWriter(path, description, overwrite)

    def open_answer(self, path: Path, description: Description | None, overwrite: bool, asked: Path) -> TableWriter:
        writer, types = ParquetWriter(path, description, overwrite), _pyarrow(path).types
        with damage_as_user_error(asked):
            schema = _pyarrow(path).parquet.read_schema(asked)
        writer.kinds = {field.name: field.type for field in schema
                        if types.is_dictionary(field.type) or types.is_timestamp(field.type)}
        return writer


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
        import pyarrow.types  # noqa: F401
    except ImportError as error:
        raise UserError(f"{path} is Parquet, which pyarrow reads and writes; install it with `pip install "
                        "inrflow[parquet]`") from error
    return pyarrow


class ParquetColumns(Columns):
    """Columns of numbers, dates (in UTC) and text; nested columns and pandas' row numbers are left out. A pandas index
    of dates becomes the column `time`."""

    def __init__(self, path: Path) -> None:
        pyarrow = _pyarrow(path)
        with damage_as_user_error(path):
            self._file = pyarrow.parquet.ParquetFile(path)
            fields = list(self._file.schema_arrow)
            dated = [field.name for field in fields if pyarrow.types.is_timestamp(field.type)]
            rows = [field.name for field in fields if field.name.startswith("__index_level_")]
            called = {name: name.replace(*IN_FILES) for name in (field.name for field in fields) if name not in rows}
            if "time" not in called and len(by_dates := [name for name in rows if name in dated]) == 1:
                called[by_dates[0]] = "time"
            self._given = {called[field.name]: field.name for field in fields
                           if field.name in called and not pyarrow.types.is_nested(field.type)}
            self.names = tuple(self._given)
            self.zoned = tuple(called[field.name] for field in fields if field.name in called and getattr(
                field.type, "tz", None))
            self.meant = time_column_by_dates([called[name] for name in dated if name in called], self.names)
        self._path = path

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        with damage_as_user_error(self._path):
            for batch in self._file.iter_batches(rows, columns=list(self._given.values())):
                yield {name: _values(batch.column(given)) for name, given in self._given.items()}

    def close(self) -> None:
        self._file.close()


class ParquetWriter(TableWriter):
    """Writer of typed columns, with dates to the microsecond and units as metadata of columns.

    kinds: special types of columns of text and dates by name: categories, time zones, nanoseconds.
    """

    kinds: Mapping[str, Any] = MappingProxyType({})

    def _encoded(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values)
        return values.astype("datetime64[us]") if values.dtype.kind == "M" else super()._encoded(values)

    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        arrow, units = _pyarrow(self.path), units_of_columns(self.description)
        kinds = {name: arrow.string() if values.dtype == object else arrow.from_numpy_dtype(values.dtype)
                 for name, values in columns.items()}
        kinds |= {name: kind for name, kind in self.kinds.items() if name in columns and (
            arrow.types.is_dictionary(kind) == (columns[name].dtype == object))}
        self._schema = arrow.schema([arrow.field(
            name.replace(*IN_TABLES), kind, metadata={"units": units[name]} if name in units else None)
            for name, kind in kinds.items()])
        self._file = arrow.parquet.ParquetWriter(self._target.partial, self._schema)

    def _add(self, columns: Mapping[str, np.ndarray]) -> None:
        named = {name.replace(*IN_TABLES): values for name, values in columns.items()}
        self._file.write_table(_pyarrow(self.path).table(named, schema=self._schema))


def _values(column: Any) -> np.ndarray:
    """Column as a numpy array, with NaN for missing numbers and empty strings for missing text."""
    import pyarrow.types as types

    if types.is_timestamp(column.type) or types.is_date(column.type):
        return column.cast("timestamp[us]").to_numpy(zero_copy_only=False)
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind in "fiub":
        return values
    return np.array(["" if value is None else str(value) for value in values.tolist()], object)
