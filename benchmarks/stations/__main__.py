"""Networks of stations and long series from independent generators: none is a draw of the process that the engine fits.

    python -m benchmarks.stations FOLDER [NAME ...]

writes NAME.h5 for each, one trajectory of many frames; all where none is named.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.makers.base import write_fields
from benchmarks.stations import air, ground, series, turbulence, water, weather
from benchmarks.stations.base import write

NETWORKS = {make.__name__: make for module in (weather, turbulence, air, water, ground) for make in module.NETWORKS}


def written(folder: Path, name: str) -> Path:
    """NAME.h5 in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.h5"
    if name in NETWORKS:
        write(NETWORKS[name](), path)
    else:
        write_fields(path, name, series.MAKERS[name]())
    return path


if __name__ == "__main__":
    known = [*NETWORKS, *series.MAKERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stations", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.names) - set(known)):
        parser.error(f"nothing is called {', '.join(unknown)}: {', '.join(known)} are")
    for one in chosen.names or known:
        print(written(chosen.folder, one))
