"""PP of the UK Met Office: iris reads it (the extra `pp`) and writes it aside as NetCDF by the CF conventions.

It does so in a process of its own: libraries that iris loads and those of GRIB files do not bear each other.
"""

from __future__ import annotations

import re
from pathlib import Path

from inrflow.data.formats.streams.aside import written_aside

# Records of 64 words begin and end with their length in bytes, either byte first.
SIGNATURE = re.compile(rb"(\x00\x00\x01\x00|\x00\x01\x00\x00).{256}\1", re.DOTALL)
_CODE = "import sys, iris; iris.save(iris.load(sys.argv[1]), 'fields.nc')"


def as_netcdf(path: Path) -> Path:
    """A NetCDF file of the fields of a PP file, one for all readers of this process. UserError for damaged files."""
    code = ("-c", _CODE, str(path.resolve()))
    return written_aside(path, code, "iris", "copy or write it again, or save it as NetCDF")[0] / "fields.nc"
