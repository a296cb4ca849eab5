"""Seconds and error of encoding frames: closed form, Gauss-Newton, Adam as DINo takes it, CORAL's three steps.

    python benchmarks/encoding.py [--data navier_stokes wave] [--minutes 2] [--decoders NAME ...]
        [--timed-steps 300] [--out FILE] [--quick]

Decoders are trained alike (same data without symmetries, same processor time, one thread), then the first frames of
unseen trajectories are encoded from all, a quarter and a twentieth of their points. Seconds are processor time of one
thread. How to read the result: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import torch
from common import as_table, data_files, environment, process_seconds
from rich.console import Console
from torch import Tensor

from inrflow.config import Config
from inrflow.data.batch import TrajectoryBatch
from inrflow.data.normalisation import Normalisation
from inrflow.data.sampling import observed_points
from inrflow.data.source import TrajectorySource
from inrflow.data.trajectories import TrajectoryFile
from inrflow.decoders.base import Decoder
from inrflow.encoding.adam import adam_path
from inrflow.encoding.encode import Encoder
from inrflow.encoding.gauss_newton import gauss_newton
from inrflow.encoding.gaussian import GaussianPrior, condition
from inrflow.encoding.gradient_steps import gradient_steps_encode
from inrflow.files import write_json
from inrflow.settings import resolve
from inrflow.training import steps
from inrflow.training.recorder import Recorder
from inrflow.training.table_run import GRADIENT_RATE, fit_table_decoder
from inrflow.training.table_stage import SMALLEST_NOISE, shrunk_moments
from inrflow.training.train import Training

FRACTIONS = (1.0, 0.25, 0.05)
ADAM_STEPS, ADAM_RATE = 300, 1e-2
FRAMES = 10  # of every training trajectory
#: Decoders, by what training is told of them.
DECODERS: dict[str, list[str]] = {
    "SIREN, output modulation": [],
    "filter net (DINo)": ["experiment=dino", "training.joint=false"],
    "SIREN, shift modulation": ["experiment=coral", "encoding.method=gauss_newton"],
    "SIREN, shift, meta-learned (CORAL)": ["experiment=coral"],
}
#: Code dimensions for each channel, the published ones; all decoders have as many.
CODE_SIZES = {"wave": 50, "navier_stokes": 100}
PUBLISHED = ("filter net (DINo)", f"Adam {ADAM_STEPS}")
HEADER = ("data", "decoder", "encoding", "points", "seconds", "MSE", "against DINo's Adam: times faster", "error ratio")

Encode = Callable[[Tensor, Tensor], Tensor]


def methods(name: str, decoder: Decoder, prior: GaussianPrior) -> dict[str, Encode]:
    """Encodings that apply to a decoder: from points x (N, d) or (F, N, d) and values u (F, N, C) to codes (F, Z)."""
    if "CORAL" in name:
        return {"3 gradient steps": lambda x, u: gradient_steps_encode(decoder, x, u, 3, GRADIENT_RATE)}

    def adam(closed: bool) -> Encode:
        return lambda x, u: adam_path(decoder, x, u, (ADAM_STEPS,), ADAM_RATE, closed=closed)[0]

    def solve(x: Tensor, u: Tensor) -> Tensor:
        groups = (x[None], u[None]) if x.dim() == 2 else (x, u[:, None])
        with torch.no_grad():
            return Encoder()(decoder, *groups, prior, False)[0].flatten(0, 1)

    if not decoder.affine:
        return {
            "Gauss-Newton": lambda x, u: gauss_newton(decoder, x, u, prior)[0],
            f"Adam {ADAM_STEPS}": adam(closed=False),
        }
    return {
        "closed form": solve,
        f"Adam {ADAM_STEPS}": adam(closed=False),
        f"Adam {ADAM_STEPS} on the quadratic form": adam(closed=True),
    }


def train(
    name: str, path: Path, minutes: float, frames: int, size: int, seed: int
) -> tuple[Decoder, GaussianPrior, Normalisation]:
    """A decoder trained for so many minutes of processor time, the prior of its codes, and the normalisation."""
    overrides = [f"data.train={path}", f"data.frames={frames}", "data.symmetries=none", f"seed={seed}"]
    config: Config = resolve("train", Config, [*overrides, *DECODERS[name]])
    # The decoder has its share of the minutes of a whole run; here it gets all of them.
    config.training.minutes = minutes / 0.3
    with TrajectoryFile(path) as file, tempfile.TemporaryDirectory() as scratch:
        size *= len(file.description.channels)
        folder = Path(scratch)
        with Recorder(folder, Console(stderr=True, quiet=True)) as recorder:
            run = Training(config, file, folder, recorder, lambda: None)
            if name == "SIREN, output modulation":
                decoder, modes = run.fit_decoder()
                modes = modes.truncated(min(size, len(modes.variances)))
                decoder.set_output(modes.mean, modes.modes)
                return decoder.eval(), modes.prior(), run.source.normalisation
            config.decoder.code_size = size
            decoder, prior, _ = fit_table_decoder(
                config, run.source, run.training, run.validation, run.embedding(),
                lambda stage: steps.timed_steps(stage, 60 * minutes), recorder, folder,
            )
            if decoder.affine:
                prior = solved_prior(decoder, run.source.batch(run.training))
            return decoder, prior, run.source.normalisation


def solved_prior(decoder: Decoder, batch: TrajectoryBatch) -> GaussianPrior:
    """The prior of the solved codes of training frames: a descended table is not what the closed form finds."""
    size, (x, u) = decoder.code_size, batch.groups()
    wide = torch.eye(size, dtype=torch.float64) * 10
    start = GaussianPrior(torch.zeros(size, dtype=torch.float64), wide, torch.full((u.shape[-1],), 1e-3).double())
    with torch.no_grad():
        codes = torch.cat([condition(*decoder.basis(p.float()), v, start)[0] for p, v in zip(x, u, strict=True)])
        decoded = torch.cat([decoder(p.float(), c.float()) for p, c in zip(x, codes.split(u.shape[1]), strict=True)])
    noise = (decoded - u.flatten(0, 1)).square().flatten(0, 1).nanmean(0).double()
    return GaussianPrior(*shrunk_moments(codes), noise.clamp(min=SMALLEST_NOISE))


def measure(
    data: str, name: str, files: tuple[Path, Path], minutes: float, repeats: int, seed: int, timed_steps: int
) -> list[dict[str, Any]]:
    """Rows of one decoder; where fewer than all of Adam's steps are timed, codes come from the quadratic form."""
    decoder, prior, normalisation = train(name, files[0], minutes, FRAMES, CODE_SIZES[data], seed)
    with TrajectoryFile(files[1]) as file:
        source = TrajectorySource(file)
        batch = source.batch(range(len(source)), normalised=False)
    truth, points = batch.u[:, 0], batch.x[0, 0].float()
    values = normalisation.apply(truth)
    rows = []
    for method, encode in methods(name, decoder, prior).items():
        for fraction in FRACTIONS:
            x, u = points, values
            if fraction < 1:
                seen = [torch.as_tensor(observed_points(0, i, len(points), fraction)) for i in range(len(values))]
                x = torch.stack([points[picked] for picked in seen])
                u = torch.stack([values[i, picked] for i, picked in enumerate(seen)])
            if method == f"Adam {ADAM_STEPS}" and decoder.affine and timed_steps < ADAM_STEPS:
                few = partial(adam_path, decoder, x, u, (timed_steps,), ADAM_RATE, closed=False)
                seconds = process_seconds(few, repeats)[0] * ADAM_STEPS / timed_steps
                codes = adam_path(decoder, x, u, (ADAM_STEPS,), ADAM_RATE, closed=True)[0]
            else:
                seconds, codes = process_seconds(partial(encode, x, u), repeats)
            with torch.no_grad():
                decoded = normalisation.invert(decoder(points, codes.float()))
            rows.append(
                {"data": data, "decoder": name, "encoding": method, "points": fraction, "frames": len(values)}
                | {"seconds": seconds, "mse": float((decoded - truth).square().mean()), "code_size": decoder.code_size}
            )
    return rows


def compare(rows: list[dict[str, Any]]) -> None:
    """Add to every row how it stands against DINo's own encoding of the same frames."""
    for row in rows:
        for other in rows:
            same = all(other[key] == row[key] for key in ("data", "points"))
            if same and (other["decoder"], other["encoding"]) == PUBLISHED:
                row["times_faster"] = other["seconds"] / row["seconds"]
                row["error_ratio"] = row["mse"] / other["mse"]


def table(rows: list[dict[str, Any]]) -> str:
    keys = ("data", "decoder", "encoding", "points", "seconds", "mse", "times_faster", "error_ratio")
    return as_table(HEADER, [[row.get(key) for key in keys] for row in rows])


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Error against seconds: one panel for each data set, colours for methods, markers for fractions of points."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row["data"] for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(5.2 * len(names), 5.4), squeeze=False, layout="constrained")
    pairs = list(dict.fromkeys((row["decoder"], row["encoding"]) for row in rows))
    for axis, name in zip(axes[0], names, strict=True):
        for index, pair in enumerate(pairs):
            chosen = [r for r in rows if r["data"] == name and (r["decoder"], r["encoding"]) == pair]
            axis.plot([r["seconds"] for r in chosen], [r["mse"] for r in chosen], "-", color=f"C{index}", linewidth=0.8)
            for marker, row in zip("osv", chosen, strict=False):
                label = ": ".join(pair) if row is chosen[0] else None
                axis.plot(row["seconds"], row["mse"], marker, color=f"C{index}", label=label)
        axis.set(xscale="log", yscale="log", xlabel="processor seconds for all frames", title=name)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("mean squared error at all points")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1, frameon=False, fontsize="small")
    figure.suptitle("circles: all points, squares: 25 %, triangles: 5 %", fontsize="small")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["navier_stokes", "wave"], choices=["wave", "navier_stokes"])
    parser.add_argument("--train", type=Path, help="training file, instead of generated data; --data names it")
    parser.add_argument("--test", type=Path, help="test file")
    parser.add_argument("--minutes", type=float, default=2.0, help="processor time for each decoder")
    parser.add_argument("--decoders", nargs="+", default=list(DECODERS), choices=list(DECODERS))
    parser.add_argument(
        "--timed-steps", type=int, default=ADAM_STEPS, help="of Adam on affine decoders: all take that time each"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("encoding.json"), help="JSON file to write; PNG beside it")
    parser.add_argument("--quick", action="store_true", help="small data and seconds of training: a check")
    options = parser.parse_args()
    if options.train and not options.test:
        parser.error("--train needs --test")
    torch.set_num_threads(1)
    steps.clock = time.process_time
    minutes, repeats = (0.05, 1) if options.quick else (options.minutes, 2)
    rows: list[dict[str, Any]] = []
    for data in options.data[:1] if options.train else options.data:
        small = {"grid": 16, "frames": 14} if options.quick else {}
        generated = () if options.train else data_files(data, *((12, 4) if options.quick else (64, 32)), **small)
        files = (options.train, options.test) if options.train else generated
        for name in options.decoders:
            rows += measure(data, name, files, minutes, repeats, options.seed, options.timed_steps)
            compare(rows)
            write_json(options.out, {"environment": environment(), "rows": rows})
            print(table([row for row in rows if (row["data"], row["decoder"]) == (data, name)]), flush=True)
    plot(rows, options.out.with_suffix(".png"))
    print(f"\n{environment()}\n\n{table(rows)}\n\nwritten to {options.out} and {options.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
