"""PP files of the UK Met Office: iris (the extra `pp`) converts them to temporary NetCDF files with CF conventions.

It runs in a separate process, since libraries that iris loads and those of GRIB files are incompatible.
"""

from __future__ import annotations

import re
from pathlib import Path

from inrflow.data.formats.streams.aside import converted_in_process

# Records of 64 words begin and end with their length in bytes, either byte first.
SIGNATURE = re.compile(rb"(\x00\x00\x01\x00|\x00\x01\x00\x00).{256}\1", re.DOTALL)
_CODE = "import sys, iris; iris.save(iris.load(sys.argv[1]), 'fields.nc')"


def as_netcdf(path: Path) -> Path:
    """NetCDF file of the fields of a PP file, cached in this process. Raises UserError for damaged files."""
    code = ("-c", _CODE, str(path.resolve()))
    return converted_in_process(path, code, "iris", "copy or write it again, or save it as NetCDF")[0] / "fields.nc"
