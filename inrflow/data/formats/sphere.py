"""Conversion between longitude and latitude in degrees and unit vectors, which are used in all computations; checks of
the units of coordinates."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from inrflow.errors import UserError

LONGITUDES = ("lon", "longitude", "lons", "longitudes", "lng", "long", "clon", "nav_lon",
              "longitud", "longitudine", "längengrad", "laengengrad", "geolänge", "geolaenge", "länge", "laenge")
LATITUDES = ("lat", "latitude", "lats", "latitudes", "clat", "nav_lat",
             "latitud", "latitudine", "breitengrad", "geobreite", "breite")
_LENGTHS = {name: size for size, names in (
    (1.0, "m meter meters metre metres"), (1e3, "km kilometer kilometers kilometre kilometres"),
    (1e-2, "cm centimeter centimeters"), (1e-3, "mm millimeter millimeters"), (1e-6, "um micrometer micrometers"),
    (0.3048, "ft foot feet"), (1609.344, "mi mile miles"), (1852.0, "nmi")) for name in names.split()}
_IN_NAME = re.compile(r"(.*?)(?:\s*[(\[]\s*(.*?)\s*[)\]]|[ _](mm|cm|m|km))$")  # x (km), x_km
_UPRIGHT = re.compile(r"z.*|.*(depth|height|elev|alt|level|lev|pres).*", re.IGNORECASE)
_PART = r"(\d+(?:[.,]\d+)?)"
_DEGREES = re.compile(  # 8.5E, S 33, 47°30'15.5"N, 47 30.5 N
    rf"([NSEW]?)\s*([-+]?){_PART}\s*[°º:\s-]?\s*(?:{_PART}\s*['′’:\s-]?\s*(?:{_PART}\s*(?:\"|″|”|'')?)?)?\s*([NSEW]?)",
    re.IGNORECASE)
_REGION = 90.0  # degrees of longitude without data, at least, of a region


def sphere_axes(taken: Iterable[str]) -> tuple[str, str, str]:
    """Names of the components of unit vectors: x, y, z unless a field has such a name, as the height z in ERA5."""
    named = set("xyz") & set(taken)
    return ("unit_x", "unit_y", "unit_z") if 0 < len(named) < 3 else ("x", "y", "z")


def degrees_of(values: np.ndarray, name: str) -> np.ndarray:
    """Decimal degrees of cells (R,) of text in a column that is called as longitudes or latitudes, if they have the
    letter of a hemisphere or a sign of degrees, as `33.5S` and `47°30'15"N`; all others unchanged."""
    letters = "NS" if name.lower().startswith(LATITUDES) else "EW" if name.lower().startswith(LONGITUDES) else ""

    def decimal(cell: object) -> object:
        found = _DEGREES.fullmatch(str(cell).strip())
        if found is None or not (found[1] or found[6] or "°" in str(cell) or "º" in str(cell)):
            return cell
        letter = (found[1] + found[6]).upper()
        parts = [float((part or "0").replace(",", ".")) for part in found.group(3, 4, 5)]
        if len(letter) > 1 or letter not in letters or (letter and found[2]) or max(parts[1:]) > 60.0:
            return cell
        size = parts[0] + parts[1] / 60.0 + parts[2] / 3600.0
        return repr(-size if letter in ("S", "W") or found[2] == "-" else size)

    if values.dtype != object or not letters:
        return values
    known = {cell: decimal(cell) for cell in set(values.tolist())}
    return np.array([known[cell] for cell in values.tolist()], object)


def lonlat_to_xyz(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Unit vectors (..., 3) of degrees east and north (...): x to (0, 0), y to (90 E, 0), z to the north pole."""
    lon, lat = np.radians(longitude, dtype=np.float64), np.radians(latitude, dtype=np.float64)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)


def warn_of_radians(path: Path, lonlat: np.ndarray) -> None:
    """Warn if coordinates (N, 2) without a declared unit, taken as degrees, are in the range of radians."""
    lon, lat = lonlat[np.isfinite(lonlat).all(1)].T
    if len(lon) > 1 and np.abs(lat).max() <= np.pi / 2 and -np.pi <= lon.min() and lon.max() <= 2 * np.pi \
            and np.ptp(lon) <= 2 * np.pi:
        warnings.warn(f"{path}: longitudes {lon.min():.3g} to {lon.max():.3g} and latitudes {lat.min():.3g} to "
                      f"{lat.max():.3g} are read as degrees; if they are radians, say so by the attribute units="
                      "radian of a NetCDF file, or multiply them by 180/pi", stacklevel=3)


def named_lonlat(names: Sequence[str]) -> list[str]:
    """Longitude and latitude of two named coordinates of a sphere: in this order, unless the first is called as
    latitudes are."""
    return list(names[::-1] if names and names[0].lower().startswith(LATITUDES) else names)


def require_one_length(path: Path, units: Mapping[str, str]) -> None:
    """Check that horizontal coordinates, each with its unit ("": unknown), are not lengths in several units, which laws
    would mix; heights and depths may have their own. Units may be part of the names, x (km). Raises UserError."""
    known = {}
    for name, unit in units.items():
        within = _IN_NAME.fullmatch(name)
        unit = unit or (within[2] or within[3] if within else "")
        if unit.lower() in _LENGTHS and not _UPRIGHT.fullmatch(within[1] if within else name):
            known[name] = unit
    if len({_LENGTHS[unit.lower()] for unit in known.values()}) > 1:
        held = " and ".join(f"{name} in {unit}" for name, unit in known.items())
        raise UserError(f"{path} has {held}, and coordinates are not converted: write these in one unit")


def cut_elsewhere(longitude: np.ndarray) -> np.ndarray:
    """Longitudes (N,) in degrees of a region across the meridian where they begin anew, such as 350 to 359 and 0 to 10,
    counted from where it begins (-10 to 10); the same array where there is no such meridian."""
    different = np.unique(longitude[np.isfinite(longitude)] % 360.0)
    gaps = np.diff(different, append=different[:1] + 360.0)
    if len(different) < 2 or gaps.max() < _REGION or not np.ptp(longitude[np.isfinite(longitude)]) > (
            360.0 - gaps.max() + 1e-6):
        return longitude
    widest = int(gaps.argmax())
    first = different[(widest + 1) % len(different)]
    return (longitude - first) % 360.0 + first - (360.0 if first >= 180.0 else 0.0)


def xyz_to_lonlat(x: np.ndarray) -> np.ndarray:
    """Degrees (..., 2) of unit vectors (..., 3): longitude in [0, 360), latitude in [-90, 90]."""
    longitude = np.degrees(np.arctan2(x[..., 1], x[..., 0])) % 360.0
    return np.stack([longitude, np.degrees(np.arcsin(np.clip(x[..., 2], -1.0, 1.0)))], -1)


def rotated_to_lonlat(longitude: np.ndarray, latitude: np.ndarray, pole_longitude: float, pole_latitude: float,
                      grid_longitude: float = 0.0) -> np.ndarray:
    """True longitude and latitude (..., 2) in degrees of coordinates (...) on a grid with a rotated north pole.

    pole_longitude, pole_latitude: the grid's north pole; grid_longitude: longitude of the true north pole on the grid
    (CF conventions, Appendix F, rotated_latitude_longitude).
    """
    x, y, z = np.moveaxis(lonlat_to_xyz(np.asarray(longitude) - grid_longitude, latitude), -1, 0)
    tilt, turn = np.radians(90.0 - pole_latitude), np.radians(pole_longitude + 180.0)
    x, z = np.cos(tilt) * x - np.sin(tilt) * z, np.sin(tilt) * x + np.cos(tilt) * z
    return xyz_to_lonlat(np.stack([np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y, z], -1))
