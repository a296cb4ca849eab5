"""Adaptation to new environments in the protocol of CoDA: one table, one JSON file, one picture.

    python benchmarks/adaptation.py [--out DIR] [--quick | --full] [--seeds N] [--seconds S] [--problems NAME ...]

Environments of Gray-Scott (feed and kill rate) and of Navier-Stokes (viscosity) at 32 x 32; the training environments,
the new ones, horizon and time steps are those of Kirchmeyer et al. (2022). The decoder is fitted once; every method
then sees the same codes (declared symmetries included), the same integrator and the same time, and adapts to each new
environment from one trajectory of it. How to read the result: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from inrflow.adaptation.baseline_training import BaselineSettings, EnvironmentCodes, adapt, fit
from inrflow.adaptation.network_baselines import METHODS, Leads, NetworkShape
from inrflow.data.source import TrajectorySource
from inrflow.data.trajectories import TrajectoryFile
from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.integrate import Integrator
from inrflow.dynamics.states import CodeData
from inrflow.dynamics.time_scale import TimeScale
from inrflow.encoding.gaussian import GaussianPrior
from inrflow.pdes.generate import generate
from inrflow.training.decoder_stage import Augmentation, DecoderTraining
from inrflow.training.dynamics_stage import encode_trajectories
from inrflow.training.recorder import Recorder

HARMONICS = 6


@dataclass(frozen=True)
class Problem:
    """Environments of one equation.

    parameters: of the training environments and of the new ones. trajectories: of each training environment. code_size:
    codes kept. step: largest step of the integrator, in frames. leads: weight and lipschitz of LEADS' penalty.
    """

    name: str
    training: dict[str, list[float]]
    new: dict[str, list[float]]
    trajectories: int
    code_size: int
    step: float
    leads: tuple[float, float]

    @property
    def environments(self) -> int:
        return len(next(iter(self.training.values())))

    @property
    def new_environments(self) -> int:
        return len(next(iter(self.new.values())))


@dataclass(frozen=True)
class Size:
    """How large a run is: seconds for each method, test trajectories of each environment, copies, seeds, width."""

    name: str
    seconds: float
    tests: int
    copies: int
    seeds: int
    width: int
    adaptation_steps: int


SIZES = {
    "quick": Size("quick", 2.0, 2, 4, 1, 64, 20),
    "reduced": Size("reduced", 90.0, 8, 32, 1, 256, 200),
    "full": Size("full", 900.0, 32, 64, 3, 512, 500),
}

PROBLEMS = {
    "gray_scott": Problem(
        "gray_scott",
        {"feed": [0.03, 0.039, 0.03, 0.039], "kill": [0.062, 0.058, 0.058, 0.062]},
        {"feed": [0.033, 0.033, 0.036, 0.036], "kill": [0.059, 0.061, 0.059, 0.061]},
        trajectories=1,
        code_size=256,
        step=0.5,
        leads=(1e-3, 1e-2),
    ),
    "navier_stokes": Problem(
        "navier_stokes",
        {"viscosity": [8e-4, 9e-4, 1e-3, 1.1e-3, 1.2e-3]},
        {"viscosity": [8.5e-4, 9.5e-4, 1.05e-3, 1.15e-3]},
        trajectories=16,
        code_size=128,
        step=1.0,
        leads=(1e-5, 1e-4),
    ),
}


@dataclass
class Test:
    """Trajectories of one environment: their codes, and the fields (S, T, N, C) they come from, in data units."""

    codes: CodeData
    u: Tensor
    decode: Callable[[Tensor], Tensor]

    def error(self, field: nn.Module, integrator: Integrator) -> float:
        """Mean squared error of the forecast of all frames from the code of the first, data units."""
        with torch.no_grad():
            start = self.codes.codes[:, 0].to(torch.float32)
            forecast = integrator(field, start, self.codes.t, check=False).double()
        value = float((self.decode(forecast) - self.u).square().mean())
        return value if value == value else float("inf")

    def floor(self) -> float:
        """Error of the decoder itself: every frame encoded and decoded."""
        return float((self.decode(self.codes.codes) - self.u).square().mean())


@dataclass
class Prepared:
    """Codes that every method shares.

    training, held: of the training environments (held-out trajectories choose the state of training). adaptation: for
    each new environment, one trajectory and its symmetry copies. tests, new_tests: fields and codes to forecast.
    """

    training: EnvironmentCodes
    held: EnvironmentCodes
    adaptation: list[CodeData]
    tests: list[Test]
    new_tests: list[Test]
    integrator: Integrator
    seconds: float
    floor: float
    new_floor: float
    left_out: float


def prepare(problem: Problem, size: Size, seed: int, folder: Path, trajectories: int) -> Prepared:
    """Generate the data, fit the decoder to the training trajectories, and encode everything."""
    begun = time.process_time()
    E = problem.environments

    def data(name: str, parameters: dict[str, list[float]], count: int, stream: int) -> TrajectoryFile:
        path = folder / f"{problem.name}_{name}.h5"
        generate(
            problem.name, path, trajectories=count * len(next(iter(parameters.values()))), protocol="coda",
            parameters=parameters, seed=10 * seed + stream, overwrite=True,
        )
        return TrajectoryFile(path)

    source = TrajectorySource(data("training", problem.training, trajectories, 0))
    held = TrajectorySource(data("held", problem.training, 2, 1))
    tests = TrajectorySource(data("tests", problem.training, size.tests, 2))
    new = TrajectorySource(data("new", problem.new, 1 + size.tests, 3))
    every = np.arange(len(source))
    normalisation = source.fit_normalisation(every)
    for other in (held, tests, new):
        other.normalisation = normalisation
    file, description = source.file, source.description
    extent = file.box[1] - file.box[0]
    moves = Augmentation(description.symmetries, extent, description.period, normalisation.scale)
    low, high = file.box
    embedding = make_embedding(low.tolist(), high.tolist(), description.period, description.geometry, 2, HARMONICS)
    decoder = ModulatedSiren(embedding, len(description.channels), 1, 0, 0).double()
    modes = DecoderTraining(source, every, every[:0], moves).fit_modes(decoder, problem.code_size)
    decoder.set_output(modes.mean, modes.modes)
    prior, scale = modes.prior(), TimeScale.of(source.times)

    def encoded(of: TrajectorySource, rows: np.ndarray, copies: int = 1) -> CodeData:
        parts = [encode_trajectories(of, decoder, prior, rows, scale)]
        if copies > 1:
            parts.append(
                encode_trajectories(of, decoder, prior, np.tile(rows, copies - 1), scale, moves, seed=seed)
            )
        return CodeData.join(parts)

    def decode(codes: Tensor) -> Tensor:
        offset, basis = decoder.basis(source.batch([0]).x[0, 0].double())
        return normalisation.invert(offset + torch.einsum("ncz,stz->stnc", basis, codes)).detach()

    def test(of: TrajectorySource, environments: int, first: int) -> list[Test]:
        found = []
        for e in range(environments):
            rows = np.arange(len(of))[first * environments + e :: environments]
            found.append(Test(encoded(of, rows), of.batch(rows, normalised=False).u.double(), decode))
        return found

    copies = max(2, round(size.copies / trajectories)) if trajectories > 1 else size.copies
    joined = encoded(source, every, copies)
    held_codes = encoded(held, np.arange(len(held)))
    judged, new_judged = test(tests, E, 0), test(new, problem.new_environments, 1)
    return Prepared(
        training=EnvironmentCodes(joined, torch.arange(len(joined.codes)) % E),
        held=EnvironmentCodes(held_codes, torch.arange(len(held_codes.codes)) % E),
        adaptation=[encoded(new, np.array([e]), size.copies) for e in range(problem.new_environments)],
        tests=judged,
        new_tests=new_judged,
        integrator=Integrator(step=problem.step),
        seconds=time.process_time() - begun,
        floor=float(np.mean([t.floor() for t in judged])),
        new_floor=float(np.mean([t.floor() for t in new_judged])),
        left_out=float(modes.noise.mean()),
    )


@dataclass
class Row:
    """What one method gave on one problem and seed: mean squared errors in data units over all frames."""

    problem: str
    method: str
    seed: int
    in_domain: float
    adapted: float
    mean_context: float
    adapted_numbers: int
    adaptation_seconds: float
    training_seconds: float


def baseline(
    method: str, problem: Problem, prepared: Prepared, size: Size, seed: int, recorder: Recorder, folder: Path
) -> Row:
    """Train one of the published methods and adapt it to each new environment."""
    torch.manual_seed(seed)
    shape = NetworkShape(prepared.training.data.codes.shape[-1], size.width)
    penalty = problem.leads if METHODS[method] is Leads else ()
    network = METHODS[method](shape, problem.environments, *penalty)
    settings = BaselineSettings(adaptation_steps=size.adaptation_steps, seed=seed)
    integrator = prepared.integrator
    folder = folder / method.replace(" ", "_")
    began = time.process_time()
    fit(network, prepared.training, prepared.held, integrator, settings, recorder, folder, size.seconds)
    trained = time.process_time()
    fields = [
        adapt(network, data, integrator, settings, recorder, folder / f"environment_{e}")
        for e, data in enumerate(prepared.adaptation)
    ]
    adapted = time.process_time()
    return Row(
        problem.name,
        method,
        seed,
        mean([test.error(network.of(e), integrator) for e, test in enumerate(prepared.tests)]),
        mean([test.error(field, integrator) for field, test in zip(fields, prepared.new_tests, strict=True)]),
        mean([test.error(network.mean(), integrator) for test in prepared.new_tests]),
        network.adapted_numbers,
        (adapted - trained) / len(fields),
        trained - began,
    )


def mean(values: list[float]) -> float:
    return float(np.mean(values))


def ours(problem: Problem, prepared: Prepared, size: Size, seed: int, recorder: Recorder, folder: Path) -> Row:
    """Contexts that are solved: alternating least squares first, then a residual trained with contexts solved anew."""
    raise NotImplementedError


def run(problem: Problem, size: Size, seed: int, folder: Path, methods: list[str], console: Console) -> list[Row]:
    """All methods on one problem and seed."""
    prepared = prepare(problem, size, seed, folder, problem.trajectories)
    Z = prepared.training.data.codes.shape[-1]
    console.print(
        f"{problem.name}, seed {seed}: {Z} codes, {len(prepared.training.data.codes)} training trajectories with "
        f"copies, decoder alone {prepared.floor:.2e} / {prepared.new_floor:.2e} (training / new environments), "
        f"{prepared.seconds:.0f} s", highlight=False,
    )
    rows = []
    for method in methods:
        with Recorder(folder, console) as recorder:
            if method == "ours":
                row = ours(problem, prepared, size, seed, recorder, folder / "ours")
            else:
                row = baseline(method, problem, prepared, size, seed, recorder, folder)
        console.print(as_table([row]).splitlines()[-1], highlight=False)
        rows.append(row)
    return rows


HEADER = ("problem", "method", "seed", "in domain", "adapted", "mean context", "numbers", "adapt s", "train s")


def as_table(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    lines = ["| " + " | ".join(HEADER) + " |", "| " + " | ".join("---" for _ in HEADER) + " |"]
    for row in rows:
        errors = (f"{value:.2e}" for value in (row.in_domain, row.adapted, row.mean_context))
        seconds = (f"{row.adaptation_seconds:.2f}", f"{row.training_seconds:.0f}")
        cells = (row.problem, row.method, str(row.seed), *errors, f"{row.adapted_numbers:,}", *seconds)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("adaptation"), help="folder for table, JSON and picture")
    parser.add_argument("--quick", action="store_true", help="a check of a minute that everything runs")
    parser.add_argument("--full", action="store_true", help="three seeds, all test trajectories, wide networks")
    parser.add_argument("--seeds", type=int, help="how many seeds")
    parser.add_argument("--seconds", type=float, help="of training for each method")
    parser.add_argument("--problems", nargs="+", choices=sorted(PROBLEMS), default=sorted(PROBLEMS))
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, "ours"], default=[*METHODS, "ours"])
    options = parser.parse_args()
    size = SIZES["quick" if options.quick else "full" if options.full else "reduced"]
    size = replace(size, seconds=options.seconds or size.seconds, seeds=options.seeds or size.seeds)
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=200)
    rows: list[Row] = []
    for seed in range(size.seeds):
        for name in options.problems:
            with tempfile.TemporaryDirectory() as folder:
                rows += run(PROBLEMS[name], size, seed, Path(folder), options.methods, console)
    print(as_table(rows))


if __name__ == "__main__":
    main()
