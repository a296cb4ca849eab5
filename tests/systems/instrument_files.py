"""Small files as instruments, loggers, films and ocean models write them; each by its name."""

import csv
from importlib.util import find_spec

import netCDF4
import numpy as np
import xarray
from scipy.io import savemat

T, X, Y = np.arange(4) * 0.5, np.linspace(0, 1, 5), np.linspace(0, 0.5, 5)


def argo(path, shift=0.0):
    """Profiles of a float with flags, one value of them bad and one level without values."""
    profiles, levels = 9, 12
    times, pressure = 26000.0 + shift + np.arange(profiles), np.linspace(5, 500, levels) + np.zeros((profiles, 1))
    truth = 20 * np.exp(-pressure / 300) + 0.1 * np.arange(profiles)[:, None]
    wrong, flags = truth.copy(), np.full(truth.shape, b"1", "S1")
    wrong[2, 3], flags[2, 3], flags[:, -1] = 99.0, b"4", b"9"
    fields = {"JULD": (["N_PROF"], times, {"units": "days since 1950-01-01 00:00:00 UTC", "axis": "T"}),
              "LATITUDE": (["N_PROF"], 30 + 0.1 * np.arange(profiles), {"axis": "Y"}),
              "LONGITUDE": (["N_PROF"], -20 + 0.1 * np.arange(profiles) + shift, {"axis": "X"}),
              "PLATFORM_NUMBER": (["N_PROF"], np.full(profiles, b"6901234 ", "S8")),
              "PRES": (["N_PROF", "N_LEVELS"], pressure, {"units": "decibar"}),
              "PRES_QC": (["N_PROF", "N_LEVELS"], np.full(truth.shape, b"1", "S1")),
              "TEMP": (["N_PROF", "N_LEVELS"], wrong, {"units": "degree_Celsius"}),
              "TEMP_QC": (["N_PROF", "N_LEVELS"], flags),
              "TEMP_ADJUSTED_ERROR": (["N_PROF", "N_LEVELS"], np.full(truth.shape, 0.002))}
    xarray.Dataset(fields).to_netcdf(path, engine="h5netcdf")


def roms(path):
    """A free surface on a curvilinear grid, at times called ocean_time."""
    lat, lon = np.meshgrid(np.arange(4.0), np.arange(5.0), indexing="ij")
    grid = ["eta_rho", "xi_rho"]
    data = xarray.Dataset({"zeta": (["ocean_time", *grid], np.arange(3.0)[:, None, None] + lat + 10 * lon)},
                          {"lon_rho": (grid, lon, {"standard_name": "longitude"}),
                           "lat_rho": (grid, lat, {"standard_name": "latitude"}),
                           "ocean_time": ("ocean_time", [0.0, 3600.0, 7200.0], {"units": "seconds since 2010-01-01"})})
    data.to_netcdf(path, engine="h5netcdf")


def toa5(path):
    """A logger of Campbell with two channels and one missing value."""
    rows = [[f"2024-01-11 {hour:02d}:00:00", hour, hour + 0.5, "NAN" if hour == 3 else -hour] for hour in range(8)]
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_NONNUMERIC).writerows([
            ["TOA5", "CR1000", "CR1000", "1", "OS", "prog", "4711", "Hourly"], ["TIMESTAMP", "RECORD", "P0", "P1"],
            ["TS", "RN", "Deg C", "Deg C"], ["", "", "Avg", "Avg"], *rows])


def davis(path, k=1, x=X, y=Y):
    """One frame of vectors, zeros in a corner where there are none."""
    lines = ['#DaVis 8.4.0 2D-vector 16 7 5 "position" "mm" "position" "mm" "velocity" "m/s"']
    for a, b in ((a, b) for b in y[::-1] for a in x):
        u, v = (0, 0) if a < 0.1 and b < 0.1 else (k + a, b - k)
        lines.append(f"{a:.4f}\t{b:.4f}\t{u:.6f}\t{v:.6f}")
    path.write_text("\n".join(lines) + "\n")


def zones(path):
    """A structured zone of Tecplot for each time."""
    y, x = (part.ravel() for part in np.meshgrid(Y, X, indexing="ij"))
    text = 'TITLE = "heat"\nVARIABLES = "X" "Y" "T"\n'
    for t in T:
        text += f'ZONE T="t {t}", I={len(X)}, J={len(Y)}, DATAPACKING=POINT, STRANDID=1, SOLUTIONTIME={t}\n'
        text += "\n".join(f"{a:.9g} {b:.9g} {t + a * b:.9g}" for a, b in zip(x, y, strict=True)) + "\n"
    path.write_text(text)


def cells(path):
    """A cell of three arrays in MATLAB's format."""
    held = np.empty((1, 3), object)
    for k in range(3):
        held[0, k] = np.random.default_rng(k).random((len(X), len(Y), len(T)))
    savemat(path, {"t": T, "x": X, "y": Y, "runs": held})


def structures(path):
    """Structures of MATLAB, one in another."""
    field = np.random.default_rng(0).random((len(T), len(X), len(Y)))
    savemat(path, {"run": {"t": T, "grid": {"x": X, "y": Y + 1}, "fields": {"u": field}}, "about": "a run"})


def matrices(path):
    """Matrices of MATLAB 4."""
    savemat(path, {"t": T, "x": X, "u": np.random.default_rng(0).random((len(T), len(X)))}, format="4")


def footed(path):
    """A logger's table with a title, a remark and a footer."""
    rows = [f'{n},"{day:02d}.03.2024 12:00",{n / 8}\n' for n, day in enumerate(range(1, 17))]
    path.write_text('Plot Title: Creek 4\n"#","Date Time","Temp, C"\n' + "".join(rows[:9]) + "# battery\n"
                    + "".join(rows[9:]) + "\nEND OF DATA\n")


def film(path):
    """Frames of bytes."""
    np.savez(path, film=np.random.default_rng(0).integers(0, 255, (9, 6, 8, 3)).astype(np.uint8))


def ndbc(path):
    """A buoy, with MM and nines where there is no value, and a wind from 99 degrees."""
    path.write_text("#YY  MM DD hh mm WDIR WSPD  WVHT  PRES  ATMP  TIDE\n"
                    "#yr  mo dy hr mn degT m/s     m   hPa  degC    ft\n" + "".join(
                        f"2020 02 28 {h:02d} 50  {99 if h else 999}  {h}.0 {99.0 if h == 2 else 1.5:5.2f} "
                        f"{9999.0 if h == 3 else 1015.5} {'MM' if h == 4 else -h} 99.00\n" for h in range(8)))


def ghcn(path):
    """Two months of a station, a value of which failed a check."""
    with path.open("w") as file:
        for month, days in (("202001", 31), ("202002", 29)):
            for element, base in (("TMAX", 100), ("TMIN", -50), ("WT01", 1)):
                cells = [f"{base + day:5d} {'X' if (day, element) == (3, 'TMAX') else ' '}W" if day <= days
                         else "-9999   " for day in range(1, 32)]
                file.write(f"USW00094728{month}{element}" + "".join(cells) + "\n")


def ghcn_by_year(path, stations=(("USW00094728", "2400"),)):
    """A row for each value of stations, without names."""
    path.write_text("".join(f"{station},202001{day:02d},{element},{base + day},,,W,{clock}\n" for day in range(1, 29)
                            for station, clock in stations
                            for element, base in (("TMAX", 100), ("TMIN", -50))))


def odv(path):
    """Casts of a cruise, what is said of each in its first row alone, with a flag that says bad."""
    lines = ["//<Version>ODV Spreadsheet V4.6</Version>",
             "Cruise\tStation\tType\tyyyy-mm-ddThh:mm:ss.sss\tLongitude [degrees_east]\tLatitude [degrees_north]\t"
             "Bot. Depth [m]\tDepth [m]\tQV:SEADATANET\tTemperature [degC]\tQV:SEADATANET"]
    for cast in range(6):
        for level in range(5):
            said = f"CR1\tS{cast}\tB\t2020-05-{cast + 1:02d}T12:00:00.000\t{-5 + cast / 4}\t{40 + cast / 8}\t2000"
            lines.append((said if level == 0 else "\t" * 6) + f"\t{10 * level}\t1\t{20 - level + cast / 10:.3f}\t"
                         f"{4 if (cast, level) == (2, 3) else 1}")
    path.write_text("\n".join(lines) + "\n")


def line_protocol(path):
    """Points of two stations with a blank and a comma in a name, and a field of text."""
    path.write_text("".join(f'air\\ q,site={site},lon={lon},lat=47.5 pm10={h + lon},n={h}i,note="a, b=c" '
                            f"{1704067200000000000 + h * 3600 * 10**9}\n" for h in range(6)
                            for site, lon in (("A\\,1", 8.0), ("B", 8.5))))


def series(path):
    """Series of several trajectories without places."""
    t = np.arange(9) * 0.1
    np.savez(path, t=t, u=np.stack([np.stack([np.sin(t + k), np.cos(t + k)], 1) for k in range(5)]),
             parameters=np.arange(5.0))


def exodus(path, kind="NETCDF4", at_nodes=True):
    """Two blocks of elements with fields at nodes (each, or "together"), or of elements; nodes, corners of elements,
    values."""
    nodes = np.array([[x, y] for y in range(3) for x in range(4)], float)
    corners = np.array([[i + 4 * j, i + 1 + 4 * j, i + 5 + 4 * j, i + 4 + 4 * j] for j in range(2) for i in range(3)])
    values = np.random.default_rng(0).normal(size=(2, 3, 12 if at_nodes else 6))
    with netCDF4.Dataset(path, "w", format=kind) as file:
        for name, size in {"len_name": 33, "time_step": None, "num_dim": 2, "num_nodes": 12, "num_elem": 6,
                           "num_el_blk": 2, "num_var": 2, "num_el_in_blk1": 2, "num_el_in_blk2": 4,
                           "num_nod_per_el": 4}.items():
            file.createDimension(name, size)
        file.createVariable("time_whole", "f8", ("time_step",))[:] = [0, 0.25, 0.5]
        for axis in range(2):
            file.createVariable(f"coord{'xy'[axis]}", "f8", ("num_nodes",))[:] = nodes[:, axis]
        for block, own in ((1, slice(0, 2)), (2, slice(2, 6))):
            one = file.createVariable(f"connect{block}", "i4", (f"num_el_in_blk{block}", "num_nod_per_el"))
            one.elem_type, one[:] = "QUAD4", corners[own] + 1
        names = file.createVariable(f"name_{'nod' if at_nodes else 'elem'}_var", "S1", ("num_var", "len_name"))
        names[:] = netCDF4.stringtochar(np.array(["vel_x", "vel_y"], "S33"))
        if at_nodes == "together":  # older files have all fields in one variable
            dims = ("time_step", "num_var", "num_nodes")
            file.createVariable("vals_nod_var", "f8", dims)[:] = np.swapaxes(values, 0, 1)
        for number in range(2):
            if at_nodes is True:
                file.createVariable(f"vals_nod_var{number + 1}", "f8", ("time_step", "num_nodes"))[:] = values[number]
            for block, own in () if at_nodes else ((1, slice(0, 2)), (2, slice(2, 6))):
                file.createVariable(f"vals_elem_var{number + 1}eb{block}", "f8", (
                    "time_step", f"num_el_in_blk{block}"))[:] = values[number][:, own]
    return nodes, corners, values


def healpix(path):
    """Pixels of a coarse sphere."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", 4)
        file.createDimension("cell", 12)
        file.createVariable("time", "f8", ("time",))[:] = np.arange(4)
        file.createVariable("crs", "i4", ()).setncatts({"grid_mapping_name": "healpix", "healpix_nside": 1})
        file.createVariable("tas", "f4", ("time", "cell"))[:] = np.arange(48.0).reshape(4, 12)


def cfx(path):
    """A plane as CFX-Post exports it, with two times as a column."""
    rows = "\n".join(f"{x:.8e}, {y:.8e}, {0:.8e}, {t:.8e}, {x + t:.8e}"
                     for t in T[:2] for x, y in zip(X, Y, strict=True))
    path.write_text(f"\n[Name]\nPlane 1\n\n[Data]\nX [ m ], Y [ m ], Z [ m ], Time [ s ], Pressure [ Pa ]\n{rows}\n\n"
                    "[Faces]\n0, 1, 2\n")


FILES = {"argo.nc": argo, "roms.nc": roms, "toa5.dat": toa5, "davis00001.txt": davis, "zones.dat": zones,
         "cells.mat": cells, "structures.mat": structures, "four.mat": matrices, "footed.csv": footed,
         "film.npz": film, "buoy.txt": ndbc, "station.dly": ghcn, "2020.csv": ghcn_by_year,
         "section.odv": odv, "points.lp": line_protocol, "series.npz": series,
         "plane.csv": cfx, "moose.e": exodus} | ({"pixels.nc": healpix} if find_spec("astropy_healpix") else {})
