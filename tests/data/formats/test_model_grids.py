"""Grids of climate and weather models: in by one command, asked at their own points, and back on their dimensions."""

import netCDF4
import numpy as np
import pytest
import xarray
from instrument_files import exodus

from inrflow.data.formats.continued import on_grid
from inrflow.data.formats.convert import convert
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.sphere import lonlat_to_xyz
from inrflow.data.formats.tables import PointWriter, read_observations, read_points, write_points
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

DAYS = ("time", np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(1, "D"), {"standard_name": "time"})
ROWS, COLUMNS = np.mgrid[0:3, 0:5]


def field(lon, lat, scale=1.0):
    steps = np.arange(4).reshape(-1, *[1] * np.ndim(lon))
    return (scale * np.cos(np.radians(lat)) * np.cos(np.radians(lon) - 0.2 * steps)).astype(np.float32)


def nemo(path):
    """Curvilinear, as NEMO has it: nav_lon and nav_lat over y and x, land."""
    lon, lat = 20.0 + 3 * COLUMNS + ROWS, -10.0 + 5 * ROWS + 0.3 * COLUMNS
    values = field(lon, lat)
    values[:, 1, 2] = np.nan
    xarray.Dataset({"tos": (("time", "y", "x"), values, {"units": "degC"})}, {
        "time": DAYS, "nav_lon": (("y", "x"), lon, {"units": "degrees_east"}),
        "nav_lat": (("y", "x"), lat, {"units": "degrees_north"})}).to_netcdf(path)
    return lonlat_to_xyz(lon, lat).reshape(-1, 3), values.reshape(4, -1), {}


def icon(path):
    """Unstructured, as ICON has it: clon and clat in radians."""
    lon, lat = np.linspace(-170.0, 160.0, 12), np.linspace(-80.0, 70.0, 12)
    values = field(lon, lat)
    xarray.Dataset({"ta": (("time", "ncells"), values)}, {
        "time": DAYS, "clon": ("ncells", np.radians(lon), {"units": "radian", "standard_name": "longitude"}),
        "clat": ("ncells", np.radians(lat), {"units": "radian", "standard_name": "latitude"})}).to_netcdf(path)
    return lonlat_to_xyz(lon, lat), values, {}


def rotated(path):
    """A rotated pole at 0 E, 90 S turned by half a turn: true latitudes are those of the grid turned around."""
    lon, lat = np.linspace(-20.0, 20.0, 5), np.linspace(-15.0, 15.0, 3)
    values = field(*np.meshgrid(lon, lat))
    xarray.Dataset({"tas": (("time", "rlat", "rlon"), values, {"grid_mapping": "pole"}), "pole": ((), 0, {
        "grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_longitude": 180.0,
        "grid_north_pole_latitude": 90.0})}, {
        "time": DAYS, "rlon": ("rlon", lon, {"standard_name": "grid_longitude", "units": "degrees"}),
        "rlat": ("rlat", lat, {"standard_name": "grid_latitude", "units": "degrees"})}).to_netcdf(path)
    return lonlat_to_xyz(*np.meshgrid(lon, lat)).reshape(-1, 3), values.reshape(4, -1), {}


def level(path):
    lon, lat = np.arange(0.0, 360.0, 90.0), np.array([40.0, 0.0, -40.0])
    values = field(*np.meshgrid(lon, lat))
    xarray.Dataset({"ta": (("time", "plev", "lat", "lon"), np.stack([values, 9 * values], 1))}, {
        "time": DAYS, "plev": [850.0, 500.0], "lat": lat, "lon": lon}).to_netcdf(path)
    return lonlat_to_xyz(*np.meshgrid(lon, lat)).reshape(-1, 3), 9 * values.reshape(4, -1), {"select": {"plev": 1}}


def wrf(path, moves=0.0):
    """wrfout: text in Times, places with a time dimension, winds on a staggered grid."""
    lon, lat = 5.0 + 0.3 * COLUMNS, 45.0 + 0.2 * ROWS
    moved = moves * np.arange(4)[:, None, None]
    grid = ("Time", "south_north", "west_east")
    values = field(9 * lon, lat, 10.0) + 280
    xarray.Dataset({
        "Times": ("Time", np.array([f"2020-01-0{day}_00:00:00" for day in range(1, 5)], "S19")),
        "XLAT": (grid, (lat + moved).astype(np.float32), {"units": "degree_north"}),
        "XLONG": (grid, np.broadcast_to(lon, (4, 3, 5)).astype(np.float32), {"units": "degree_east"}),
        "T2": (grid, values, {"units": "K"}),
        "U": (("Time", "bottom_top", "south_north", "west_east_stag"), np.ones((4, 2, 3, 6), np.float32)),
    }).to_netcdf(path, encoding={"Times": {"char_dim_name": "DateStrLen"}})
    x = lonlat_to_xyz(lon.astype(np.float32), lat.astype(np.float32)).reshape(-1, 3)
    return x, values.reshape(4, -1), {}


@pytest.mark.filterwarnings("ignore:.*staggered")
@pytest.mark.parametrize("grid", [nemo, icon, rotated, level, wrf])
def test_a_file_is_trained_on_asked_and_answered_on_its_own_grid(grid, tmp_path):
    x, values, read = grid(tmp_path / "grid.nc")
    convert(tmp_path / "grid.nc", tmp_path / "data.h5", **read)
    seen = np.isfinite(values).any(0)
    with TrajectoryFile(tmp_path / "data.h5") as file:
        about, frames = file.description, file.read(0)
    np.testing.assert_allclose(frames.x, x[seen], atol=1e-6)
    np.testing.assert_allclose(frames.u[..., 0], values[:, seen], atol=1e-6)
    given = read_observations(tmp_path / "grid.nc", about, read=read)[0].frames()
    order = np.lexsort(given.x.T), np.lexsort(frames.x.T)
    np.testing.assert_allclose(given.x[order[0]], frames.x[order[1]], atol=1e-6)
    np.testing.assert_allclose(given.u[:, order[0], 0], frames.u[:, order[1], 0], atol=1e-6)
    table = read_points(tmp_path / "grid.nc", about, read)
    name = about.channels[0]
    write_points(tmp_path / "same.nc", table, {name: values.ravel()}, about)
    later = on_grid(table, frames.t[-1] + np.array([1.0, 2.5]) * (frames.t[1] - frames.t[0]), about)
    assert later is not None and len(later) == 2 * len(x)
    with PointWriter(tmp_path / "later.nc", about) as writer:
        writer.append(later, {f"{name}_q50": np.where(np.isfinite(later.x[:, 0]), 1.0, np.nan)})
    with xarray.open_dataset(tmp_path / "grid.nc") as old, xarray.open_dataset(tmp_path / "same.nc") as same, \
            xarray.open_dataset(tmp_path / "later.nc") as new:
        own = old[name].isel(read.get("select", {}))
        assert same[name].dims == own.dims and same[name].attrs.get("units") == own.attrs.get("units")
        np.testing.assert_array_equal(same[name], own)
        np.testing.assert_array_equal(np.isnan(new[f"{name}_q50"][0]), np.isnan(own[0]))
        stamps = np.datetime64("2020-01-05", "h") + np.array([0, 36]).astype("timedelta64[h]")
        assert np.array_equal(new["time"].values, stamps.astype("datetime64[ns]"))
        for key in {"lon", "lat", "nav_lon", "nav_lat", "clon", "clat", "rlon"} & set(old.variables):
            np.testing.assert_allclose(new[key], old[key])
            assert key in new.coords and new[key].attrs.get("units") == old[key].attrs.get("units")
        for key in {"pole"} & set(old.variables):
            assert new[key].attrs == old[key].attrs and new[f"{name}_q50"].attrs["grid_mapping"] == key
        for key in set(own.coords) - set(own.indexes):
            assert float(new[key].mean()) == pytest.approx(float(old[key].isel(read.get("select", {})).mean()))


def projected(path):
    """Write a grid in km on a map whose projection is a variable of a character, as of CORDEX, with a list of numbers.
    """
    lines = {"time": np.arange(4.0), "y": np.arange(3.0), "x": np.arange(4.0)}
    with netCDF4.Dataset(path, "w") as data:
        for name, line in lines.items():
            data.createDimension(name, len(line))
            data.createVariable(name, "f8", (name,))[:] = line
        for name in "xy":
            data[name].setncatts({"units": "km", "standard_name": f"projection_{name}_coordinate"})
        data["time"].units = "hours since 2020-01-01"
        data.createVariable("crs", "S1", ()).setncatts({"grid_mapping_name": "lambert_conformal_conic",
                                                        "standard_parallel": [30.0, 60.0]})
        data.createVariable("t2m", "f4", ("time", "y", "x")).grid_mapping = "crs"
        data["t2m"][:] = np.random.default_rng(0).normal(size=(4, 3, 4))


def test_projections_are_told_and_kept_with_the_run_that_predicted(tmp_path):
    projected(tmp_path / "map.nc")
    assert dict(describe(tmp_path / "map.nc"))["grid mapping"] == "lambert_conformal_conic: y in km, x in km"
    convert(tmp_path / "map.nc", tmp_path / "data.h5")
    with TrajectoryFile(tmp_path / "data.h5") as file:
        about = file.description
    table = read_points(tmp_path / "map.nc", about)
    with PointWriter(tmp_path / "answer.nc", about, run="runs/a") as writer:
        writer.append(table, {"t2m": np.zeros(len(table), np.float32)})
    with netCDF4.Dataset(tmp_path / "answer.nc") as answer:
        assert answer["t2m"].grid_mapping == "crs" and answer["crs"].standard_parallel.tolist() == [30, 60]
        assert answer.history == "predicted by inrflow from the run runs/a"


def test_inspect_prints_a_command_that_reads_what_is_not_read_as_it_is(tmp_path):
    shape = {"time": 4, "plev": 2, "lat": 3, "lon": 4}
    xarray.Dataset({"ta": (tuple(shape), np.random.default_rng(0).normal(size=tuple(shape.values())))}, {
        name: np.arange(size) * 10.0 for name, size in shape.items()}).to_netcdf(tmp_path / "levels.nc")
    rows = dict(describe(tmp_path / "levels.nc"))
    assert rows["next"] == f"`inrflow inspect {tmp_path / 'levels.nc'} select.plev=0`"
    rows = dict(describe(tmp_path / "levels.nc", {"select": {"plev": 0}}, ["select.plev=0"]))
    assert "next" not in rows and "data.read.select.plev=0` reads it" in rows["note"]


def test_a_level_that_is_the_only_one_stays_a_dimension_of_the_answer(tmp_path):
    lines = {"valid_time": DAYS[1], "pressure_level": [500.0], "latitude": [50.0, 40, 30], "longitude": np.arange(4.0)}
    z = xarray.DataArray(np.random.default_rng(0).normal(size=(4, 1, 3, 4)).astype("f4"), lines, tuple(lines),
                         attrs={"units": "m**2 s**-2", "standard_name": "geopotential"})
    xarray.Dataset({"z": z}).to_netcdf(tmp_path / "era5.nc")
    convert(tmp_path / "era5.nc", tmp_path / "data.h5")
    with TrajectoryFile(tmp_path / "data.h5") as file:
        about = file.description
    table = read_points(tmp_path / "era5.nc", about)
    write_points(tmp_path / "same.nc", table, {"z": np.arange(48, dtype="f4")}, about)
    later = on_grid(table, np.array([96.0, 120.0]), about)
    write_points(tmp_path / "later.nc", later, {"z_q50": np.zeros(24, "f4")}, about)
    with xarray.open_dataset(tmp_path / "same.nc") as same, xarray.open_dataset(tmp_path / "later.nc") as new:
        assert same["z"].dims == same["z_observed"].dims == new["z_q50"].dims == z.dims
        np.testing.assert_array_equal(same["z_observed"], z)
        assert same["z"].attrs == z.attrs and new["z_q50"].attrs["standard_name"] == "geopotential"


def test_members_are_trajectories_in_observations_and_answers_too(tmp_path):
    lon, lat = np.arange(0.0, 360.0, 90.0), np.array([40.0, 0.0, -40.0])
    values = field(*np.meshgrid(lon, lat))
    xarray.Dataset({"ta": (("member", "time", "lat", "lon"), np.stack([values, -values]))}, {
        "time": DAYS, "lat": lat, "lon": lon}).to_netcdf(tmp_path / "members.nc")
    convert(tmp_path / "members.nc", tmp_path / "data.h5")
    with TrajectoryFile(tmp_path / "data.h5") as file:
        about = file.description
    given = read_observations(tmp_path / "members.nc", about)
    assert list(given) == [0, 1] and np.array_equal(given[1].frames().u, -given[0].frames().u)
    assert np.unique(read_points(tmp_path / "members.nc", about).trajectory).tolist() == [0, 1]


def test_columns_that_a_run_left_out_may_be_in_its_observations_too(tmp_path):
    (tmp_path / "a.csv").write_text("stamp,lon,lat,tas,humidity\n0,5,40,280,50\n1,5,40,281,51\n")
    convert(tmp_path / "a.csv", tmp_path / "a.h5", channels=["tas"], time="stamp")
    with TrajectoryFile(tmp_path / "a.h5") as file:
        about = file.description
    read = {"channels": ["tas"], "time": "stamp"}
    assert read_observations(tmp_path / "a.csv", about, read=read)[0].frames().u.ravel().tolist() == [280, 281]
    with pytest.raises(UserError, match="unknown column humidity"):
        read_observations(tmp_path / "a.csv", about, read={"time": "stamp"})


def test_winds_of_wrf_between_the_points_are_named_and_nests_that_move_refused(tmp_path):
    wrf(tmp_path / "wrfout.nc")
    with pytest.warns(UserWarning, match="U are given between the points of the other fields"):
        convert(tmp_path / "wrfout.nc", tmp_path / "data.h5")
    wrf(tmp_path / "nest.nc", moves=0.1)
    with pytest.raises(UserError, match="the grid moves"):
        convert(tmp_path / "nest.nc", tmp_path / "nest.h5")


def test_both_versions_of_era5_are_one(tmp_path):
    lon, lat = np.arange(0.0, 360.0, 90.0), np.array([40.0, 0.0, -40.0])
    values = field(*np.meshgrid(lon, lat))
    both = np.stack([values, values], 1)
    both[2:, 0], both[:2, 1] = np.nan, np.nan
    xarray.Dataset({"t2m": (("time", "expver", "latitude", "longitude"), both)}, {
        "time": DAYS, "expver": np.array([1, 5]), "latitude": lat, "longitude": lon}).to_netcdf(tmp_path / "era5.nc")
    convert(tmp_path / "era5.nc", tmp_path / "era5.h5")
    with TrajectoryFile(tmp_path / "era5.h5") as file:
        frames, about = file.read(0), file.description
    np.testing.assert_array_equal(frames.u[..., 0], values.reshape(4, -1))
    given = read_observations(tmp_path / "era5.nc", about)[0].frames()
    np.testing.assert_array_equal(np.sort(given.u.ravel()), np.sort(values.ravel()))


@pytest.mark.parametrize(("attributes", "nested"), [
    ({"grid_mapping_name": "healpix", "healpix_nside": 2, "healpix_order": "nest"}, True),
    ({"grid_mapping_name": "healpix", "refinement_level": 1, "indexing_scheme": "ring"}, False),
])
def test_pixels_of_healpix_lie_at_their_places(attributes, nested, tmp_path):
    pixels = pytest.importorskip("astropy_healpix")
    values = np.random.default_rng(0).normal(size=(4, 48)).astype(np.float32)
    xarray.Dataset({"tas": (("time", "cell"), values), "crs": ((), 0, attributes)}, {"time": DAYS}).to_netcdf(
        tmp_path / "pixels.nc")
    convert(tmp_path / "pixels.nc", tmp_path / "pixels.h5")
    with TrajectoryFile(tmp_path / "pixels.h5") as file:
        frames = file.read(0)
        assert file.description.geometry == "sphere"
    lon, lat = pixels.HEALPix(2, "nested" if nested else "ring").healpix_to_lonlat(np.arange(48))
    np.testing.assert_allclose(frames.x, lonlat_to_xyz(lon.deg, lat.deg), atol=1e-12)
    np.testing.assert_array_equal(frames.u[..., 0], values)


def test_points_with_values_and_without_coordinates_are_told(tmp_path):
    lat = xarray.Variable("lat", [45.0, np.nan, 47.0])
    xarray.Dataset({"tas": (("time", "lat", "lon"), np.arange(24.0).reshape(4, 3, 2))}, {
        "time": DAYS, "lat": lat, "lon": [8.0, 9.0]}).to_netcdf(tmp_path / "a.nc")
    with pytest.warns(UserWarning, match="2 of 6 points with values have no coordinates and are left out"):
        convert(tmp_path / "a.nc", tmp_path / "a.h5")


@pytest.mark.parametrize(("kind", "at_nodes"), [("NETCDF3_64BIT_OFFSET", True), ("NETCDF4", True), ("NETCDF4", False),
                                                ("NETCDF4", "together")])
def test_exodus_goes_in_with_its_mesh(kind, at_nodes, tmp_path):
    nodes, corners, values = exodus(tmp_path / "out.e", kind, at_nodes)
    convert(tmp_path / "out.e", tmp_path / "out.h5")
    with TrajectoryFile(tmp_path / "out.h5") as file:
        about, frames, cells = file.description, file.read(0), file.cells_of(0)
    assert about.channels == ("vel_x", "vel_y") and about.coordinates == ("x", "y") and frames.t.tolist() == [
        0, 0.25, 0.5]
    np.testing.assert_allclose(frames.x, nodes if at_nodes else nodes[corners].mean(1))
    np.testing.assert_allclose(frames.u, np.moveaxis(values, 0, -1), rtol=1e-6)
    assert not at_nodes or {frozenset(one) for one in cells} == {
        frozenset(one[[0, *rest]]) for one in corners for rest in ((1, 2), (2, 3))}
    given = read_observations(tmp_path / "out.e", about)[0].frames()
    np.testing.assert_allclose(np.sort(given.u.ravel()), np.sort(frames.u.ravel()), rtol=1e-6)


def test_meshes_of_ugrid_in_metres_are_in_the_plane_and_flat_fields_are_named_beside_soil(tmp_path):
    x, y = np.array([0.0, 10.0, 25.0, 40.0]), np.array([5.0, 0.0, 8.0, 3.0])
    values = np.arange(16, dtype=np.float32).reshape(4, 4)
    mesh = {"cf_role": "mesh_topology", "topology_dimension": 2, "face_coordinates": "mesh_face_x mesh_face_y"}
    xarray.Dataset({"mesh": ((), 0, mesh), "depth": (("time", "face"), values, {"mesh": "mesh", "location": "face"})}, {
        "time": DAYS, "mesh_face_x": ("face", x, {"units": "m"}), "mesh_face_y": ("face", y, {"units": "m"}),
        }).to_netcdf(tmp_path / "map.nc")
    convert(tmp_path / "map.nc", tmp_path / "map.h5")
    with TrajectoryFile(tmp_path / "map.h5") as file:
        assert file.description.coordinates == ("mesh_face_x", "mesh_face_y")
        np.testing.assert_array_equal(file.read(0).x, np.stack([x, y], 1))
        np.testing.assert_array_equal(file.read(0).u[..., 0], values)
    lon, lat = 8.0 + COLUMNS, 45.0 + ROWS
    soil = np.zeros((4, 2, 3, 5), np.float32)
    xarray.Dataset({"T2": (("time", "y", "x"), field(lon, lat)), "TSLB": (("time", "soil", "y", "x"), soil)}, {
        "time": DAYS, "lon": (("y", "x"), lon), "lat": (("y", "x"), lat)}).to_netcdf(tmp_path / "soil.nc")
    with pytest.raises(UserError, match=r"take those without soil with channels=\[T2\]"):
        convert(tmp_path / "soil.nc", tmp_path / "soil.h5")


def test_a_node_of_ugrid_without_values_loses_its_own_triangles_only(tmp_path):
    x, y, u = np.array([0.0, 1.0, 1.0, 0.0, 2.0]), np.array([0.0, 0.0, 1.0, 1.0, 0.5]), np.ones((4, 5), np.float32)
    u[:, 0] = np.nan
    mesh = {"cf_role": "mesh_topology", "topology_dimension": 2, "node_coordinates": "x y",
            "face_node_connectivity": "faces"}
    xarray.Dataset({"mesh": ((), 0, mesh), "faces": (("face", "corner"), [[0, 1, 2], [0, 2, 3], [1, 4, 2]]),
                    "u": (("time", "node"), u, {"mesh": "mesh", "location": "node"})},
                   {"time": DAYS, "x": ("node", x, {"units": "m"}), "y": ("node", y, {"units": "m"})},
                   ).to_netcdf(tmp_path / "in.nc")
    convert(tmp_path / "in.nc", tmp_path / "in.h5")
    with TrajectoryFile(tmp_path / "in.h5") as file:
        assert [frozenset(one) for one in file.cells_of(0).tolist()] == [frozenset({0, 3, 1})]
        np.testing.assert_array_equal(file.read(0).x, np.stack([x, y], 1)[1:])


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_answers_on_a_mesh_of_ugrid_keep_its_topology(suffix, tmp_path):
    lon, lat = np.array([0.0, 1.0, 1.0, 0.0, 2.0]), np.array([40.0, 40.0, 41.0, 41.0, 40.5])
    corners = np.ma.masked_equal([[1, 2, 3, 4], [2, 5, 3, -9]], -9)  # a quadrilateral and a triangle, counted from 1
    with netCDF4.Dataset(tmp_path / "in.nc", "w") as data:
        for name, size in (("time", 4), ("node", 5), ("face", 2), ("corner", 4)):
            data.createDimension(name, size)
        about = {"cf_role": "mesh_topology", "topology_dimension": 2, "node_coordinates": "node_lon node_lat",
                 "face_node_connectivity": "face_nodes"}
        data.createVariable("mesh", "i4", ()).setncatts(about)
        connected = data.createVariable("face_nodes", "i4", ("face", "corner"), fill_value=-9)
        connected.start_index, connected[:] = 1, corners
        for name, line, units in (("lon", lon, "degrees_east"), ("lat", lat, "degrees_north")):
            one = data.createVariable(f"node_{name}", "f8", ("node",))
            one.units, one[:] = units, line
        one = data.createVariable("time", "f8", ("time",))
        one.units, one[:] = "days since 2020-01-01", np.arange(4)
        one = data.createVariable("zeta", "f4", ("time", "node"))
        one.setncatts({"mesh": "mesh", "location": "node", "units": "m"})
        one[:] = field(lon, lat)
    convert(tmp_path / "in.nc", tmp_path / "in.h5")
    with TrajectoryFile(tmp_path / "in.h5") as file:
        about_field, u = file.description, file.read(0).u[..., 0]
        assert {frozenset(one) for one in file.cells.tolist()} == {  # nodes are read in their order
            frozenset({0, 1, 2}), frozenset({0, 2, 3}), frozenset({1, 4, 2})}
    rows = read_points(tmp_path / "in.nc", about_field)
    write_points(tmp_path / f"out.{suffix}", rows, {"zeta_q50": u.ravel()}, about_field)
    opened = xarray.open_zarr if suffix == "zarr" else xarray.open_dataset
    with opened(tmp_path / f"out.{suffix}", mask_and_scale=False) as answer:
        assert {key: answer["mesh"].attrs[key] for key in about} == about
        connected = answer["face_nodes"]
        assert connected.dims == ("face", "corner") and connected.attrs["start_index"] == 1
        assert connected.dtype == np.int32 and connected.attrs["_FillValue"] == -9
        np.testing.assert_array_equal(connected.values, corners.filled(-9))
        assert (answer["zeta_q50"].attrs["mesh"], answer["zeta_q50"].attrs["location"]) == ("mesh", "node")
        np.testing.assert_array_equal(answer["zeta_q50"].values, u)
    assert read_points(tmp_path / f"out.{suffix}", about_field).x.shape == (20, 3)
