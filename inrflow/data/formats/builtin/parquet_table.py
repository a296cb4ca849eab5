"""Parquet: a table in columns, read by pyarrow (the extra `parquet`) in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.formats.columns import Columns
from inrflow.data.formats.registry import register_format
from inrflow.data.formats.schema import damage_as_user_error
from inrflow.data.formats.table_format import TableFormat
from inrflow.errors import UserError


@register_format
class ParquetFormat(TableFormat):
    """Files that begin with Parquet's mark."""

    name = "Parquet"
    about = "Parquet"
    binary = True

    def sniff(self, path: Path, start: bytes) -> bool:
        return start.startswith(b"PAR1")

    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
        return ParquetColumns(path)


class ParquetColumns(Columns):
    """Columns of numbers, dates (in UTC) and text; nested ones and pandas' row numbers are left out."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet as parquet
            import pyarrow.types as types
        except ImportError as error:
            raise UserError(f"{path} is Parquet, which pyarrow reads; install it with `pip install inrflow[parquet]`") \
                from error
        with damage_as_user_error(path):
            self._file = parquet.ParquetFile(path)
            self.names = tuple(field.name for field in self._file.schema_arrow if not types.is_nested(field.type)
                               and not field.name.startswith("__index_level_"))  # row numbers of pandas
        self._path = path

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        with damage_as_user_error(self._path):
            for batch in self._file.iter_batches(rows, columns=list(self.names)):
                yield {name: _values(batch.column(name)) for name in self.names}

    def close(self) -> None:
        self._file.close()


def _values(column: Any) -> np.ndarray:
    """A column as numpy; missing numbers are NaN, missing texts empty."""
    import pyarrow.types as types

    if types.is_timestamp(column.type) or types.is_date(column.type):
        return column.cast("timestamp[us]").to_numpy(zero_copy_only=False)
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind in "fiub":
        return values
    return np.array(["" if value is None else str(value) for value in values.tolist()], object)
