"""File schema of the project, version 1: names, attributes to and from a Description, and checks on opening."""

from __future__ import annotations

import gc
import math
import os
import select
import warnings
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from inrflow.data.description import Description, Symmetries
from inrflow.errors import UserError, missing
from inrflow.runtime.atomic_files import damage_as_user_error

FORMAT = "inrflow-trajectories"
VERSION = 1
DATASETS = ("trajectory", "t", "x", "u", "parameters", "environment", "symmetries")
SYMMETRY_DATASETS = ("generators", "generators_channels", "maps", "maps_channels")
LARGEST = 1e30  # larger values are fill values, and their squares exceed single precision
_LARGEST_ATTRIBUTE = 64000  # largest HDF5 attribute in bytes; a text is a reference of 16 bytes
_UNSTORED, _COMPRESSION = 1e9, 1100  # size in bytes allowed without stored data; compression ratio (gzip: at most 1032)
_DEEPEST = 2
_SECONDS, _WAITED = 2, 15  # processor time for reading the attributes of a file; factor on it for wall-clock time
_TEXTS = ("time_units", "source", "licence", "geometry")
_ATTRIBUTES = ("format", "version", "name", "channels", "coordinates", "units", "period", "time_period", *_TEXTS)
_NEAR = 0.85  # similarity of names of attributes for suggestions
_ended: set[tuple[int, ...]] = set()  # states of files whose attributes are known to be readable
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."  # defined by NetCDF


def open_hdf5(path: Path, deepest: int = _DEEPEST) -> h5py.File:
    """HDF5 file opened for reading. deepest: levels of nested groups that are checked.

    Raises UserError if it is missing, no regular file, no HDF5 file, damaged, refers to other files (external links,
    virtual datasets, external storage), or declares far more values than it can hold.
    """
    if not path.exists():
        raise UserError(missing(path))
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a device, pipe or socket"
        raise UserError(f"{path} is {kind}; give a regular file")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} cannot be read: permission denied; change its permissions")
    with damage_as_user_error(path):
        if not h5py.is_hdf5(path):
            empty = path.stat().st_size == 0
            raise UserError(f"{path} is {'empty' if empty else 'not an HDF5 file'}; expected an HDF5 file with "
                            f"format={FORMAT} (`inrflow convert` reads NetCDF, CSV and npz)")
        if _state(path) not in _ended:
            _require_end(path)
            trust(path)
        file = h5py.File(path, "r")
    try:
        with damage_as_user_error(path):
            _check_items(file, path, deepest)
    except BaseException:
        file.close()
        raise
    return file


def survives(work: Callable[[], Any], seconds: int = _SECONDS) -> bool:
    """Whether a forked child process completes `work`, or raises an exception in it, within `seconds` of processor
    time, instead of crashing or hanging.

    Always true on systems without fork. Other threads may exist, such as a progress display: the work may use h5py,
    which holds its lock while forking, but nothing else that such a thread could have locked. Changes made by the child
    are lost.
    """
    if not hasattr(os, "fork"):
        return True
    import resource  # not available on systems without fork

    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads, which the child does not use
        child = os.fork()
    if child == 0:
        gc.disable()  # the child must not close objects of the parent
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            work()
        except Exception:  # the parent will raise it as well
            pass
        finally:
            os.write(writing, b"!")
            os._exit(0)
    os.close(writing)
    try:
        ended = bool(select.select([reading], [], [], _WAITED * seconds)[0])
        return ended and os.read(reading, 1) == b"!"
    finally:
        os.close(reading)
        if hasattr(os, "kill"):
            os.kill(child, 9)
        os.waitpid(child, 0)


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def trust(path: Path) -> None:
    """Record that the attributes of a file in its current state are readable, since this process has read or written
    them. Renaming a file does not change its state."""
    _ended.add(_state(path))


def _require_end(path: Path) -> None:
    """Check, in another process, that the HDF5 library neither hangs nor crashes while reading the attributes of a
    file, as it does for some damaged files. Raises UserError."""

    def read_attributes() -> None:
        with h5py.File(path, "r") as file:
            own = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
            for name in ("/", *own):  # an exception for one does not end the check
                with suppress(Exception):
                    attributes, keys = file[name].attrs, list(_ATTRIBUTES)
                    with suppress(Exception):
                        keys += list(attributes)
                    for key in keys:
                        with suppress(Exception):
                            attributes.get(key)

    if not survives(read_attributes):
        raise UserError(f"{path} is damaged: the HDF5 library does not come to an end in reading its attributes; copy "
                        "or generate it again")


def _check_items(group: h5py.Group, path: Path, levels: int) -> None:
    """Check that no item of a group and its subgroups is stored in another file, or declares an impossible size. Raises
    UserError."""
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise UserError(f"{path}: {name} is a link to another file, which is not followed; copy the data into the "
                            "file")
        if isinstance(link, h5py.SoftLink) and not resolves(group, name):
            continue
        item = group[name]
        if isinstance(item, h5py.Group) and levels:
            _check_items(item, path, levels - 1)
        if not isinstance(item, h5py.Dataset):
            continue
        if item.is_virtual or item.external:
            raise UserError(f"{path}: {name} is stored in other files, which are not read; copy the data into the file")
        size = math.prod(item.shape or ()) * item.dtype.itemsize
        if size > max(_UNSTORED, _COMPRESSION * item.id.get_storage_size()):
            raise UserError(f"{path}: {name} has shape {item.shape}, {size / 1e9:.3g} GB, but "
                            f"{item.id.get_storage_size() / 1e6:.3g} MB are stored; it is damaged or was never filled, "
                            "write it again")


def is_scale(item: Any) -> bool:
    """Whether an item of an HDF5 file is a dimension scale."""
    return isinstance(item, h5py.Dataset) and text(item.attrs.get("CLASS", "")) == "DIMENSION_SCALE"


def resolves(group: h5py.Group, name: str) -> bool:
    """Whether a link resolves to an item, rather than to nothing or to itself."""
    try:
        return group.get(name) is not None
    except RuntimeError:
        return False


def is_trajectories(file: h5py.File) -> bool:
    """Whether an open HDF5 file declares the project's schema."""
    return "format" in file.attrs and text(file.attrs["format"]) == FORMAT


def in_schema(path: Path) -> bool:
    """Whether a file is HDF5 and declares the project's schema. Raises UserError as `open_hdf5` does."""
    return is_hdf5_with(path, is_trajectories)


def is_hdf5_with(path: Path, test: Callable[[h5py.File], bool]) -> bool:
    """Whether a regular file is HDF5 that passes a test. Raises UserError as `open_hdf5` does."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        return test(file)


def text(value: Any) -> str:
    """HDF5 attribute as str, whether stored as bytes or as text."""
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def texts(value: Any) -> tuple[str, ...]:
    """HDF5 attribute of one or several strings as a tuple of str."""
    return tuple(text(item) for item in np.atleast_1d(np.asarray(value, object)).ravel())


def read_description(file: h5py.File, path: Path) -> Description:
    """Description in an open file of the project's schema. Raises UserError for missing or inconsistent attributes."""
    with damage_as_user_error(path):
        return _read_description(file, path)


def _read_description(file: h5py.File, path: Path) -> Description:
    if not is_trajectories(file):
        found = f"format={text(file.attrs['format'])!r}" if "format" in file.attrs else "no attribute format"
        raise UserError(f"{path} is an HDF5 file with {found} and the datasets {', '.join(sorted(file)) or 'none'}, "
                        f"expected format={FORMAT!r}; `inrflow convert {path} TARGET` may read it")
    version = file.attrs.get("version")
    if version is None or np.asarray(version).size != 1 or text(version) != str(VERSION):
        found = "none" if version is None else text(version)
        raise UserError(f"{path} has schema version {found}, this inrflow reads version {VERSION}; "
                        "convert the file or use the inrflow that wrote it")
    for key in set(file.attrs) - set(_ATTRIBUTES):
        if near := get_close_matches(key, _ATTRIBUTES, 1, _NEAR):
            warnings.warn(f"{path}: the attribute {key} is not known and has no effect; {near[0]} is", stacklevel=4)
    for key in ("channels", "coordinates"):
        if key not in file.attrs:
            raise UserError(f"{path} has no attribute {key}; add the names of the {key}")
    parameters = file.get("parameters")
    names: tuple[str, ...] = ()
    if isinstance(parameters, h5py.Dataset) and parameters.ndim == 2:
        names = (texts(parameters.attrs["names"]) if "names" in parameters.attrs
                 else tuple(f"parameter_{index}" for index in range(parameters.shape[1])))
        if len(names) != parameters.shape[1]:
            raise UserError(f"{path}: parameters has {parameters.shape[1]} columns but {len(names)} names; "
                            "give as many names")
    attributes = file.attrs
    try:
        channels, coordinates = texts(attributes["channels"]), texts(attributes["coordinates"])
        return Description(
            name=text(attributes["name"]) if "name" in attributes else path.stem,
            channels=channels, coordinates=coordinates,
            units=texts(attributes["units"]) if "units" in attributes else None,
            period=_numbers(attributes, "period"),
            time_period=(_numbers(attributes, "time_period") or (None,))[0],
            symmetries=_read_symmetries(file, coordinates, len(channels)), parameter_names=names,
            **{key: text(attributes[key]) if key in attributes else None for key in _TEXTS})
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _numbers(attributes: Any, key: str) -> tuple[float, ...] | None:
    if key not in attributes:
        return None
    try:
        return tuple(float(value) for value in np.atleast_1d(attributes[key]))
    except (TypeError, ValueError) as error:
        raise UserError(f"attribute {key} is {attributes[key]!r}; give numbers") from error


def _read_symmetries(file: h5py.File, coordinates: tuple[str, ...], channels: int) -> Symmetries:
    d = len(coordinates)
    group = file.get("symmetries")
    if group is None:
        return Symmetries.empty(d, channels)
    if not isinstance(group, h5py.Group):
        raise UserError(f"symmetries is a dataset; expected a group with the datasets {', '.join(SYMMETRY_DATASETS)}")
    known = {key: group[key][()] for key in SYMMETRY_DATASETS if key in group}
    scalar = [key for key, value in known.items() if np.ndim(value) != 3]
    if scalar:
        raise UserError(f"symmetries/{scalar[0]} has shape {np.shape(known[scalar[0]])}; expected 3 axes")
    for kind in ("generators", "maps"):
        count = len(known.setdefault(kind, np.zeros((0, d, d + 1))))
        scalars = np.zeros((channels, channels)) if kind == "generators" else np.eye(channels)
        known.setdefault(f"{kind}_channels", np.tile(scalars, (count, 1, 1)))
    return Symmetries(**known, coordinates=coordinates)


def require_storable(description: Description) -> None:
    """Check that the names fit into attributes of a file. Raises UserError."""
    for key in ("channels", "coordinates"):
        count, most = len(getattr(description, key)), _LARGEST_ATTRIBUTE // 16
        if count > most:
            raise UserError(f"{count} {key} are more than the {most} that a file can name; choose some with "
                            f"{key}=[...]")


def write_description(file: h5py.File, description: Description) -> None:
    """Write the attributes and the group of symmetries of the schema into an open file."""
    require_storable(description)
    strings = h5py.string_dtype()
    file.attrs["format"], file.attrs["version"], file.attrs["name"] = FORMAT, VERSION, description.name
    for key in ("channels", "coordinates", "units"):
        values = getattr(description, key)
        if values is None:
            continue
        file.attrs.create(key, np.array(values, object), dtype=strings)
    for key in (*_TEXTS, "period", "time_period"):
        if getattr(description, key) is not None:
            file.attrs[key] = getattr(description, key)
    if len(description.symmetries):
        group = file.create_group("symmetries")
        for key in SYMMETRY_DATASETS:
            group[key] = getattr(description.symmetries, key)


def name_dimensions(file: h5py.File) -> None:
    """Add NetCDF 4 dimension scales for the axes of all datasets of a complete file, by which other programs name them:
    channels, coordinates and parameters with their names, and shared times with their values."""
    labels = {"channel": texts(file.attrs["channels"]), "coordinate": texts(file.attrs["coordinates"])}
    if "parameters" in file and "names" in file["parameters"].attrs:
        labels["parameter"] = texts(file["parameters"].attrs["names"])
    times = "t" if file["t"].ndim == 1 else "times"
    frames = ("rows",) if "trajectory" in file else ("trajectories", times, "points")
    places = {2: frames[-1:], 3: ("trajectories", "points"), 4: frames}[file["x"].ndim]
    axes = {"u": (*frames, "channel"), "x": (*places, "coordinate"), "trajectory": ("rows",),
            "t": ("rows",) if "trajectory" in file else (times,) if times == "t" else ("trajectories", times),
            "parameters": ("trajectories", "parameter"), "environment": ("trajectories",)}
    scales: dict[str, h5py.Dataset] = {}
    shape = file["u"].shape
    for name in set(file) - set(DATASETS):  # such as quantiles
        beside = file[name].shape if isinstance(file[name], h5py.Dataset) else ()
        if beside in (shape, shape[:-1]) and len(beside) > 1:
            axes[name] = axes["u"][: len(beside)]
    for name in [name for name in file if isinstance(file[name], h5py.Dataset)]:
        for axis, size in enumerate(file[name].shape):
            label = axes[name][axis] if name in axes else f"{name}_{axis}"
            if label not in scales:
                scales[label] = _scale(file, label, size, labels.get(label))
            if label != name:
                file[name].dims[axis].attach_scale(scales[label])


def _scale(file: h5py.File, label: str, size: int, names: tuple[str, ...] | None) -> h5py.Dataset:
    """Dimension scale: a dataset of this name that holds names, or no values, which NetCDF does not show."""
    if label == "t":
        file[label].make_scale(label)
        return file[label]
    while label in file:  # another dataset has that name
        label += "_"
    if names is not None:
        scale, title = file.create_dataset(label, data=np.array(names, object), dtype=h5py.string_dtype()), label
    else:
        scale, title = file.create_dataset(label, (size,), ">f4"), f"{_NO_VARIABLE}{size:10d}"
    scale.make_scale(title)
    return scale
