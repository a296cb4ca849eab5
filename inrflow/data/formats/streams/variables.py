"""Detection of times, longitudes, latitudes and series at one place in an xarray.Dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inrflow.data.formats.columns import TIMES
from inrflow.data.formats.sphere import LONGITUDES


def find_variable(data: Any, names: Sequence[str], standard: str, axis: Sequence[str], unit: str) -> str | None:
    """First variable with one of the names (in any case), the CF standard name, the axis, or units that match the
    pattern `unit` at their beginning."""
    for name, variable in data.variables.items():
        attributes = variable.attrs
        if (str(name).lower() in names or attributes.get("standard_name") == standard or attributes.get("axis") in axis
                or (unit and re.match(unit, str(attributes.get("units", "")), re.IGNORECASE))):
            return str(name)
    return None


def place_of(data: Any, names: Sequence[str]) -> str | None:
    """Variable of longitudes or latitudes; names: LONGITUDES or LATITUDES."""
    standard, unit = ("longitude", "e(ast)?") if names == LONGITUDES else ("latitude", "n(orth)?")
    return find_variable(data, names, standard, (), rf"degrees?_?{unit}\s*$")


def numbered(data: Any, coordinates: Sequence[str] | None) -> Any:
    """Dataset in which named coordinates that are dimensions without values get the indices of their points."""
    lacking = [name for name in coordinates or () if name in data.dims and name not in data.variables]
    return data.assign_coords({name: np.arange(data.sizes[name], dtype=np.float64) for name in lacking})


def time_of(data: Any) -> str | None:
    """Variable of times with at most one dimension (T may be a temperature), preferably one; else the dimension
    coordinate of another name that holds dates, such as `ocean_time` of ROMS."""
    lines = data.drop_vars([name for name, variable in data.variables.items() if variable.ndim != 1])
    if not any(str(name).lower() in TIMES or one.attrs.get("standard_name") == "time" or one.attrs.get("axis") == "T"
               for name, one in lines.variables.items()):
        lines = data.drop_vars([name for name, variable in data.variables.items() if variable.ndim > 1])
    named = next((name for name in TIMES if name in lines.variables), None)
    found = named or find_variable(lines, ("",), "time", ("T",), "") or find_variable(lines, TIMES, "time", ("T",), "")
    return found or next((str(name) for name, one in data.variables.items() if one.dims == (name,) and (
        one.dtype.kind == "M" or " since " in str(one.attrs.get("units", "")))), None)


def at_one_place(data: Any, select: Mapping[str, Any], time: str | None) -> Any:
    """Dataset at the selected indices, without the dimensions of one entry if its fields are series at one place."""
    data = data.isel({name: int(index) for name, index in select.items() if name in data.dims})
    time = time or time_of(data)
    if time not in data.variables or data[time].ndim != 1:
        return data
    ends = [data[time].attrs.get(key) for key in ("bounds", "climatology")]
    others = {dim for name, one in data.data_vars.items() if data[time].dims[0] in one.dims and name not in ends
              for dim in one.dims} - {*data[time].dims}
    return data if any(data.sizes[dim] != 1 for dim in others) else data.squeeze(list(others))
