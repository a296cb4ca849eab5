"""Which variables of an xarray.Dataset are times, longitudes and latitudes, by names, standard names, axes, units."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from inrflow.data.formats.columns import TIMES
from inrflow.data.formats.sphere import LONGITUDES


def find_variable(data: Any, names: Sequence[str], standard: str, axis: Sequence[str], unit: str) -> str | None:
    """The first variable with one of these names (in any case), or with this CF standard name, axis, or units that
    begin with this pattern."""
    for name, variable in data.variables.items():
        attributes = variable.attrs
        if (str(name).lower() in names or attributes.get("standard_name") == standard or attributes.get("axis") in axis
                or (unit and re.match(unit, str(attributes.get("units", "")), re.IGNORECASE))):
            return str(name)
    return None


def place_of(data: Any, names: Sequence[str]) -> str | None:
    """The variable of LONGITUDES or LATITUDES."""
    standard, unit = ("longitude", "e(ast)?") if names == LONGITUDES else ("latitude", "n(orth)?")
    return find_variable(data, names, standard, (), rf"degrees?_?{unit}\s*$")


def numbered(data: Any, coordinates: Sequence[str] | None) -> Any:
    """With the numbers of their points as those of the named coordinates that are dimensions without values."""
    lacking = [name for name in coordinates or () if name in data.dims and name not in data.variables]
    return data.assign_coords({name: np.arange(data.sizes[name], dtype=np.float64) for name in lacking})


def time_of(data: Any) -> str | None:
    """The variable of times: on one dimension at most, for T may be a temperature; on one, if there is such a one; else
    the axis of another name that holds dates, as `ocean_time` of ROMS."""
    lines = data.drop_vars([name for name, variable in data.variables.items() if variable.ndim != 1])
    if not any(str(name).lower() in TIMES or one.attrs.get("standard_name") == "time" or one.attrs.get("axis") == "T"
               for name, one in lines.variables.items()):
        lines = data.drop_vars([name for name, variable in data.variables.items() if variable.ndim > 1])
    named = next((name for name in TIMES if name in lines.variables), None)
    found = named or find_variable(lines, ("",), "time", ("T",), "") or find_variable(lines, TIMES, "time", ("T",), "")
    return found or next((str(name) for name, one in data.variables.items() if one.dims == (name,) and (
        one.dtype.kind == "M" or " since " in str(one.attrs.get("units", "")))), None)
