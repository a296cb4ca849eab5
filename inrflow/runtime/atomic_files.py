"""Writing files so that nothing is lost: aside first, renamed when complete, a full disk told as what it is."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from inrflow.errors import UserError, is_disk_full


class Aside:
    """A new file under a temporary name in the folder of `path`, which `complete` gives its name and `discard` removes.

    Raises UserError where the folder is missing, or `path` exists already (unless `overwrite`).
    """

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        self.path, self._overwrite = Path(path), overwrite
        self._check_target()
        self.partial = self.path.with_name(f".{self.path.stem}.{secrets.token_hex(4)}.partial{self.path.suffix}")
        self._forgiving: _ForgivingFile | None = None

    def _check_target(self) -> None:
        path = self.path
        if not path.parent.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {path.parent}; create it or choose another")
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a folder; give the name of a file")
        if path.exists() and not self._overwrite:
            raise UserError(f"{path} exists already and is not written over; choose another name or remove it first")

    def open_for_hdf5(self) -> Any:
        """The file as an object that h5py and h5netcdf write to; a failing disk shows when the next `guard` ends."""
        with self.guard():
            self._forgiving = _ForgivingFile(self.partial)
        return self._forgiving

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turn failures of the disk in the body (full, read-only, not permitted) into UserErrors."""
        try:
            yield
            if self._forgiving is not None and self._forgiving.failure is not None:
                raise self._forgiving.failure
        except UserError:
            raise
        except Exception as error:
            failure = self._forgiving.failure if self._forgiving is not None else None
            told = disk_failure(self.path, failure or error)
            if told is None:
                raise
            raise told from error

    def complete(self) -> None:
        """Make sure that the finished file is on the disk, and give it its name."""
        with self.guard():
            if self._forgiving is not None:
                self._forgiving.close()
            with self.partial.open("rb+") as file:
                os.fsync(file.fileno())
            self._check_target()
            os.replace(self.partial, self.path)

    def discard(self) -> None:
        """Remove the temporary file, if it is still there."""
        if self._forgiving is not None:
            self._forgiving.close()
        self.partial.unlink(missing_ok=True)


class _ForgivingFile(io.FileIO):
    """A file whose writes never fail: the first failure is kept for later and all that follows is dropped.

    HDF5 cannot close a file that it failed to write: it repeats the failure in every destructor and may crash the
    process. So it never learns of the failure; whoever writes asks for it.
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
    """What to tell the user where `error` says that `path` cannot be written; None where it says something else."""
    number = getattr(error, "errno", None)
    if is_disk_full(error):
        return UserError(f"{path} could not be written: no space left on the disk (or quota); free some or choose "
                         "another place")
    if isinstance(error, OSError) and number is not None:
        return UserError(f"{path} could not be written ({os.strerror(number)}); choose a folder that you may write to")
    return None


def write_aside(path: str | os.PathLike[str], write: Callable[[Path], Any]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`; nothing is left behind on failure.

    The folder is made where it is missing; what was at `path` is replaced. Raises UserError where the disk is full or
    the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(f"{path} could not be written: {path.parent} is a file; choose another folder") from error
    except OSError as error:
        raise disk_failure(path, error) or error from error
    aside = Aside(path, overwrite=True)
    try:
        with aside.guard():
            write(aside.partial)
        aside.complete()
    finally:
        aside.discard()
    return path


@contextmanager
def written_hdf5(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that takes the place of `path` on success and is removed on any failure.

    Raises UserError as Aside does, and where the disk is full.
    """
    aside = Aside(path, overwrite)
    try:
        with aside.guard(), h5py.File(aside.open_for_hdf5(), "w") as file:
            yield file
        aside.complete()
    finally:
        aside.discard()
