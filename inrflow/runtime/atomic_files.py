"""Atomic writing of files (a temporary file beside the target is checked and renamed when complete), locked folders,
and reading of reports. Disk failures and damaged files are reported as UserErrors."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import secrets
import shutil
import socket
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
from filelock import FileLock, Timeout

from inrflow.errors import UserError, first_line, is_disk_full

try:
    import fcntl
except ImportError:  # not Unix: leftovers of killed processes cannot be distinguished from files in use, and stay
    fcntl = None  # type: ignore[assignment]

_LONGEST_NAME = 255  # bytes of a file name
_LONGEST_OWNER = 200  # characters
_CFGRIB = logging.getLogger("cfgrib")  # writes tracebacks beside what it raises
LOCK_FILE = ".lock"


class AtomicFile:
    """New file under a temporary name beside `path`; `complete` renames it to `path`, `discard` removes it.

    check: called with the temporary path of the finished file; if it raises, an existing file at `path` is kept.
    store: which folders may be replaced. A folder `folder_of(partial)` is temporary, too.
    Temporary files left by killed processes for the same target are removed.
    Raises UserError as `require_replaceable`, and if the folder cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False,
                 check: Callable[[Path], Any] | None = None, store: Callable[[Path], bool] | None = None) -> None:
        self.path, self._overwrite, self._check = Path(path), overwrite, check
        self._hdf5: _DeferredFailureFile | None = None
        self._lock: int | None = None
        require_replaceable(self.path, overwrite, store)
        with self.guard():
            remove_leftovers(self.path.parent, self.path)
            self.partial, self._lock = new_temporary(self.path)

    def open_for_hdf5(self) -> Any:
        """File object for h5py and h5netcdf; disk failures are raised by the next `guard`.

        Raises UserError if it would replace a file that is neither HDF5 nor NetCDF.
        """
        if self.path.is_file() and self.path.stat().st_size and not _holds_data(self.path):
            raise UserError(f"{self.path} is neither HDF5 nor NetCDF and is not written over by data; choose another "
                            "name or remove it first")
        with self.guard():
            self._hdf5 = _DeferredFailureFile(self.partial)
        return self._hdf5

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Context manager that converts disk failures (full, read-only, not permitted) to UserErrors."""
        try:
            yield
            if self._hdf5 is not None and self._hdf5.failure is not None:
                raise self._hdf5.failure
        except UserError:
            raise
        except Exception as error:
            failure = self._hdf5.failure if self._hdf5 is not None else None
            reported = disk_failure(self.path, failure or error)
            if reported is None:
                raise
            raise reported from error

    def complete(self) -> None:
        """Flush the finished file to the disk, check it, and rename it to its final name."""
        with self.guard():
            if self._hdf5 is not None:
                self._hdf5.close()
            with self.partial.open("rb+") as file:
                os.fsync(file.fileno())
            if self._check is not None:
                self._check(self.partial)
            require_replaceable(self.path, self._overwrite)
            os.replace(self.partial, self.path)

    def discard(self) -> None:
        """Remove the temporary file, if it still exists."""
        if self._hdf5 is not None:
            self._hdf5.close()
        shutil.rmtree(folder_of(self.partial), ignore_errors=True)
        with suppress(OSError):  # a folder that became read-only must not hide earlier errors
            self.partial.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def folder_of(partial: Path) -> Path:
    """Temporary folder that belongs to a temporary file."""
    return partial.with_suffix(".folder")


def require_replaceable(path: str | os.PathLike[str], overwrite: bool, store: Callable[[Path], bool] | None = None
                        ) -> None:
    """Check that `path` can be the name of a new file: in an existing folder, and free or, with `overwrite`, a regular
    file or a folder that is a `store`. Devices, pipes and other folders are never replaced. Raises UserError."""
    path = Path(path)
    try:
        if not path.parent.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {path.parent}; create it or choose another")
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            with suppress(FileNotFoundError):  # a broken link is replaced like a file
                mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk_failure(path, error) or error from error
    if stat.S_ISDIR(mode) and (store is None or path.is_symlink() or not store(path)):
        raise UserError(f"cannot write {path}: it is a folder, which is not replaced; give another name, or remove it")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"cannot write {path}: it is a device, pipe or socket; give the name of a regular file")
    if not overwrite:
        raise UserError(f"{path} exists already and is not written over; choose another name or remove it first")


def _holds_data(path: Path) -> bool:
    """Whether a file is HDF5 or NetCDF 3, by its first bytes."""
    with path.open("rb") as file:
        return file.read(3) == b"CDF" or h5py.is_hdf5(path)


def _temporary_parts(path: Path) -> tuple[str, str]:
    """Beginning and end of the name of a temporary file for `path`, within the largest length of a name."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= 32 else ""
    room = _LONGEST_NAME - len(os.fsencode(f"..{'0' * 8}.partial{suffix}"))
    stem = os.fsencode(path.stem)[:room].decode(errors="ignore")
    return f".{stem}.", f".partial{suffix}"


def new_temporary(path: Path) -> tuple[Path, int | None]:
    """New empty file beside `path`, and a descriptor that locks it during the life of this process."""
    begin, end = _temporary_parts(path)
    while True:
        partial = path.with_name(f"{begin}{secrets.token_hex(4)}{end}")
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if fcntl is None:
            os.close(descriptor)
            return partial, None
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink:
            return partial, descriptor
        os.close(descriptor)  # removed as a leftover before it was locked


def remove_leftovers(folder: Path, target: Path | None = None) -> None:
    """Remove temporary files in a folder, or those for one `target`, that no living process has locked."""
    if fcntl is None:
        return
    begin, end = (r"\..+\.", r"\.partial(\..*)?") if target is None else map(re.escape, _temporary_parts(target))
    for name in os.listdir(folder):
        if not re.fullmatch(f"{begin}[0-9a-f]{{8}}{end}", name, re.DOTALL):
            continue
        with suppress(OSError):
            descriptor = os.open(folder / name, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder_of(folder / name), ignore_errors=True)
                (folder / name).unlink()
            finally:
                os.close(descriptor)


class _DeferredFailureFile(io.FileIO):
    """File whose writes never fail: the first failure is stored in `failure` and all later writes are dropped.

    HDF5 cannot close a file that it failed to write: it repeats the failure in every destructor and may crash the
    process. Here the failure is hidden from it and reported by AtomicFile.guard instead.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while self.failure is None and done < len(view):
                done += super().write(view[done:])
        except OSError as error:
            self.failure = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        done = super().readinto(view) or 0
        if self.failure is not None:
            view[done:] = bytes(len(view) - done)
            return len(view)
        return done


def disk_failure(path: str | os.PathLike[str], error: BaseException) -> UserError | None:
    """UserError if `error` means that `path` cannot be written (disk full, read-only, not permitted), else None."""
    number = getattr(error, "errno", None)
    if is_disk_full(error):
        return UserError(f"{path} could not be written: no space left on the disk (or quota); free some or choose "
                         "another place")
    if number == errno.ENAMETOOLONG:
        return UserError(f"{path} could not be written: the name is too long; choose a shorter one")
    if isinstance(error, OSError) and number is not None:
        return UserError(f"{path} could not be written ({os.strerror(number)}); choose a folder that you may write to")
    return None


@contextmanager
def replaced_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Context manager of a temporary file beside `path` that replaces it on success and is removed on failure.

    A missing folder is created; an existing file at `path` is replaced. Raises UserError if the disk is full or the
    folder cannot be written.
    """
    make_folder(Path(path).parent)
    file = AtomicFile(path, overwrite=True)
    try:
        with file.guard():
            yield file.partial
        file.complete()
    finally:
        file.discard()


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file atomically, as `replaced_atomically`."""
    with replaced_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Write a value as JSON, atomically. Raises ValueError for NaN and infinities."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Create a folder and its parents, if missing. Raises UserError if that is not possible."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{folder} could not be written: a file is in its place; choose another folder") from error
    except OSError as error:
        raise disk_failure(folder, error) or error from error
    return folder


@contextmanager
def made_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Context manager of a folder, created by `make_folder` if missing. Folders created here that stay empty are
    removed."""
    new = [one for one in (Path(folder), *Path(folder).parents) if not os.path.lexists(one)]
    try:
        yield make_folder(folder)
    finally:
        with suppress(OSError):  # stops at the first that is not empty
            for one in new:
                one.rmdir()


@contextmanager
def written_hdf5(path: str | os.PathLike[str], overwrite: bool = False,
                 check: Callable[[Path], Any] | None = None) -> Iterator[h5py.File]:
    """Context manager of a new HDF5 file that replaces `path` on success and is removed on failure.

    Raises UserError as AtomicFile, and if the disk is full, and what `check` raises.
    """
    target = AtomicFile(path, overwrite, check)
    try:
        with target.guard(), h5py.File(target.open_for_hdf5(), "w") as file:
            yield file
        target.complete()
    finally:
        target.discard()


# ---- a folder that one process writes results to ----

@contextmanager
def locked_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Context manager of a folder, created if missing, that is locked against other processes.

    The system releases the lock when a process ends in any way; a lock file left behind is taken over with a warning.
    Folders created here that stay empty are removed. Raises UserError, naming the owner, if another process holds the
    lock, if the folder cannot be written, and if it contains links, through which files elsewhere would be written.
    """
    with made_folder(folder) as path:
        lock = FileLock(path / LOCK_FILE)
        try:
            _require_no_links(path)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise UserError(f"{path} is being written by {_owner(path) or 'another process'}; wait for its end, or "
                                "choose another output=DIR") from error
            except OSError as error:
                raise disk_failure(path, error) or error from error
            if before := _owner(path):
                warnings.warn(f"{path}: {before} stopped before its end; its lock is taken over", stacklevel=3)
            (path / LOCK_FILE).write_text(f"process {os.getpid()} on {socket.gethostname()} since "
                                          f"{datetime.now().isoformat(' ', 'seconds')}")
            remove_leftovers(path)
            yield path
        finally:
            if lock.is_locked:
                with suppress(OSError):
                    (path / LOCK_FILE).unlink()
                lock.release()


def _owner(path: Path) -> str:
    """Text of the lock file on its owner; empty if there is none."""
    with suppress(OSError):
        return (path / LOCK_FILE).read_text(errors="replace")[:_LONGEST_OWNER].strip()
    return ""


def _require_no_links(path: Path) -> None:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise UserError(f"{entry.path} is a link, through which files would be written outside of the folder; "
                                "remove it, or choose another output=DIR")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Content of a JSON file of a run; None if missing. Raises UserError if it is no JSON object."""
    path = Path(path)
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove it, or write it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} was not written by inrflow; remove it, or write it again")
    return value


@contextmanager
def damage_as_user_error(path: Path, part: str = "") -> Iterator[None]:
    """Context manager that converts errors of libraries on damaged files to UserErrors that name the file, and the part
    of it being read.

    HDF5, NetCDF and zip files with a flipped byte raise nearly every kind of error, so only reading belongs inside.
    """
    place = f"{path}: {part}" if part else f"{path}"
    if _CFGRIB.level != logging.CRITICAL:  # setting the level takes time
        _CFGRIB.setLevel(logging.CRITICAL)
    try:
        yield
    except MemoryError as error:
        raise UserError(f"{place} needs more memory than there is ({first_line(error)[:200]}); it is too large or "
                        "damaged") from error
    except Exception as error:
        known = (ArithmeticError, AttributeError, EOFError, ImportError, LookupError, NotImplementedError, OSError,
                 RuntimeError, TypeError, ValueError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error)
        if not isinstance(error, known) and type(error).__module__.split(".")[0] not in ("gribapi", "cfgrib"):
            raise
        if isinstance(error, ValueError) and "Python objects" in str(error):  # raised by numpy
            raise UserError(f"{place} holds Python objects, which are not read; save arrays of numbers") from error
        raise UserError(f"{place} cannot be read ({first_line(error)[:200]}); it is damaged, incomplete or being "
                        "written, copy or generate it again") from error
