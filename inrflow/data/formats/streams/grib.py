"""GRIB files, editions 1 and 2: message lengths are checked, and cfgrib (the extra `grib`) reads them in a process of
its own, since damaged messages make ecCodes crash."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO
from weakref import finalize

from xarray import Dataset, Variable, merge, open_dataset
from xarray.backends import BackendArray
from xarray.core import indexing

from inrflow.errors import UserError, first_line

_SECONDS, _SECONDS_PER_BYTE = 5, 2e-5  # of processor time for one answer: thrice what many small messages take
_WAITED = 10.0  # times as many by the clock, on a busy machine
_BLOCK = 1 << 16
_OPTIONS: dict[str, Any] = {"backend_kwargs": {"indexpath": ""}, "cache": False, "decode_times": False}  # no index file


def open_grib(path: Path) -> Dataset:
    """Fields of a GRIB file as a lazy dataset whose values are read, on request, by a separate process, which ends with
    it. Times are numbers. Raises UserError for damaged files."""
    import cfgrib  # noqa: F401 (here, so that not every process imports it anew)

    _check_messages(path)
    reader = _Reader(path)
    variables, coordinates, attributes, left_out = reader.ask(None, None)
    if left_out:
        warnings.warn(f"{path}: {left_out}", stacklevel=3)
    data = Dataset({name: Variable(dims, indexing.LazilyIndexedArray(_Values(reader, name, shape, dtype)), attrs)
                    for name, (dims, shape, dtype, attrs) in variables.items()}, attrs=attributes)
    data = data.set_coords(coordinates)
    data.set_close(reader.close)
    return data


def _check_messages(path: Path) -> None:
    """Check that each message ends where its length says, by 7777: ecCodes leaves out others in silence. Raises
    UserError."""
    with path.open("rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            file.seek(at)
            block = file.read(_BLOCK)
            if (begin := block.find(b"GRIB")) < 0:  # other bytes may lie between messages
                at += max(len(block) - 3, 1)
                continue
            at += begin
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[8:16] if head[7:8] == b"\2" else head[4:7], "big")
            ends = [(length - 4, 4)]  # where 7777 may be
            if head[7:8] == b"\1" and length & 0x800000:  # in units of 120 bytes, for messages of 2^24 bytes and more
                ends.append(((length & 0x7FFFFF) * 120 - 124, 128))
            found = (_end_of(file, at + begun, long) for begun, long in ends if begun >= 8)
            end = next(filter(None, found), 0) if head[7:8] in (b"\1", b"\2") else 0
            if not end:
                raise UserError(f"{path} is damaged or incomplete: the message at byte {at} of {size} does not end "
                                "where its length says; copy or download it again")
            at = end


def _end_of(file: BinaryIO, begin: int, length: int) -> int:
    """End of the last 7777 among `length` bytes of a file; 0 if there is none."""
    file.seek(begin)
    found = file.read(length).rfind(b"7777")
    return begin + found + 4 if found >= 0 else 0


class _Reader:
    """Process that reads a file with cfgrib; on systems without fork, this process."""

    def __init__(self, path: Path) -> None:
        self._path, self._fields = path, _Fields(path)
        self._seconds = _SECONDS + int(_SECONDS_PER_BYTE * path.stat().st_size)
        self.close: Callable[[], Any] = lambda: None  # ends the process
        if not hasattr(os, "fork"):
            return
        self._connection, theirs = multiprocessing.Pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about threads, which the child does not use
            child = os.fork()
        if child == 0:
            try:
                self._connection.close()
                _serve(theirs, self._fields, self._seconds)
            finally:
                os._exit(0)
        theirs.close()
        self.close = finalize(self, _end, self._connection, child)

    def ask(self, name: str | None, key: Any) -> Any:
        """Values of a variable at an index, or, for None, what the file holds. Raises UserError."""
        if not hasattr(os, "fork"):
            return self._fields.ask(name, key)
        try:
            self._connection.send((name, key))
            answered = self._connection.poll(_WAITED * self._seconds)
            value, error = self._connection.recv() if answered else (None, "it does not come to an end")
        except (EOFError, OSError):
            value, error = None, "it makes ecCodes crash or run on"
        if error is not None:
            self.close()
            raise UserError(f"{self._path} cannot be read ({error}); it is damaged, copy or download it again")
        return value


class _Values(BackendArray):
    """Values of one variable, read by the process of its file."""

    def __init__(self, reader: _Reader, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        self._reader, self._name, self.shape, self.dtype = reader, name, shape, dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER,
                                                  lambda index: self._reader.ask(self._name, index))


class _Fields:
    """Fields of a file, opened by the first request."""

    def __init__(self, path: Path) -> None:
        self._path, self._data = path, Dataset()

    def ask(self, name: str | None, key: Any) -> Any:
        """As `_Reader.ask`. Raises errors of cfgrib and ecCodes for damaged files."""
        if name is not None:
            return self._data.variables[name][key].values
        self._data, left_out = _of_all_levels(self._path)
        about = {one: (v.dims, v.shape, v.dtype, v.attrs) for one, v in self._data.variables.items()}
        return about, list(self._data.coords), self._data.attrs, left_out


def _serve(connection: Connection, fields: _Fields, seconds: int) -> None:
    """Answers to the requests of a `_Reader`, in its process, each within so many seconds of processor time."""
    gc.disable()  # objects of the other process are not to be closed here
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # ecCodes prints its errors
    with suppress(EOFError, OSError):  # the other process ended
        while True:
            request = connection.recv()
            _allow_processor_time(seconds)
            try:
                connection.send((fields.ask(*request), None))
            except Exception as error:
                connection.send((None, first_line(error)[:200]))


def _end(connection: Connection, child: int) -> None:
    connection.close()
    os.kill(child, 9)
    os.waitpid(child, 0)


def _allow_processor_time(seconds: int) -> None:
    """Set the limit on processor time of this process to so many seconds from now."""
    with suppress(ImportError):  # on systems without limits
        import resource

        now, (_, most) = resource.getrusage(resource.RUSAGE_SELF), resource.getrlimit(resource.RLIMIT_CPU)
        until = int(now.ru_utime + now.ru_stime) + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (until if most < 0 else min(until, most), most))


def _of_all_levels(path: Path) -> tuple[Dataset, str]:
    """Fields of a GRIB file at several heights, such as winds at 10 m and temperature at 2 m: all if their names,
    places and times are compatible, else the first, with a sentence about the others."""
    skipped = list[str]()
    logger, handler = logging.getLogger("cfgrib"), logging.Handler(logging.ERROR)
    handler.emit = lambda record: skipped.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    first = open_dataset(path, engine="cfgrib", **_OPTIONS)
    logger.setLevel(logging.CRITICAL)
    logger.removeHandler(handler)
    if not skipped:
        return first, ""
    import cfgrib

    try:
        parts = cfgrib.open_datasets(str(path), **_OPTIONS)
        single = [part.drop_vars([name for name, one in part.coords.items() if not one.dims]) for part in parts]
        return merge(single, join="exact", compat="no_conflicts"), ""
    except ValueError:
        names = re.findall(r"shortName='(\w+)'", " ".join(skipped))
        return first, (f"{', '.join(dict.fromkeys(names)) or 'some fields'} are at other levels or times than "
                       f"{', '.join(map(str, first.data_vars))} and are left out; write them to a file of their own by "
                       "grib_copy -w shortName=NAME")
