"""PP of the UK Met Office: iris reads it (the extra `pp`) and writes it aside as NetCDF by the CF conventions.

It does so in a process of its own: libraries that iris loads and those of GRIB files do not bear each other.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from inrflow.errors import UserError

# Records of 64 words begin and end with their length in bytes, either byte first.
SIGNATURE = re.compile(rb"(\x00\x00\x01\x00|\x00\x01\x00\x00).{256}\1", re.DOTALL)
_CODE = "import sys, iris; iris.save(iris.load(sys.argv[1]), 'fields.nc')"
_written: dict[tuple[str, int, int], TemporaryDirectory[str]] = {}  # removed when the process ends


def as_netcdf(path: Path) -> Path:
    """A NetCDF file of the fields of a PP file, one for all readers of this process. UserError for damaged files."""
    about = path.stat()
    key = (str(path.resolve()), about.st_size, about.st_mtime_ns)
    if key not in _written:
        folder = TemporaryDirectory(prefix="inrflow-")
        ended = subprocess.run([sys.executable, "-W", "ignore", "-c", _CODE, key[0]], cwd=folder.name,
                               capture_output=True, text=True, errors="replace", check=False)
        if ended.returncode != 0:
            folder.cleanup()
            why = (ended.stderr.strip().splitlines() or ["it ended"])[-1][:200]
            raise UserError(f"{path} cannot be read by iris ({why}); copy or write it again, or save it as NetCDF")
        _written[key] = folder
    return Path(_written[key].name) / "fields.nc"
