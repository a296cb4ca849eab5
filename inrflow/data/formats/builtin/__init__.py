"""The formats that inrflow brings; importing this package registers them. A new one is a module here, listed below.

Of several formats that recognise a file the last one is used: text, which is CSV for want of better, comes first, and
formats of one's own, registered by the `register_format` of this package, come after all of these.
"""

from inrflow.data.formats.builtin import (  # noqa: F401, I001
    csv_table, mesh_series, parquet_table, hdf5_table, arrays, matlab, npz, openfoam, netcdf, pdebench, the_well,
    trajectories,
)
from inrflow.data.formats import elsewhere  # noqa: F401, I001  after text
from inrflow.data.formats.registry import Format, register_format

__all__ = ["Format", "register_format"]
