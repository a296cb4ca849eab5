"""Files of every format, written by their own libraries from the published layouts, and what is in them."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import h5py
import meshio
import netCDF4
import numpy as np
import pandas
import pytest
import torch
import xarray
from ensight_cases import write_case
from foam_cases import centres, listed, mesh, write
from grib_files import write_grib
from scipy.io import savemat

from inrflow.data.formats.sphere import lonlat_to_xyz

RANDOM = np.random.default_rng(0)
MOMENTS = np.datetime64("2020-02-28T23:59:59.999998", "us") + np.array([0, 1, 3600_000_001, 90_000_000_003])
SECONDS = (MOMENTS - MOMENTS[0]).astype(np.int64) / 1e6
UNITS = "seconds since 2020-02-28 23:59:59.999998"
T, X, Y = np.array([0.0, 0.1, 0.25, 1.0]), np.linspace(0, 1, 5), np.linspace(-1, 2, 3)
LON, LAT = np.array([5.1, 6.2, 7.3, 8.4]), np.array([48.2, 47.1, 46.3])
GRID = np.stack(np.meshgrid(X, Y, indexing="ij"), -1).reshape(-1, 2)
ON_SPHERE = lonlat_to_xyz(*np.meshgrid(LON, LAT)).reshape(-1, 3)
NODES = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.4, 0.6, 0]], float)
TRIANGLES = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])


@dataclass
class Known:
    """What a source holds: times (T,), points (N, d), values (S, T, N, C), and what else is to be kept."""

    t: Any
    x: Any
    u: Any
    channels: tuple[str, ...]
    units: tuple[str, ...] | None = None
    moments: Any = None
    dims: tuple[str, ...] | None = None
    attributes: dict[str, str] = field(default_factory=dict)  # of the first channel
    options: tuple[str, ...] = ()


def values(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def gaps(array):
    """With a missing value, and a place that is missing at one time."""
    array.reshape(len(array), -1)[1, 2] = np.nan
    array.reshape(len(array), -1)[0, 0] = np.nan
    return array


# ---- grids of weather and climate models ----

NAMES = {"units": "K", "long_name": "temperature at 2 m", "standard_name": "air_temperature"}


def netcdf(path, kind="NETCDF4"):
    u = gaps(values(4, 3, 4))
    with netCDF4.Dataset(path, "w", format=kind) as data:
        data.title = "a run"
        for name, line, units in (("time", SECONDS, UNITS), ("lat", LAT, "degrees_north"),
                                  ("lon", LON, "degrees_east")):
            data.createDimension(name, len(line))
            one = data.createVariable(name, "f8", (name,))
            one[:], one.units = line, units
        one = data.createVariable("t2m", "f4", ("time", "lat", "lon"), fill_value=np.float32(1e20))
        one.setncatts(NAMES)
        one[:] = np.ma.masked_invalid(u)
    return Known(SECONDS, ON_SPHERE, u.reshape(1, 4, -1, 1), ("t2m",), ("K",), MOMENTS, ("time", "lat", "lon"), NAMES)


def netcdf_3(path):
    return netcdf(path, "NETCDF3_64BIT_OFFSET")


def zarr(path):
    u = gaps(values(4, 3, 4))
    data = xarray.Dataset({"t2m": (("time", "lat", "lon"), u, NAMES)}, {
        "time": MOMENTS.astype("M8[ns]"), "lat": ("lat", LAT, {"units": "degrees_north"}),
        "lon": ("lon", LON, {"units": "degrees_east"})})
    data.to_zarr(path, encoding={"time": {"units": UNITS, "dtype": "f8"}})
    return Known(SECONDS, ON_SPHERE, u.reshape(1, 4, -1, 1), ("t2m",), ("K",), MOMENTS, ("time", "lat", "lon"), NAMES)


def icon(path):
    u, (lon, lat) = gaps(values(4, 12)), np.meshgrid(LON, LAT)
    with netCDF4.Dataset(path, "w") as data:
        data.createDimension("time", None)
        data.createDimension("ncells", 12)
        for name, line, units in (("clon", lon, "radian"), ("clat", lat, "radian")):
            one = data.createVariable(name, "f8", ("ncells",))
            one[:], one.units = np.radians(line.ravel()), units
            one.standard_name = "longitude" if name == "clon" else "latitude"
        one = data.createVariable("time", "f8", ("time",))
        one[:], one.units, one.calendar = SECONDS, UNITS, "proleptic_gregorian"
        one = data.createVariable("tas", "f4", ("time", "ncells"), fill_value=np.float32(-9e33))
        one.setncatts(NAMES | {"CDI_grid_type": "unstructured", "coordinates": "clat clon"})
        one[:] = np.ma.masked_invalid(u)
    return Known(SECONDS, ON_SPHERE, u.reshape(1, 4, -1, 1), ("tas",), ("K",), MOMENTS, ("time", "ncells"), NAMES)


def ugrid(path):
    u, (lon, lat) = gaps(values(4, 12)), np.meshgrid(LON, LAT)
    with netCDF4.Dataset(path, "w") as data:
        for name, size in (("time", 4), ("face", 12), ("node", 20), ("four", 4)):
            data.createDimension(name, size)
        data.createVariable("mesh2d", "i4", ()).setncatts({
            "cf_role": "mesh_topology", "topology_dimension": 2, "node_coordinates": "node_x node_y",
            "face_coordinates": "face_x face_y", "face_node_connectivity": "face_nodes"})
        data.createVariable("face_nodes", "i4", ("face", "four"))[:] = 0
        for place, xs, ys in (("node", RANDOM.uniform(0, 9, 20), RANDOM.uniform(0, 9, 20)), ("face", lon, lat)):
            for axis, line in (("x", xs), ("y", ys)):
                one = data.createVariable(f"{place}_{axis}", "f8", (place,))
                one[:] = line.ravel()
                one.units = "degrees_east" if axis == "x" else "degrees_north"
        one = data.createVariable("time", "f8", ("time",))
        one[:], one.units = SECONDS, UNITS
        one = data.createVariable("t2m", "f4", ("time", "face"), fill_value=np.float32(1e20))
        one.setncatts(NAMES | {"mesh": "mesh2d", "location": "face"})
        one[:] = np.ma.masked_invalid(u)
    return Known(SECONDS, ON_SPHERE, u.reshape(1, 4, -1, 1), ("t2m",), ("K",), MOMENTS, ("time", "face"), NAMES)


def wrf(path):
    u, (lon, lat) = values(4, 3, 4), np.meshgrid(LON.astype("f4"), LAT.astype("f4"))
    grid = ("Time", "south_north", "west_east")
    stamps = [f"2020-02-2{6 + day}_12:00:00" for day in range(4)]
    with netCDF4.Dataset(path, "w") as data:
        for name, size in zip((*grid, "DateStrLen"), (None, 3, 4, 19), strict=True):
            data.createDimension(name, size)
        data.createVariable("Times", "S1", ("Time", "DateStrLen"))[:] = np.array([list(one) for one in stamps], "S1")
        for name, place, units in (("XLAT", lat, "degree_north"), ("XLONG", lon, "degree_east")):
            one = data.createVariable(name, "f4", grid)
            one[:], one.units = np.broadcast_to(place, (4, 3, 4)), units
        one = data.createVariable("T2", "f4", grid)
        one[:], one.units, one.coordinates = u, "K", "XLONG XLAT"
    moments = np.array([one.replace("_", "T") for one in stamps], "M8[us]")
    return Known(None, lonlat_to_xyz(lon, lat).reshape(-1, 3), u.reshape(1, 4, -1, 1), ("T2",), ("K",), moments, grid)


def grib(path):
    u = values(4, 3 * 4)
    lon, lat = np.arange(4) * 90.0, np.array([30.0, 0.0, -30.0])
    write_grib(path, u, "regular_ll_pl_grib2", {
        "Ni": 4, "Nj": 3, "latitudeOfFirstGridPointInDegrees": 30.0, "shortName": "t",
        "latitudeOfLastGridPointInDegrees": -30.0, "longitudeOfFirstGridPointInDegrees": 0.0,
        "longitudeOfLastGridPointInDegrees": 270.0, "iDirectionIncrementInDegrees": 90.0,
        "jDirectionIncrementInDegrees": 30.0, "packingType": "grid_ieee"})
    moments = np.datetime64("2020-01-01", "us") + np.arange(4) * np.timedelta64(6, "h")
    return Known(None, lonlat_to_xyz(*np.meshgrid(lon, lat)).reshape(-1, 3), u.reshape(1, 4, -1, 1),
                 ("air_temperature",), ("K",), moments, ("time", "latitude", "longitude"))


PP = """
import cf_units, iris, iris.coords, iris.cube, numpy as np, sys
lon, lat, hours, values = (np.array(eval(text), np.float32) for text in sys.argv[2:])
system = iris.coord_systems.GeogCS(6371229.0)
axes = [iris.coords.DimCoord(one, name, units="degrees", coord_system=system)
        for name, one in (("latitude", lat), ("longitude", lon))]
time = iris.coords.DimCoord(hours.astype(float), "time", units=cf_units.Unit(
    "hours since 1970-01-01 00:00:00", calendar="360_day"))
cube = iris.cube.Cube(values.reshape(len(hours), len(lat), len(lon)), "air_temperature", units="K",
                      dim_coords_and_dims=[(time, 0), (axes[0], 1), (axes[1], 2)])
iris.save(cube, sys.argv[1])
"""


def pp(path):
    """Written in a process of its own: libraries of iris and of eccodes do not bear each other."""
    if find_spec("iris") is None:
        pytest.skip("iris is not installed")
    u = values(4, 3 * 4)
    lon, lat, hours = np.arange(4) * 90.0, np.array([30.0, 0.0, -30.0]), np.array([6.0, 12.0, 24.0, 720.0])
    numbers = [str(np.asarray(one, float).tolist()) for one in (lon, lat, hours, u)]
    subprocess.run([sys.executable, "-W", "ignore", "-c", PP, str(path), *numbers], check=True)
    return Known(hours, lonlat_to_xyz(*np.meshgrid(lon, lat)).reshape(-1, 3), u.reshape(1, 4, -1, 1),
                 ("air_temperature",), ("K",), None, ("time", "latitude", "longitude"))


# ---- meshes ----

def meshed(u):
    return {"p": u[:, 0], "U": np.column_stack([u[:, 1:], 0 * u[:, 0]])}


ON_MESH = ("p", "U_x", "U_y")


def pvd(path):
    u = values(4, 5, 3)
    entries = []
    for step, t in enumerate(T):
        meshio.vtu.write(str(path.with_name(f"s{step}.vtu")), meshio.Mesh(NODES, [("triangle", TRIANGLES)],
                                                                          meshed(u[step])))
        entries.append(f'<DataSet timestep="{t}" part="0" file="s{step}.vtu"/>')
    path.write_text(f'<VTKFile type="Collection"><Collection>{"".join(entries)}</Collection></VTKFile>')
    return Known(T, NODES[:, :2], u[None], ON_MESH)


def vtu(path):
    u = values(1, 5, 3)
    meshio.vtu.write(str(path), meshio.Mesh(NODES, [("triangle", TRIANGLES)], meshed(u[0])))
    time = '<DataArray type="Float64" Name="TimeValue" NumberOfTuples="1" format="ascii">0.25</DataArray>'  # ParaView's
    path.write_bytes(path.read_bytes().replace(b"<UnstructuredGrid>", b"<UnstructuredGrid><FieldData>" + time.encode()
                                               + b"</FieldData>"))
    return Known(np.array([0.25]), NODES[:, :2], u[None], ON_MESH)


def pvtu(path):
    u = values(1, 5, 3)
    for number, own in enumerate((TRIANGLES[:2], TRIANGLES[2:])):
        used = np.unique(own)
        meshio.vtu.write(str(path.with_name(f"piece{number}.vtu")), meshio.Mesh(
            NODES[used], [("triangle", np.searchsorted(used, own))],
            {name: one[used] for name, one in meshed(u[0]).items()}))
    path.write_text("""<VTKFile type="PUnstructuredGrid"><PUnstructuredGrid><PPointData>
        <PDataArray type="Float64" Name="p"/><PDataArray type="Float64" Name="U" NumberOfComponents="3"/></PPointData>
        <PPoints><PDataArray type="Float64" NumberOfComponents="3"/></PPoints>
        <Piece Source="piece0.vtu"/><Piece Source="piece1.vtu"/></PUnstructuredGrid></VTKFile>""")
    return Known(np.zeros(1), NODES[:, :2], u[None], ON_MESH)


def xdmf(path):
    u = values(4, 5, 3)
    here = os.getcwd()
    os.chdir(path.parent)  # meshio writes the values into the working folder
    try:
        with meshio.xdmf.TimeSeriesWriter(path.name) as writer:
            writer.write_points_cells(NODES, [("triangle", TRIANGLES)])
            for t, one in zip(T, u, strict=True):
                writer.write_data(t, point_data=meshed(one))
    finally:
        os.chdir(here)
    return Known(T, NODES[:, :2], u[None], ON_MESH)


def tecplot(path):
    u = values(1, 5, 3)
    meshio.tecplot.write(str(path), meshio.Mesh(NODES, [("triangle", TRIANGLES)], {
        name: u[0, :, c].astype(float) for c, name in enumerate(("p", "T", "k"))}))
    return Known(np.zeros(1), NODES[:, :2], u[None], ("p", "T", "k"))


def comsol(path):
    u, names = values(1, 4, 5, 2), ("p", "T")
    columns = [f"{name} ({unit}) @ t={t:g}" for t in T for name, unit in zip(names, ("Pa", "K"), strict=True)]
    np.savetxt(path, np.hstack([NODES[:, :2], u[0].transpose(1, 0, 2).reshape(5, -1)]), "%.9g", comments="% ",
               header="Model:  flow.mph\nDimension:  2\nx  y  " + "  ".join(columns))
    return Known(T, NODES[:, :2], u, names, units=("Pa", "K"))


def ensight(path):
    u = values(4, 5, 3)
    write_case(path, NODES, [{"tria3": TRIANGLES}, {"bar2": [[0, 1]]}],
               {"p": ("node", u[..., 0]), "U": ("node", np.concatenate([u[..., 1:], 0 * u[..., :1]], -1))}, T,
               binary=path.suffix == ".encas")
    return Known(T, NODES[:, :2].astype(np.float32), u[None], ON_MESH)


def openfoam(path):
    u = values(4, 6, 3)
    mesh(path, 3, 2)
    for t, one in zip(T, u, strict=True):
        rows = [f"({a!r} {b!r} 0)" for a, b in one[:, 1:].tolist()]
        write(path / f"{t:g}" / "U", "volVectorField", f"internalField nonuniform List<vector> \n{listed(rows)};\n")
        write(path / f"{t:g}" / "p", "volScalarField", "internalField nonuniform List<scalar> \n"
              f"{listed([repr(value) for value in one[:, 0].tolist()])};\n")
    return Known(T, centres(3, 2), u[None], ON_MESH, options=("channels=[p,U_x,U_y]",))


def probes(path):
    u, places = values(4, 2, 3), np.array([[0.1, 0.2, 0.05], [0.3, 0.4, 0.05]])
    lines = [f"# Probe {index} ({x:g} {y:g} {z:g})" for index, (x, y, z) in enumerate(places.tolist())]
    lines += ["#       Probe             0             1", "#        Time"]
    lines += [f"      {t:g}" + "".join(f"  ({a!r} {b!r} {c!r})" for a, b, c in one)
              for t, one in zip(T, u.tolist(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return Known(T, places[:, :2], u[None], ("U_x", "U_y", "U_z"))


# ---- arrays and published sets ----

def arrays():
    u = gaps(values(2, 4, 5, 3))
    return {"t": T, "x": X, "y": Y, "vorticity": u}, Known(T, GRID, u.reshape(2, 4, -1, 1), ("vorticity",))


def npz(path):
    held, known = arrays()
    np.savez(path, **held)
    return known


def hdf5_arrays(path):
    held, known = arrays()
    with h5py.File(path, "w") as file:
        for name, values in held.items():
            file["heat" if name == "u" else name] = values
    return known


def npy(path):
    held, known = arrays()
    np.save(path, held["vorticity"])
    known.t, known.channels = np.arange(4.0), ("u",)
    known.x = np.stack(np.meshgrid(np.arange(5) / 5, np.arange(3) / 3, indexing="ij"), -1).reshape(-1, 2)
    known.options = ("coordinates=[x,y]",)
    return known


def matlab_5(path):
    held, known = arrays()
    savemat(path, held)
    return known


def matlab_73(path):
    held, known = arrays()
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in held.items():
            file.create_dataset(name, data=np.atleast_2d(value).T).attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return known


def torch_pt(path):
    held, known = arrays()
    torch.save({name: torch.tensor(value) for name, value in held.items()}, path)
    return known


def neuraloperator(path):
    u = values(3, 2, 4, 5)
    torch.save({"x": torch.tensor(u[:, 0]), "y": torch.tensor(u[:, 1])}, path)
    x = np.stack(np.meshgrid(np.arange(4) / 4, np.arange(5) / 5, indexing="ij"), -1).reshape(-1, 2)
    return Known(np.array([0.0, 1.0]), x, u.reshape(3, 2, -1, 1), ("u",))


def pdebench_tensor(path):
    u = values(2, 4, 5)
    with h5py.File(path, "w") as file:
        file["tensor"], file["x-coordinate"], file["t-coordinate"] = u, X, np.append(T, 2.0)
    return Known(T, X[:, None], u[..., None], ("u",))


def pdebench_fields(path):
    u = values(2, 4, 5, 3, 2)
    with h5py.File(path, "w") as file:
        file["Vx"], file["density"] = u[..., 0], u[..., 1]
        file["x-coordinate"], file["y-coordinate"], file["t-coordinate"] = X, Y, T
    return Known(T, GRID, u.reshape(2, 4, -1, 2), ("Vx", "density"), options=("channels=[Vx,density]",))


def pdebench_groups(path):
    u = values(2, 4, 5, 3, 2)
    with h5py.File(path, "w") as file:
        for index in range(2):
            group = file.create_group(f"{index:04d}")
            group["data"], group["grid/x"], group["grid/y"], group["grid/t"] = u[index], X, Y, T
    return Known(T, GRID, u.reshape(2, 4, -1, 2), ("h", "v"), options=("channels=[h,v]",))


def the_well(path):
    u = values(2, 4, 5, 3, 3)
    with h5py.File(path, "w") as file:
        file.attrs.update(grid_type="cartesian", n_trajectories=2, dataset_name="toy")
        sizes = file.create_group("dimensions")
        sizes.attrs["spatial_dims"] = ["x", "y"]
        sizes["x"], sizes["y"], sizes["time"] = X, Y, T
        file["t0_fields/height"], file["t1_fields/velocity"] = u[..., 0], u[..., 1:]
        for name in ("t0_fields/height", "t1_fields/velocity"):
            file[name].attrs.update(time_varying=True, sample_varying=True)
        file.create_group("scalars")
        file.create_group("boundary_conditions")
    return Known(T, GRID, u.reshape(2, 4, -1, 3), ("height", "velocity_x", "velocity_y"))


# ---- tables ----

def table():
    u = gaps(values(4, 5, 1))
    places = np.round(RANDOM.uniform(0, 9, (5, 2)), 3)
    frame = pandas.DataFrame({
        "time": np.repeat(MOMENTS, 5), "x": np.tile(places[:, 0], 4), "y": np.tile(places[:, 1], 4), "pm10": u.ravel(),
        "station": np.tile([f"Süd, {k}" for k in range(5)], 4)})
    return frame, Known(None, places, u[None], ("pm10",), moments=MOMENTS)


def text(path):
    frame, known = table()
    frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return known


def parquet(path):
    frame, known = table()
    frame.to_parquet(path)
    return known


def toa5(path):
    frame, known = table()
    rows = frame.rename(columns={"time": "TIMESTAMP"}).to_csv(index=False).splitlines()
    head = ["TOA5,CR1000,CR1000,1,OS,prog,4711,Hourly", rows[0], "TS,m,m,ug/m3,", ",Smp,Smp,Avg,Smp"]
    path.write_text("\n".join([*head, *rows[1:]]) + "\n")
    known.units = ("ug/m3",)
    return known


def rdb(path):
    frame, known = table()
    rows = frame.rename(columns={"time": "datetime"}).to_csv(index=False, sep="\t").splitlines()
    head = ["# U.S. Geological Survey", "#", rows[0], "20d\t8n\t8n\t14n\t15s"]
    path.write_text("\n".join([*head, *rows[1:]]) + "\n")
    return known


def influx(path):
    frame, known = table()
    cells = frame.rename(columns={"time": "_time", "pm10": "_value"})
    cells = cells.assign(_field="pm10", _measurement="air", result="", table=0)
    cells["_time"] = [str(moment) for moment in np.repeat(MOMENTS, 5)]
    rows = cells[["result", "table", "_time", "_value", "_field", "_measurement", "station", "x", "y"]].to_csv()
    rows = [line.split(",", 1)[1] for line in rows.splitlines()]
    path.write_text("#group\n#datatype\n#default\n" + "\n".join("," + row for row in rows) + "\n")
    return known


def dedalus(path, version=3):
    u = values(4, 5, 3)
    with h5py.File(path, "w") as file:
        task, scales = file.create_dataset("tasks/b", data=u), file.create_group("scales")
        scales["sim_time"], scales["iteration"] = T, np.arange(4)
        for axis, (name, line) in enumerate((("t", None), ("x", X), ("y", Y))):
            task.dims[axis].label = name
            if line is None:
                held = [scales["sim_time"], scales["iteration"]]
            else:
                held = [scales.create_dataset(f"{name}_hash_a1" if version == 3 else f"{name}/1.0", data=line)]
            for one in held:
                one.make_scale(one.name)
                task.dims[axis].attach_scale(one)
        task.attrs["grid_space"] = [True, True]
        file["tasks/vector"] = np.stack([u, -u], 1)
        for axis in (0, 2, 3):
            file["tasks/vector"].dims[axis].label = "txy"[axis - (axis > 0)]
            file["tasks/vector"].dims[axis].attach_scale(task.dims[axis - (axis > 0)][0])
    return Known(T, GRID, np.stack([u, u, -u], -1).reshape(1, 4, -1, 3), ("b", "vector_x", "vector_y"))


def flat(path):
    frame, known = table()
    with h5py.File(path, "w") as file:
        for name in ("x", "y", "pm10"):
            file[name] = frame[name].to_numpy()
        file["t"] = np.repeat(SECONDS, 5)
    known.t, known.moments = SECONDS, None
    return known


def schema(path):
    u = gaps(values(4, 15, 1))
    with h5py.File(path, "w") as file:
        file.attrs.update(format="inrflow-trajectories", version=1, name="own", time_units="s")
        for key, words in (("channels", ["u"]), ("coordinates", ["x", "y"]), ("units", ["m"])):
            file.attrs.create(key, np.array(words, object), dtype=h5py.string_dtype())
        file["t"], file["x"], file["u"] = T, GRID, u[None]
    return Known(T, GRID, u[None], ("u",), ("m",))


CASES = [
    (netcdf, "era.nc", "answer.nc"), (netcdf, "era.nc", "answer.zarr"), (netcdf_3, "old.nc", "answer.nc"),
    (zarr, "era.zarr", "answer.zarr"), (zarr, "era.zarr", "answer.nc"), (icon, "icon.nc", "answer.nc"),
    (ugrid, "ugrid.nc", "answer.nc"), (wrf, "wrfout_d01", "answer.nc"), (grib, "era.grib2", "answer.nc"),
    (pvd, "flow.pvd", "answer.pvd"), (vtu, "flow.vtu", "answer.pvd"), (xdmf, "flow.xdmf", "answer.pvd"),
    (pp, "um.pp", "answer.nc"), (ensight, "flow.case", "answer.pvd"), (ensight, "flow.encas", "answer.pvd"),
    (tecplot, "flow.dat", "answer.pvd"), (comsol, "flow.txt", "answer.h5"), (openfoam, "cavity", "answer.pvd"),
    (probes, "U", "answer.h5"), (npz, "set.npz", "answer.h5"), (hdf5_arrays, "set.h5", "answer.h5"),
    (npy, "set.npy", "answer.h5"), (matlab_5, "set.mat", "answer.h5"), (matlab_73, "set73.mat", "answer.h5"),
    (torch_pt, "set.pt", "answer.h5"), (neuraloperator, "pairs.pt", "answer.h5"),
    (pdebench_tensor, "burgers.hdf5", "answer.h5"), (pdebench_fields, "cfd.hdf5", "answer.h5"),
    (pdebench_groups, "swe.h5", "answer.h5"), (the_well, "well.hdf5", "answer.nc"), (text, "air.csv", "answer.csv"),
    (text, "air.tsv", "answer.tsv"), (text, "air.csv.gz", "answer.csv.gz"), (parquet, "air.parquet", "answer.parquet"),
    (toa5, "logger.dat", "answer.csv"), (rdb, "gauge.rdb", "answer.tsv"), (influx, "flux.csv", "answer.csv"),
    (dedalus, "snapshots_s1.h5", "answer.h5"),
    (parquet, "air.parquet", "answer.csv"), (text, "air.csv", "answer.parquet"), (flat, "air.h5", "answer.h5"),
    (schema, "own.h5", "answer.h5"), *([(pvtu, "flow.pvtu", "answer.h5")] if find_spec("vtk") else []),
]
