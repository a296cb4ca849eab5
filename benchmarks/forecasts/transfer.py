"""What knowing the terms of other laws is worth: forecasts of a new physics from few, noisy or sparse data.

    python benchmarks/forecasts/transfer.py FOLDER [NAME ...] [--cells clean noise sparse]
        [--trajectories 2 4] [--seconds 8]

FOLDER holds NAME_train.h5 and NAME_test.h5, as `python -m benchmarks.makers` makes them. A law is fitted to the first
ten frames of the first trajectories: all values, with noise of 5 % of the deviation, or at a tenth of the points (other
ones in each trajectory), in three ways:

- scratch: all families of terms;
- known: only terms that laws of the other names have, with free coefficients;
- own: only terms that the true law has. No prior over which terms occur together can do better than this.

Printed: squared errors of forecasts of test trajectories from their first frames over all of their times, relative to
the variance, at most 9 for each trajectory (also where no law is found). What came out: benchmarks/forecasts/README.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.domains import Domain, domains_of
from inrflow.dynamics.laws import Systems, fit, fit_law
from inrflow.dynamics.laws.families import Families
from inrflow.dynamics.laws.setting import Data, forecast_errors
from inrflow.errors import UserError
from inrflow.model.family import term_in_letters

LAWS = {  # forms of the terms of true laws, whichever channel they act on
    "kdv": {"lap da/dx", "a da/dx"},
    "ksper": {"lap a", "lap^2 a", "a da/dx"},
    "cahn_hilliard": {"lap a", "lap^2 a", "lap (a^3)"},
    "fhn": {"1", "a", "lap a", "a^3"},
    "allen_cahn": {"a", "lap a", "a^3"},
    "schrodinger": {"lap a", "a^3", "a^2 b"},
}
CELLS = "clean", "noise", "sparse"
FRAMES, NOISE, SHARE, MOST = 10, 0.05, 0.1, 9.0


def only(forms: set[str]) -> Callable[..., Families]:
    """Families of terms of some forms alone, in place of `families_of`."""
    every = fit.families_of

    def families(*args: object) -> Families:
        kept = [term for term in every(*args).all_terms
                if term_in_letters(term.state()) in forms]  # type: ignore[arg-type]
        return Families({"linear": kept}, (("linear",),))

    return families


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Domain]]:
    """Times (T,), points (N, d), fields (S, T, N, C) and the domains of a file."""
    with TrajectoryFile(path) as file:
        parts = [file.read(row) for row in range(file.trajectories)]
        about, cells = file.description, file.cells
    x = np.asarray(parts[0].x, dtype=np.float64)
    domains = domains_of(x if cells is not None else x[None], about.period, about.geometry, cells)
    t = np.asarray(parts[0].t)
    return t / (t[1] - t[0]), x, np.stack([part.u for part in parts]).astype(np.float64), domains


def degraded(u: np.ndarray, x: np.ndarray, cell: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (S, n, d) and fields (S, T, n, C) of unit deviation as a cell of the table has them."""
    random = np.random.default_rng(seed)
    if cell == "noise":
        u = u + NOISE * random.standard_normal(u.shape)
    if cell != "sparse":
        return np.broadcast_to(x, (len(u), *x.shape)), u
    kept = [np.sort(random.permutation(len(x))[: max(int(SHARE * len(x)), 4)]) for _ in u]
    return np.stack([x[own] for own in kept]), np.stack([one[:, own] for one, own in zip(u, kept, strict=True)])


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(LAWS))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--trajectories", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.names:
        t, x, u, domains = read(options.folder / f"{name}_train.h5")
        _, _, tests, _ = read(options.folder / f"{name}_test.h5")
        scale, known = u.std((0, 1, 2)), set().union(*(forms for other, forms in LAWS.items() if other != name))
        judged = Data(np.broadcast_to(t, tests.shape[:2]), np.broadcast_to(x, (len(tests), *x.shape)), tests / scale,
                      Systems(np.zeros(len(tests), dtype=int)))
        for cell in options.cells:
            for count in options.trajectories:
                points, seen = degraded(u[:count, :FRAMES] / scale, x, cell, options.seed)
                for way, families in (("scratch", fit.families_of), ("known", only(known)), ("own", only(LAWS[name]))):
                    began, error = time.perf_counter(), MOST
                    try:
                        with mock.patch.object(fit, "families_of", families):
                            law = fit_law(t[:FRAMES], points, seen, domains, seconds=options.seconds, seed=options.seed)
                        errors = np.nan_to_num(forecast_errors(law, judged), nan=MOST, posinf=MOST)
                        error = float(np.minimum(errors, MOST).mean())
                    except UserError:
                        pass
                    print(f"| {name} | {cell} | {count} | {way} | {error:.2e} | {time.perf_counter() - began:.0f} s |",
                          flush=True)


if __name__ == "__main__":
    main()
