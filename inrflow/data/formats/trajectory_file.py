"""Trajectory files in the project's schema, checked on opening and read lazily; and their environments (systems)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from inrflow.data.apparent import apparent_period, on_unit_sphere
from inrflow.data.formats.layouts import VALUES_PER_BLOCK, FrameLayout, Layout, ScatteredLayout
from inrflow.data.formats.schema import DATASETS, is_scale, open_hdf5, read_description, resolves
from inrflow.data.observations import Frames
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_ORIGIN = "converted_from"
_MESHES = {"segments": 2, "triangles": 3, "tetrahedra": 4}  # corners of a cell
_TRAJECTORIES_SEEN, _FRAMES_SEEN, _VALUES_SEEN = 8, 12, 2**22  # used to detect a period


class TrajectoryFile:
    """File of S trajectories with C channels at up to T times and N points in d dimensions, in either layout.

    Scattered rows of equal time form a frame, so that both layouts are read alike. `check=False` skips the pass through
    the coordinates and values (for a file checked before). name: path in messages, by default the file that this one
    was converted from (`name_origin`), else `path`.
    Raises UserError, naming file and dataset, if the file is missing or violates the schema.

    Attributes: path, description, trajectories (S), frames (largest T), points (largest N),
    layout ("frames" | "scattered"), point_layout ("shared" | "per_trajectory" | "moving"), parameters (S, P) float64
    or None, environment (S,) int64 or None, ids (S,): number of each trajectory in the file.
    """

    def __init__(self, path: str | os.PathLike[str], check: bool = True,
                 name: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path if name is None else name)
        self._file = open_hdf5(Path(path))
        self._box: np.ndarray | None = None
        try:
            with damage_as_user_error(self.path):
                given = self._file.attrs.get(_ORIGIN)
                self.path = Path(given) if name is None and isinstance(given, str) else self.path
                self._open(check)
        except BaseException:
            self._file.close()
            raise

    def __reduce__(self) -> tuple[type[TrajectoryFile], tuple[str, bool, Path]]:
        return TrajectoryFile, (self.location, False, self.path)  # reopened in another process

    @property
    def location(self) -> str:
        """Absolute path of the file itself, whatever its name in messages."""
        return os.path.abspath(self._file.filename)

    def _open(self, check: bool) -> None:
        self.description = read_description(self._file, self.path)
        scattered = "trajectory" in self._file
        kind = ScatteredLayout if scattered else FrameLayout
        self._layout: Layout = kind(self._file, self.path, self.description)
        self.layout, self.point_layout = self._layout.name, self._layout.point_layout
        self.trajectories, self.frames = self._layout.trajectories, self._layout.frames
        self.points = self._layout.points
        self.ids = self._layout.ids if isinstance(self._layout, ScatteredLayout) else np.arange(self.trajectories)
        self.parameters = self._context("parameters", 2, "fiu", np.float64)
        self.environment = self._context("environment", 1, "iu", np.int64)
        self._check_meshes()
        if check:
            self._box = self._layout.check_values()

    def _check_meshes(self) -> None:
        """Check that cells of a mesh are rows of point indices. Raises UserError."""
        for name, corners in _MESHES.items():
            if name not in self.extra:
                continue
            cells = self._file[name]
            each = (self.trajectories,) if cells.ndim == 3 and self.point_layout == "per_trajectory" else ()
            fits = cells.ndim == 2 + len(each) and cells.shape[-1] == corners and cells.shape[: len(each)] == each
            if not fits or not cells.size or cells.dtype.kind not in "iu":
                raise UserError(f"{self.path}: {name} has shape {cells.shape} and type {cells.dtype}; expected "
                                f"integers ({name}, {corners}), the points at the corners of each; or (trajectories, "
                                f"{name}, {corners}) where trajectories have points of their own, -1 where some have "
                                "fewer cells")
            numbers = cells[()]
            if numbers.min() < (-1 if each else 0) or numbers.max() >= self.points:
                raise UserError(f"{self.path}: {name} names the points {numbers.min()} to {numbers.max()} but there "
                                f"are {self.points}; number them from 0 to {self.points - 1}")
            if self.layout == "frames" and self.point_layout == "shared" and not _any_has_extent(
                    np.asarray(self._file["x"], np.float64)[numbers]):
                raise UserError(f"{self.path}: {name} has no cell of positive size; cells join {corners} different "
                                "points that are not on a line or plane")

    @property
    def declares_domain(self) -> bool:
        """Whether the file itself declares period or geometry."""
        return bool({"period", "geometry"} & set(self._file.attrs))

    def apparent_domain(self, frames: int | None = None) -> dict[str, Any]:
        """Undeclared `geometry` or `period`, detected from points and from values on a grid; empty if there is none.

        frames: number of first frames of a trajectory that may be used; None: all.
        """
        about = self.description
        fixed = self.layout == "frames" and self.point_layout == "shared" and self._mesh is None
        if about.period is not None or about.geometry is not None or not fixed:
            return {}
        x = self.read(0, slice(0, 1)).x
        if on_unit_sphere(x):
            return {"geometry": "sphere"}
        every = slice(0, frames, max(1, min(frames or self.frames, self.frames) // _FRAMES_SEEN))
        count = min(self.trajectories, _TRAJECTORIES_SEEN, max(1, _VALUES_SEEN // (_FRAMES_SEEN * self.points)))
        period = apparent_period(x, (self.read(s, every).u for s in range(count)))
        return {} if period is None else {"period": period}

    def take_apparent_domain(self, frames: int | None = None) -> None:
        """Add the `apparent_domain`, if any, to the description, with a warning."""
        about, shown = self.description, self.apparent_domain(frames)
        if not shown:
            return
        self.description = replace(about, **shown)
        if (period := shown.get("period")) is None:
            warnings.warn(f"{self.path}: all points have distance 1 from 0 and are taken as those of a sphere; where "
                          "the field is none on a sphere, declare period=[0, 0, 0]", stacklevel=4)
            return
        every = zip(about.coordinates, period, strict=True)
        ends = ", ".join(f"{name} ({length:g})" for name, length in every if length)
        warnings.warn(f"{self.path} declares no period, but its values continue across the ends of {ends}: taken as "
                      f"periodic; where they are not, declare period={[0] * len(period)}", stacklevel=4)

    @property
    def _mesh(self) -> str | None:
        return next((name for name in reversed(_MESHES) if name in self.extra), None)

    @property
    def meshes_differ(self) -> bool:
        """Whether every trajectory has its own mesh."""
        return self._mesh is not None and self._file[self._mesh].ndim == 3

    @property
    def cells(self) -> np.ndarray | None:
        """Cells of the common mesh: `tetrahedra` (E, 4), else `triangles` (E, 3), else `segments` (E, 2), or None."""
        return None if self._mesh is None or self.meshes_differ else self.read_extra(self._mesh)

    def cells_of(self, trajectory: int) -> np.ndarray | None:
        """Cells of the mesh of a trajectory; None without a mesh."""
        if not self.meshes_differ:
            return self.cells
        with damage_as_user_error(self.path):
            cells = self._file[self._mesh][trajectory]
        return cells[(cells >= 0).all(1)]

    def meshes_of(self, trajectories: np.ndarray) -> dict[str, np.ndarray]:
        """Mesh or meshes of some trajectories, by name in the file; empty without a mesh."""
        cells = self.cells_of(trajectories[0])
        if self._mesh is None or cells is None:
            return {}
        return {self._mesh: self.read_extra(self._mesh)[trajectories]
                if self.meshes_differ and len(trajectories) > 1 else cells}

    def _context(self, name: str, axes: int, kinds: str, dtype: type) -> np.ndarray | None:
        if name not in self._file:
            return None
        dataset = self._layout.dataset(name, kinds)
        if dataset.ndim != axes or len(dataset) != self.trajectories:
            raise UserError(f"{self.path}: {name} has shape {dataset.shape} for {self.trajectories} trajectories; "
                            "give one row for each")
        value = dataset[()].astype(dtype)
        if not np.isfinite(value).all():
            raise UserError(f"{self.path}: {name} holds values that are not finite; give every trajectory its {name} "
                            "or remove the dataset")
        return value

    def __enter__(self) -> TrajectoryFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        self._file.close()

    # ---- times and places ----

    def times(self) -> np.ndarray:
        """Times of all trajectories, (S, T) float64; shorter trajectories end in NaN."""
        return self._layout.times()

    @property
    def shared_times(self) -> bool:
        """Whether all trajectories have the same times."""
        times = self.times()
        return bool(np.array_equal(times, times[:1].repeat(len(times), 0), equal_nan=True))

    @property
    def box(self) -> np.ndarray:
        """Lowest and highest coordinates, (2, d) float64."""
        if self._box is None:
            self._box = self._layout.check_values()
        return self._box.copy()

    def require_frames(self, count: int = 2, purpose: str = "a forecast") -> None:
        """Check that some trajectory has at least `count` frames. Raises UserError."""
        if self.frames < count:
            raise UserError(f"{self.path}: t has {self.frames} frame{'s' if self.frames != 1 else ''} in a trajectory "
                            f"at most, {purpose} needs at least {count}; give a file with more times")

    # ---- values ----

    def read(self, trajectory: int, frames: slice | Sequence[int] | np.ndarray | None = None,
             points: np.ndarray | None = None) -> Frames:
        """Frames of one trajectory: the chosen `frames` and `points` among its valid frames (without padding).

        Raises IndexError if an index does not exist, UserError if values are infinite or the file is damaged.
        """
        if not -self.trajectories <= trajectory < self.trajectories:
            raise IndexError(f"trajectory {trajectory} of {self.trajectories}")
        trajectory = trajectory % self.trajectories
        count = self._layout.count(trajectory)
        chosen = np.arange(count)
        chosen = chosen if frames is None else chosen[frames if isinstance(frames, slice) else np.asarray(frames, int)]
        if not len(chosen):
            raise IndexError(f"no frames chosen from the {count} of trajectory {trajectory}")
        if points is not None:
            points = np.arange(self.points)[np.asarray(points)]
            if not len(points):
                raise IndexError(f"no points chosen from {self.points}")
        with damage_as_user_error(self.path, f"trajectory {trajectory}"):
            return self._layout.read(trajectory, chosen, points)

    def value_blocks(self, every: int = 1) -> Iterator[np.ndarray]:
        """All values u, without padded frames, in blocks (n, C) float32, or only one in `every` blocks.

        Raises UserError if any is infinite."""
        channels, number = len(self.description.channels), 0
        if self.layout == "scattered":
            step = max(1, VALUES_PER_BLOCK // (channels + len(self.description.coordinates)))
            for start in range(0, self.rows, step * every):
                yield self.read_rows(start, start + step)[3]
            return
        step = max(1, VALUES_PER_BLOCK // (self.points * channels))
        for trajectory, times in enumerate(self.times()):
            for start in range(0, int(np.isfinite(times).sum()), step):
                if number % every == 0:
                    yield self.read(trajectory, slice(start, start + step)).u.reshape(-1, channels)
                number += 1

    @property
    def rows(self) -> int:
        """Number of rows R of the scattered layout."""
        return len(self._file["t"]) if self.layout == "scattered" else 0

    def read_rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows of the scattered layout in the order of the file: trajectory (R,), t (R,), x (R, d), u (R, C)."""
        types = {"trajectory": np.int64, "t": np.float64, "x": np.float64, "u": np.float32}
        with damage_as_user_error(self.path):
            number, t, x, u = (self._file[name][start:stop].astype(dtype) for name, dtype in types.items())
        return number, t, x, self._layout.checked_values(u, f"rows {start} to {start + len(u) - 1}")

    @property
    def parameter_ranges(self) -> dict[str, list[float]]:
        """Minimum and maximum of each parameter."""
        columns = () if self.parameters is None else self.parameters.T
        return {name: [float(own.min()), float(own.max())]
                for name, own in zip(self.description.parameter_names, columns, strict=True)}

    # ---- further datasets ----

    @property
    def extra(self) -> tuple[str, ...]:
        """Names of datasets beyond the schema (`lonlat`, `triangles`, ...)."""
        return tuple(name for name in self._file if name not in DATASETS and resolves(self._file, name)
                     and isinstance(self._file[name], h5py.Dataset) and not is_scale(self._file[name]))

    def extra_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the datasets beyond the schema."""
        with damage_as_user_error(self.path):
            return {name: self._file[name].shape for name in self.extra}

    def read_extra(self, name: str) -> np.ndarray:
        """Complete dataset beyond the schema. Raises KeyError if there is none."""
        if name not in self.extra:
            raise KeyError(name)
        with damage_as_user_error(self.path):
            return self._file[name][()]


CONTEXTS = ("auto", "none", "environment", "trajectory", "parameters")


@dataclass(frozen=True)
class Environments:
    """Environments of a trajectory file: systems with different dynamics, numbered from 0.

    kind: what distinguishes them, "parameters", "environment" or "trajectory". index: (S,) environment of each
    trajectory. labels: (E,) numbers in the file ("environment"), else 0, 1, .... parameters: (E, Q) values of the
    parameters that vary, None if unknown or not used. names: their Q names.
    """

    kind: str
    index: np.ndarray
    labels: np.ndarray
    parameters: np.ndarray | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number E of environments."""
        return len(self.labels)


def environments_of(file: TrajectoryFile, wanted: str = "auto") -> Environments | None:
    """Environments of a file; None if all trajectories belong to one, or `wanted` is "none".

    "auto": by parameters if some vary, else by environment numbers if there are several. Raises UserError if the file
    does not have what is wanted.
    """
    if wanted not in CONTEXTS:
        raise UserError(f"dynamics.context={wanted!r}; choose from {', '.join(CONTEXTS)}")
    if wanted == "none" or (wanted == "trajectory" and file.trajectories < 2):
        return None
    if wanted == "trajectory":
        return Environments("trajectory", np.arange(file.trajectories), np.arange(file.trajectories))
    names, values = varying_parameters(file)
    if wanted in ("auto", "parameters") and len(names):
        rows, index = np.unique(values, axis=0, return_inverse=True)
        return Environments("parameters", index.reshape(-1), np.arange(len(rows)), rows, names)
    if wanted == "parameters":
        raise UserError(f"dynamics.context=parameters, but {file.path} holds no parameters that vary between its "
                        "trajectories; give dynamics.context=environment or trajectory")
    if file.environment is not None and len(np.unique(file.environment)) > 1:
        labels, index = np.unique(file.environment, return_inverse=True)
        return Environments("environment", index.reshape(-1), labels)
    if wanted == "environment":
        raise UserError(f"dynamics.context=environment, but {file.path} holds one environment; give "
                        "dynamics.context=trajectory or none")
    return None


def varying_parameters(file: TrajectoryFile) -> tuple[tuple[str, ...], np.ndarray]:
    """Names (Q,) and values (S, Q) of the parameters that vary between trajectories."""
    if file.parameters is None:
        return (), np.zeros((file.trajectories, 0))
    values = file.parameters
    varies = np.ptp(values, axis=0) > 1e-12 * np.abs(values).max(0)
    names = tuple(name for name, kept in zip(file.description.parameter_names, varies, strict=True) if kept)
    return names, values[:, varies]


def named_parameters(file: TrajectoryFile, names: tuple[str, ...]) -> np.ndarray | None:
    """Values (S, Q) of the named parameters, None if the file lacks one of them."""
    available = file.description.parameter_names
    if file.parameters is None or not names or not set(names) <= set(available):
        return None
    return file.parameters[:, [available.index(name) for name in names]]


def name_origin(path: str | os.PathLike[str], origin: str) -> None:
    """Keep in a file the name of the one that it was converted from, by which messages then call it."""
    with damage_as_user_error(Path(path)), h5py.File(path, "r+") as file:
        file.attrs[_ORIGIN] = origin


def _any_has_extent(corners: np.ndarray) -> bool:
    """Whether any of the simplices (E, k + 1, d) has a positive size, by the Gram determinants of their edges."""
    with np.errstate(invalid="ignore"):  # coordinates that are not finite are named later
        edges = corners[:, 1:] - corners[:, :1]
        edges = edges / (np.abs(edges).max((1, 2), keepdims=True) + 1e-300)
    gram = edges @ edges.swapaxes(-1, -2)
    longest = np.trace(gram, axis1=-2, axis2=-1)
    return bool((np.linalg.det(gram) > 1e-20 * longest ** edges.shape[1]).any())
