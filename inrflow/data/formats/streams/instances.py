"""Discrete sampling geometries of the CF conventions (chapter 9) as rows: single points, contiguous and indexed ragged
arrays, series with individual times (incomplete arrays), and profiles of Argo floats."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def as_rows(data: Any, times: Sequence[str]) -> Any:
    """xarray.Dataset with variables of instances (stations) repeated for each of their observations.

    times: names of variables of times. Other datasets are returned unchanged.
    """
    for name, variable in list(data.variables.items()):
        rows, instances = variable.attrs.get("sample_dimension"), variable.attrs.get("instance_dimension")
        if rows in data.dims and variable.ndim == 1 and variable.dtype.kind in "fiu":
            counts = np.nan_to_num(variable.values).astype(np.int64)
            if counts.sum() != data.sizes[rows] or counts.min() < 0:
                raise ValueError(f"{name} counts {counts.sum()} observations, {rows} has {data.sizes[rows]}")
            return _repeated(data.drop_vars(name), variable.dims[0], rows, np.repeat(np.arange(len(counts)), counts))
        if instances in data.dims and variable.ndim == 1 and variable.dtype.kind in "fiu":
            which = np.nan_to_num(variable.values, nan=-1.0).astype(np.int64)
            if len(which) and not 0 <= which.min() <= which.max() < data.sizes[instances]:
                raise ValueError(f"{name} names others than the {data.sizes[instances]} entries of {instances}")
            return _repeated(data.drop_vars(name), instances, variable.dims[0], which)
    own = [variable for name, variable in data.variables.items()
           if variable.ndim and (str(name).lower() in times or variable.attrs.get("standard_name") == "time")]
    if len(own) == 1 and own[0].ndim == 2 and str(data.attrs.get("featureType", "")).lower().startswith("timeseries"):
        return _raveled(data, own[0].dims)
    return data


def from_argo_profiles(path: Path, data: Any) -> Any:
    """Profiles of Argo floats as rows of time, place, pressure and measured values: adjusted values if there are any,
    without values flagged as bad (3, 4) or missing (9). Other datasets are returned unchanged."""
    if not {"JULD", "LATITUDE", "LONGITUDE", "PRES", "PRES_QC"} <= set(data.variables) or data["PRES"].ndim != 2:
        return data
    across, along = data["PRES"].dims
    places = {"JULD": "time", "LONGITUDE": "longitude", "LATITUDE": "latitude"}
    held = {name: data[name].values for name in data.variables}
    lost = np.zeros(data["PRES"].shape, bool)
    for flag in ("JULD_QC", "POSITION_QC"):
        lost |= _bad(held.get(flag), (len(lost), 1))
    changed: dict[Any, tuple[Any, np.ndarray, dict[str, Any]]] = {}
    count = 0
    for name in [name for name in data.data_vars if f"{name}_QC" in held and data[name].dims == (across, along)]:
        if name.endswith("_ADJUSTED"):
            continue
        values, bad = held[name].astype(np.float64), _bad(held[f"{name}_QC"], lost.shape)
        adjusted = np.asarray(held.get(f"{name}_ADJUSTED", np.full_like(values, np.nan)), np.float64)
        better = np.isfinite(adjusted).any(1, keepdims=True)
        own = _bad(held.get(f"{name}_ADJUSTED_QC"), lost.shape) | ~np.isfinite(adjusted)
        values, bad = np.where(better, adjusted, values), np.where(better, own, bad) | lost
        count += int((np.isfinite(held[name]) & bad).sum())
        kept = {key: value for key, value in data[name].attrs.items() if not key.startswith("valid_")}
        changed[name] = ((across, along), np.where(bad, np.nan, values), kept)
    if count:
        warnings.warn(f"{path}: {count} values with flags 3, 4 or 9 are left out", stacklevel=2)
    changed |= {name: (across, held[name], {**data[name].attrs, "standard_name": standard})
                for name, standard in places.items()}
    changed["PRES"][2]["axis"] = "Z"
    if "PLATFORM_NUMBER" in held and held["PLATFORM_NUMBER"].shape == (len(lost),):  # identifies the floats
        names = [one.decode("ascii", "replace") if isinstance(one, bytes) else str(one)
                 for one in held["PLATFORM_NUMBER"].tolist()]
        changed["PLATFORM_NUMBER"] = (across, np.array([name.strip() for name in names], object), {})
    return _raveled(type(data)(changed, attrs=data.attrs), (across, along))


def _bad(flags: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Mask of values that flags of Argo's reference table 2 mark as bad or missing."""
    if flags is None:
        return np.zeros(shape, bool)
    letters = np.array([cell.decode("ascii", "replace") if isinstance(cell, bytes) else str(cell)
                        for cell in flags.ravel().tolist()])
    if letters.size * shape[-1] == np.prod(shape) != letters.size:  # a word for each profile, a letter for each level
        letters = letters.astype(f"U{shape[-1]}").view("U1")
    return np.isin(letters.reshape(shape), ("3", "4", "9"))


def _repeated(data: Any, instances: Any, rows: Any, which: np.ndarray) -> Any:
    """Dataset with variables of the instance dimension expanded to rows, where row r belongs to instance `which[r]`."""
    changed = {name: ((rows,), variable.values[which], variable.attrs) for name, variable in data.variables.items()
               if variable.dims == (instances,)}
    return _with(data.drop_dims(instances), changed, data)


def _raveled(data: Any, dims: Sequence[Any]) -> Any:
    """Dataset with variables on one or both of two dimensions flattened to rows."""
    shape = [data.sizes[dim] for dim in dims]
    changed = {}
    for name, variable in data.variables.items():
        if variable.dims and set(variable.dims) <= set(dims):
            values = variable.transpose(*[dim for dim in dims if dim in variable.dims]).values
            spread = values.reshape([data.sizes[dim] if dim in variable.dims else 1 for dim in dims])
            changed[name] = (("row",), np.broadcast_to(spread, shape).ravel(), variable.attrs)
    return _with(data.drop_dims(dims), changed, data)


def _with(data: Any, changed: dict[Any, Any], before: Any) -> Any:
    """Dataset with replaced variables; those that were coordinates remain coordinates."""
    data = data.drop_vars([name for name in changed if name in data.variables])
    return data.assign({name: value for name, value in changed.items() if name not in before.coords}).assign_coords(
        {name: value for name, value in changed.items() if name in before.coords})
