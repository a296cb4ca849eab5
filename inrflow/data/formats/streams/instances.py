"""Discrete sampling geometries of the CF conventions (chapter 9) as rows: single points, contiguous and indexed ragged
arrays, and series that have times of their own (incomplete arrays)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def as_rows(data: Any, times: Sequence[str]) -> Any:
    """An xarray.Dataset with what belongs to instances (stations) repeated for each of their observations.

    times: names of variables of times. Any other dataset comes back as it is.
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


def _repeated(data: Any, instances: Any, rows: Any, which: np.ndarray) -> Any:
    """With variables over the dimension of instances alone over rows, row r of instance `which[r]`."""
    changed = {name: ((rows,), variable.values[which], variable.attrs) for name, variable in data.variables.items()
               if variable.dims == (instances,)}
    return _with(data.drop_dims(instances), changed, data)


def _raveled(data: Any, dims: Sequence[Any]) -> Any:
    """With what lives on one or both of two dimensions over rows."""
    shape = [data.sizes[dim] for dim in dims]
    changed = {}
    for name, variable in data.variables.items():
        if variable.dims and set(variable.dims) <= set(dims):
            values = variable.transpose(*[dim for dim in dims if dim in variable.dims]).values
            spread = values.reshape([data.sizes[dim] if dim in variable.dims else 1 for dim in dims])
            changed[name] = (("row",), np.broadcast_to(spread, shape).ravel(), variable.attrs)
    return _with(data.drop_dims(dims), changed, data)


def _with(data: Any, changed: dict[Any, Any], before: Any) -> Any:
    """With variables in place of others, coordinates as coordinates."""
    data = data.drop_vars([name for name in changed if name in data.variables])
    return data.assign({name: value for name, value in changed.items() if name not in before.coords}).assign_coords(
        {name: value for name, value in changed.items() if name in before.coords})
