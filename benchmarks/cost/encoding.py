"""Seconds and error of encoding frames: closed form, Gauss-Newton, Adam as DINo takes it, CORAL's three steps.

    python benchmarks/cost/encoding.py [--data navier_stokes wave] [--minutes 2] [--decoders NAME ...]
        [--timed-steps 300] [--out FILE] [--quick]

Decoders are trained alike (same data without symmetries, same processor time, one thread), then the first frames of
unseen trajectories are encoded from all, a quarter and a twentieth of their points. Seconds are processor time of one
thread. How to read the result: benchmarks/cost/README.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor

from benchmarks.common import as_table, data_files, environment, process_seconds, started
from inrflow.config.resolve import resolve
from inrflow.config.schema import Config
from inrflow.data.batch import Normalisation, TrajectoryBatch
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.source import TrajectorySource, observed_points
from inrflow.decoders.base import Decoder
from inrflow.encoding.adam import adam_path
from inrflow.encoding.encode import GRADIENT_RATE, Encoder
from inrflow.encoding.gauss_newton import gauss_newton
from inrflow.encoding.gradient_steps import gradient_steps_encode
from inrflow.encoding.posterior import GaussianPrior, condition
from inrflow.runtime.atomic_files import write_json
from inrflow.training.parts.decoder import fit_decoder
from inrflow.training.problem import Problem
from inrflow.training.recipes.auto_decoding import SMALLEST_NOISE, auto_decode

FRACTIONS = (1.0, 0.25, 0.05)
ADAM_STEPS, ADAM_RATE = 300, 1e-2
SHARE = 0.3  # of a run's minutes, which its decoder has
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
ADAM = f"Adam {ADAM_STEPS}"
#: As DINo's code does it: the whole grid is decoded, filters evaluated for every frame, and the error masked.
PUBLISHED = f"{ADAM}, whole grid masked"
DINO = "filter net (DINo)"
#: Candidates for the closed form's prior, chosen on validation: noise against what training frames leave, shrinkage.
NOISE_FACTORS, SHRINKAGES = (1.0, 3.0, 10.0, 30.0), (0.02, 0.1, 0.3)
VALIDATION_FRAMES = 64
PAIRS_AT_ONCE = 2**13  # of frame and point, in Adam's steps: more of them leave the cache and take longer
HEADER = (
    "data", "decoder", "encoding", "points", "seconds", "MSE", "times as fast as Adam 300 on DINo's net",
    "as its code does it", "error ratio",
)

Encode = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Trained:
    """A decoder, candidates for the prior of its codes, and normalised validation frames at shared points."""

    decoder: Decoder
    priors: list[GaussianPrior]
    normalisation: Normalisation
    x: Tensor
    held: Tensor


def methods(name: str, decoder: Decoder, prior: GaussianPrior) -> dict[str, Encode]:
    """Encodings that apply to a decoder: from points x (N, d) or (F, N, d) and values u (F, N, C) to codes (F, Z)."""
    if "CORAL" in name:
        return {"3 gradient steps": lambda x, u: gradient_steps_encode(decoder, x, u, 3, GRADIENT_RATE)}

    def adam(closed: bool) -> Encode:
        return lambda x, u: descend(decoder, x, u, ADAM_STEPS, closed)

    def solve(x: Tensor, u: Tensor) -> Tensor:
        groups = (x[None], u[None]) if x.dim() == 2 else (x, u[:, None])
        with torch.no_grad():
            return Encoder()(decoder, *groups, prior, False)[0].flatten(0, 1)

    if not decoder.affine:
        return {
            "Gauss-Newton": lambda x, u: gauss_newton(decoder, x, u, prior)[0],
            ADAM: adam(closed=False),
        }
    found = {"closed form": solve, ADAM: adam(closed=False), f"{ADAM} on the quadratic form": adam(closed=True)}
    return found | ({PUBLISHED: adam(closed=False)} if name == DINO else {})


def descend(decoder: Decoder, x: Tensor, u: Tensor, steps: int, closed: bool, at_once: bool = False) -> Tensor:
    """Codes of frames by Adam, which moves each by itself: as many of them together as is fastest, or all `at_once`."""
    length = len(u) if at_once else max(1, PAIRS_AT_ONCE // u.shape[1])
    parts = [slice(start, start + length) for start in range(0, len(u), length)]
    return torch.cat(
        [
            adam_path(decoder, x if x.dim() == 2 else x[part], u[part], (steps,), ADAM_RATE, closed=closed)[0]
            for part in parts
        ]
    )


def train(name: str, path: Path, minutes: float, frames: int, size: int, seed: int) -> Trained:
    """A decoder trained for so many minutes of processor time."""
    overrides = [f"data.train={path}", f"data.frames={frames}", "data.symmetries=none", f"seed={seed}"]
    config: Config = resolve("train", Config, [*overrides, *DECODERS[name]])
    # The decoder has its share of the minutes of a whole run; here it gets all of them.
    config.training.minutes = minutes / SHARE
    with TrajectoryFile(path) as file:
        size *= len(file.description.channels)
        if name != "SIREN, output modulation":
            config.decoder.code_size = size
        with started(config, file) as run:
            problem = run.problem
            if name == "SIREN, output modulation":
                fitted = fit_decoder(run)
                fitted = fitted.leading(min(size, len(fitted.modes.variances)))
                return trained(problem, fitted.decoder.eval(), [fitted.modes.prior()])
            decoder, prior, *_ = auto_decode(run, SHARE)
            batch = problem.source.batch(problem.train)
            return trained(problem, decoder, solved_priors(decoder, batch) if decoder.affine else [prior])


def trained(problem: Problem, decoder: Decoder, priors: list[GaussianPrior]) -> Trained:
    """With validation frames, and noise as a further choice."""
    held = problem.source.batch(problem.validation)
    every = held.u.flatten(0, 1)
    few = torch.linspace(0, len(every) - 1, min(len(every), VALIDATION_FRAMES)).long()
    priors = [GaussianPrior(p.mean, p.covariance, factor * p.noise) for p in priors for factor in NOISE_FACTORS]
    return Trained(decoder, priors, problem.source.normalisation, held.x[0, 0].float(), every[few].float())


def solved_priors(decoder: Decoder, batch: TrajectoryBatch) -> list[GaussianPrior]:
    """Priors of the solved codes of training frames: a descended table is not what the closed form finds."""
    size, (x, u) = decoder.code_size, batch.groups()
    wide = torch.eye(size, dtype=torch.float64) * 10
    start = GaussianPrior(torch.zeros(size, dtype=torch.float64), wide, torch.full((u.shape[-1],), 1e-3).double())
    with torch.no_grad():
        codes = torch.cat([condition(*decoder.basis(p.float()), v, start)[0] for p, v in zip(x, u, strict=True)])
        decoded = torch.cat([decoder(p.float(), c.float()) for p, c in zip(x, codes.split(u.shape[1]), strict=True)])
    noise = (decoded - u.flatten(0, 1)).square().flatten(0, 1).nanmean(0).double().clamp(min=SMALLEST_NOISE)
    parts = decoder.channels if decoder.code_per_channel else 1
    return [GaussianPrior.shrunk(codes, noise, parts, shrinkage) for shrinkage in SHRINKAGES]


def seen_part(x: Tensor, u: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Points (N, d), or (F, M, d) where only a fraction is observed, another one in every frame, and values there."""
    if fraction == 1:
        return x, u
    seen = [torch.as_tensor(observed_points(0, i, len(x), fraction)) for i in range(len(u))]
    return torch.stack([x[s] for s in seen]), torch.stack([u[i, s] for i, s in enumerate(seen)])


def best_prior(name: str, model: Trained, fraction: float) -> GaussianPrior:
    """The prior that encodes validation frames best when they are seen at this fraction of their points."""
    if "CORAL" in name:
        return model.priors[0]
    x, u = seen_part(model.x, model.held, fraction)

    @torch.no_grad()
    def error(prior: GaussianPrior) -> float:
        encode = next(iter(methods(name, model.decoder, prior).values()))
        return float((model.decoder(model.x, encode(x, u).float()) - model.held).square().mean())

    return min(model.priors, key=error)


def measure(
    data: str, name: str, files: tuple[Path, Path], minutes: float, repeats: int, seed: int, timed_steps: int
) -> list[dict[str, Any]]:
    """Rows of one decoder; where fewer than all of Adam's steps are timed, codes come from the quadratic form."""
    model = train(name, files[0], minutes, FRAMES, CODE_SIZES[data], seed)
    decoder, normalisation = model.decoder, model.normalisation
    with TrajectoryFile(files[1]) as file:
        source = TrajectorySource(file)
        batch = source.batch(range(len(source)), normalised=False)
    truth, points = batch.u[:, 0], batch.x[0, 0].float()
    values = normalisation.apply(truth)
    rows = []
    for fraction in FRACTIONS:
        seen_x, seen_u = seen_part(points, values, fraction)
        prior = best_prior(name, model, fraction)
        for method, encode in methods(name, decoder, prior).items():
            x, u = seen_x, seen_u
            if method == PUBLISHED:  # the same codes as from the observed points alone
                x, u = points.expand(len(values), -1, -1).contiguous(), masked(values, fraction)
            if method in (ADAM, PUBLISHED) and decoder.affine and timed_steps < ADAM_STEPS:
                few = partial(descend, decoder, x, u, timed_steps, False, method == PUBLISHED)
                seconds = process_seconds(few, repeats)[0] * (ADAM_STEPS + 1) / (timed_steps + 1)
                codes = descend(decoder, seen_x, seen_u, ADAM_STEPS, closed=True)
            else:
                seconds, codes = process_seconds(partial(encode, x, u), repeats)
            with torch.no_grad():
                decoded = normalisation.invert(decoder(points, codes.float()))
            rows.append(
                {"data": data, "decoder": name, "encoding": method, "points": fraction, "frames": len(values)}
                | {"seconds": seconds, "mse": float((decoded - truth).square().mean()), "code_size": decoder.code_size}
            )
    return rows


def masked(u: Tensor, fraction: float) -> Tensor:
    """Values (F, N, C), NaN where `seen_part` leaves them out."""
    hidden = torch.ones(u.shape[:2], dtype=torch.bool)
    for i, row in enumerate(hidden):
        row[torch.as_tensor(observed_points(0, i, u.shape[1], fraction))] = False
    return torch.where(hidden[..., None], torch.nan, u)


def compare(rows: list[dict[str, Any]]) -> None:
    """Add to every row how it stands against Adam on DINo's net, at the observed points and as its code does it."""
    for row in rows:
        for other in rows:
            if other["decoder"] != DINO or any(other[key] != row[key] for key in ("data", "points")):
                continue
            if other["encoding"] == ADAM:
                row["times_faster"] = other["seconds"] / row["seconds"]
                row["error_ratio"] = row["mse"] / other["mse"]
            elif other["encoding"] == PUBLISHED:
                row["times_faster_published"] = other["seconds"] / row["seconds"]


def table(rows: list[dict[str, Any]]) -> str:
    keys = ("data", "decoder", "encoding", "points", "seconds", "mse")
    keys += ("times_faster", "times_faster_published", "error_ratio")
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
