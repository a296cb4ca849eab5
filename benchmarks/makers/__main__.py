"""Data by solvers that share nothing with the engine.

    python -m benchmarks.makers FOLDER [NAME | NAME:CHANNEL ...]

writes NAME_train.h5 and NAME_test.h5 of problems and families (all where none is named) in the project's schema, the
latter with parameters that trajectories share or have of their own;
NAME:CHANNEL writes one channel alone, of which single frames may be no states. `--list` prints names and equations.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.makers import families, parametric
from benchmarks.makers.base import PROBLEMS, Maker, load, write_problem


def described(make: Maker) -> str:
    """The equation of a maker, or what its module is about."""
    make = getattr(make, "func", make)  # of a partial application
    return " ".join((make.__doc__ or sys.modules[make.__module__].__doc__ or "").split())


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.makers", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true")
    chosen = parser.parse_args()
    load()
    known = [*PROBLEMS, *families.FAMILIES, *parametric.PARAMETRIC]
    if chosen.list or chosen.folder is None:
        for name, one in PROBLEMS.items():
            print(f"{name}: {described(one.make)}")
        for name, (maker, parameter, *_) in families.FAMILIES.items():
            print(f"{name}, families in {parameter}: {described(maker)}")
        for name, (maker, ranges, _) in parametric.PARAMETRIC.items():
            print(f"{name}, own {' and '.join(ranges)}: {described(maker)}")
        return
    if unknown := sorted({name.partition(":")[0] for name in chosen.names} - set(known)):
        parser.error(f"no problem is called {', '.join(unknown)}; --list prints those there are")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for name in chosen.names or known:
        write = (families.write if name in families.FAMILIES else
                 parametric.write if name in parametric.PARAMETRIC else write_problem)
        write(name, chosen.folder)


if __name__ == "__main__":
    main()
