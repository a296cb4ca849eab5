"""Conversion of model-specific layouts (WRF, MPAS, UGRID, HEALPix, ERA5, Exodus) to datasets with CF conventions."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.formats.meshes.mesh_series import simplices
from inrflow.data.formats.streams.netcdf_writers import require_package
from inrflow.errors import UserError

TOPOLOGY = "inrflow_topology"  # attribute of datasets: variables of meshes of UGRID, for files with answers
_WRF_STAGGERED = {"west_east_stag", "south_north_stag", "bottom_top_stag"}
#: Exodus elements by the first letters of their types: meshio's names, and numbers of corners.
_ELEMENTS = {"tri": ("triangle", 3), "qua": ("quad", 4), "she": ("quad", 4), "tet": ("tetra", 4), "bar": ("line", 2),
             "bea": ("line", 2), "tru": ("line", 2)}


def from_model_layouts(path: Path, data: Any) -> Any:
    """Dataset with fields at named coordinates, converted if it has a known layout."""
    return _of_mesh(path, _of_wrf(path, _of_mpas(path, _of_healpix(path, _of_versions(_of_exodus(data))))))


def _of_versions(data: Any) -> Any:
    """ERA5 with its final release (expver 1) filled by the preliminary one (5)."""
    if data.sizes.get("expver") != 2:
        return data
    return data.isel(expver=0, drop=True).fillna(data.isel(expver=1, drop=True))


def _of_healpix(path: Path, data: Any) -> Any:
    """Fields on HEALPix pixels with added longitudes and latitudes."""
    about = next((one.attrs for one in data.variables.values()
                  if "healpix" in (one.attrs.get("grid_mapping_name"), one.attrs.get("grid_name"))), None)
    if about is None:
        return data
    level = about.get("refinement_level", about.get("level"))
    side = int(about.get("healpix_nside", about.get("nside", 0)) if level is None else 2 ** int(level))
    pixels = next((data[name] for name in ("cell", "cell_ids", "healpix_index") if name in data.variables), None)
    dims = [dim for dim, size in data.sizes.items() if size == 12 * side**2] if pixels is None else pixels.dims
    if not side or len(dims) != 1:
        raise UserError(f"{path} has pixels of HEALPix whose number (nside) or dimension is not given; add longitude "
                        "and latitude of each")
    require_package("astropy_healpix", path)
    from astropy_healpix.healpy import pix2ang

    nested = str(about.get("healpix_order", about.get("indexing_scheme", "nested"))).lower().startswith("nest")
    index = np.arange(data.sizes[dims[0]]) if pixels is None else pixels.values.astype(np.int64)
    longitudes, latitudes = pix2ang(side, index, nest=nested, lonlat=True)
    return data.assign_coords(lon=(dims, longitudes, {"standard_name": "longitude", "units": "degrees_east"}),
                              lat=(dims, latitudes, {"standard_name": "latitude", "units": "degrees_north"}))


def _of_exodus(data: Any) -> Any:
    """Exodus fields at nodes, else at centres of elements, under their names, with the cells of the mesh."""
    if not {"time_whole", "connect1"} <= set(data.variables):
        return data
    import xarray

    places = np.stack([data[f"coord{axis}"].values for axis in "xyz" if f"coord{axis}" in data.variables]
                      or list(data["coord"].values), -1).astype(np.float64)
    cells, centres = dict[str, list[np.ndarray]](), []
    blocks = [str(name)[7:] for name in data.variables if re.fullmatch(r"connect\d+", str(name))]
    for block in blocks:
        nodes = data[f"connect{block}"].values.astype(np.int64) - 1
        kind, corners = _ELEMENTS.get(str(data[f"connect{block}"].attrs.get("elem_type"))[:3].lower(), ("other", 0))
        cells.setdefault(kind if nodes.shape[1] == corners else f"{kind}{nodes.shape[1]}", []).append(nodes)
        centres.append(places[nodes].mean(1))

    def called(kind: str) -> list[str]:
        found = data[f"name_{kind}_var"].values if f"name_{kind}_var" in data.variables else []
        return [name.decode(errors="replace").strip("\0 ") for name in found]

    mesh = simplices({kind: np.concatenate(nodes) for kind, nodes in cells.items()})
    fields = {name: data[f"vals_nod_var{number}"].variable if f"vals_nod_var{number}" in data.variables else
              data["vals_nod_var"].variable[:, number - 1] for number, name in enumerate(called("nod"), 1)}
    for one in fields.values():
        one.dims = ("time", "point")
    if not fields:
        places, mesh = np.concatenate(centres), {}
        of_blocks = {name: [f"vals_elem_var{number}eb{block}" for block in blocks]
                     for number, name in enumerate(called("elem"), 1)}
        fields = {name: xarray.Variable(("time", "point"), np.concatenate([data[own].values for own in owns], 1))
                  for name, owns in of_blocks.items() if set(owns) <= set(data.variables)}
    axes = {axis: ("point", line) for axis, line in zip("xyz", places.T, strict=False) if np.ptp(line)}
    return xarray.Dataset(
        fields | {name: ((name, "corner"), one) for name, one in mesh.items()},
        {"time": data["time_whole"].values.astype(np.float64), **axes}, {"title": data.attrs.get("title", "")})


def _of_wrf(path: Path, data: Any) -> Any:
    """WRF dataset with the text in `Times` converted to dates, and places without a time dimension.

    Staggered fields are left out, with a warning. Raises UserError for a moving grid.
    """
    if "Times" not in data.variables or not {"XLAT", "XLONG"} <= set(data.variables):
        return data
    (dim,) = data["Times"].dims
    texts = np.atleast_1d(data["Times"].values).astype("U")
    data = data.assign_coords(time=(dim, np.array([text.replace("_", "T") for text in texts], "datetime64[us]")))
    for name, standard in (("XLONG", "longitude"), ("XLAT", "latitude")):
        place = data[name]
        if dim in place.dims:
            if float(abs(place - place.isel({dim: 0})).max()) > 0:
                raise UserError(f"{path}: the grid moves ({name} changes in time), which is not read; take the domain "
                                "around it")
            place = place.isel({dim: 0}, drop=True)
        units = "degrees_east" if standard == "longitude" else "degrees_north"
        data = data.assign_coords({name: place.assign_attrs(standard_name=standard, units=units)})
    between = [str(name) for name, one in data.data_vars.items() if _WRF_STAGGERED & set(one.dims)]
    between += [str(name) for name in data.coords if str(name).endswith(("_U", "_V"))]
    told = [name for name in between if name in data.data_vars and len(data[name].dims) > 2]
    if told:
        warnings.warn(f"{path}: {', '.join(told)} are given between the points of the other fields (staggered) and are "
                      "left out", stacklevel=2)
    return data.drop_vars(["Times", *between])


def _of_mpas(path: Path, data: Any) -> Any:
    """MPAS dataset with coordinates for fields of cells, and the text in `xtime` converted to dates.

    Fields of edges and vertices are left out, with a warning.
    """
    if not {"latCell", "lonCell"} <= set(data.variables):
        return data
    others = [dim for dim in ("nEdges", "nVertices") if dim in data.dims]
    between = {name: one for name, one in data.data_vars.items() if set(others) & set(one.dims)}
    if told := [str(name) for name, one in between.items() if "Time" in one.dims]:
        warnings.warn(f"{path}: {', '.join(told)} are given at edges or vertices and are left out", stacklevel=2)
    data = data.drop_dims(others)
    for name, standard in (("lonCell", "longitude"), ("latCell", "latitude")):
        data = data.assign_coords({name: data[name].assign_attrs(standard_name=standard, units="radians")})
    if "xtime" not in data.variables or "noleap" in str(data.attrs.get("config_calendar_type", "")):
        return data
    texts = np.char.strip(np.atleast_1d(data["xtime"].values).astype("U"), " \0")
    moments = np.array([text.replace("_", "T") for text in texts], "datetime64[us]")
    return data.drop_vars("xtime").assign_coords(time=(data["xtime"].dims, moments))


def _of_mesh(path: Path, data: Any) -> Any:
    """UGRID dataset with the fields at faces, nodes or edges, whichever has most, and their coordinates.

    Topology and connectivity go into the attribute TOPOLOGY; fields at other places are left out with a warning.
    """
    for mesh in [name for name, one in data.data_vars.items() if one.attrs.get("cf_role") == "mesh_topology"]:
        words = {key: str(value).split() for key, value in data[mesh].attrs.items()}
        fields = {name: one.attrs.get("location") for name, one in data.data_vars.items()
                  if one.attrs.get("mesh") == mesh}
        count = list(fields.values()).count
        where = max(("face", "node", "edge"), key=count)
        others = [str(name) for name, location in fields.items() if location != where]
        if others:
            warnings.warn(f"{path}: {', '.join(others)} are not given at the {where}s of the mesh, as other fields "
                          "are, and are left out", stacklevel=2)
        own = [name for name in words.get(f"{where}_coordinates", []) if name in data.variables]
        parts = {name for key, names in words.items() if key.endswith(("_coordinates", "_connectivity"))
                 for name in names if name in data.variables}
        mesh_of = {name: data.variables[name] for name in (mesh, *sorted(parts - set(own)))}
        data.attrs[TOPOLOGY] = data.attrs.get(TOPOLOGY, {}) | mesh_of
        data = data.drop_vars([mesh, *others, *(parts - set(own))]).set_coords(own)
        for name, axis in zip(own, "XY", strict=False):
            data[name].attrs.setdefault("axis", axis)
        faces = next((mesh_of[name] for name in words.get("face_node_connectivity", []) if name in mesh_of), None)
        if where == "node" and own and faces is not None and "triangles" not in data.variables:
            cells = _triangles(faces, data[own[0]].size, words.get("face_dimension", []) == [*faces.dims][1:])
            data = data.assign_coords(triangles=(("triangles", "corner"), cells)) if len(cells) else data
    return data


def _triangles(faces: Any, nodes: int, turned: bool) -> np.ndarray:
    """Triangles (E, 3) of a variable of UGRID with the nodes around each convex face, as (faces, corners) or `turned`,
    with fill values where faces have fewer; empty if these are not among the numbers of `nodes`."""
    around = np.asarray(faces.values.T if turned else faces.values, np.float64) - int(faces.attrs.get("start_index", 0))
    present = np.isfinite(around) & (around >= 0) & (around < 2**31 - 2)
    around = np.where(present, around, 0).astype(np.int64)
    if around.ndim != 2 or around.max(initial=0) >= nodes or not present[:, :3].all():
        return np.empty((0, 3), np.int64)
    fans = [around[present[:, last], :][:, [0, last - 1, last]] for last in range(2, around.shape[1])]
    return np.concatenate(fans)
