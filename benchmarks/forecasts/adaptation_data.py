"""Data of the adaptation benchmark: environments as published, one decoder, and the codes that every method shares."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.baselines.training import EnvironmentCodes
from inrflow.data.batch import TimeScale
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.source import TrajectorySource
from inrflow.data.transformations import Augmentation
from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.encode import CodeData, encode
from inrflow.pdes.generate import generate
from inrflow.training.parts.trunk import DecoderTraining

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
    """How large a run is.

    seconds: of training for each method. tests: trajectories of each environment. copies: under random symmetries, of
    trajectories of training and adaptation. width: of the networks. adaptation_steps: of the baselines.
    most_trajectories: of a training environment. minutes: of our training.
    """

    name: str
    seconds: float
    tests: int
    copies: int
    seeds: int
    width: int
    adaptation_steps: int
    most_trajectories: int = 16
    minutes: float = 2.0


SIZES = {
    "quick": Size("quick", 1.0, 1, 4, 1, 64, 10, most_trajectories=2, minutes=0.1),
    "reduced": Size("reduced", 15.0, 4, 16, 3, 256, 60),
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
    files: what all of it comes from, by name; a training environment's rows are as far apart as there are of them.
    """

    files: dict[str, TrajectorySource]
    training: EnvironmentCodes
    held: EnvironmentCodes
    adaptation: list[CodeData]
    tests: list[Test]
    new_tests: list[Test]
    integrator: Integrator
    seconds: float
    floor: float
    new_floor: float


def prepare(problem: Problem, size: Size, seed: int, folder: Path) -> Prepared:
    """Generate the data, fit the decoder to the training trajectories, and encode everything."""
    begun = time.process_time()
    E, trajectories = problem.environments, min(problem.trajectories, size.most_trajectories)

    def data(name: str, parameters: dict[str, list[float]], count: int, stream: int) -> TrajectoryFile:
        path = folder / f"{problem.name}_{name}.h5"
        generate(
            problem.name,
            path,
            trajectories=count * len(next(iter(parameters.values()))),
            protocol="coda",
            parameters=parameters,
            seed=10 * seed + stream,
            overwrite=True,
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
    moves = Augmentation(description.symmetries, extent, description.period)
    low, high = file.box
    embedding = make_embedding(low.tolist(), high.tolist(), description.period, description.geometry, 2, HARMONICS)
    decoder = HarmonicDecoder(embedding, len(description.channels)).double()
    modes = DecoderTraining(source, every, every[:0], moves).fit_modes(
        decoder, problem.code_size, trajectories=48, iterations=3
    )
    decoder.set_output(modes.mean, modes.modes)
    prior, scale = modes.prior(), TimeScale.of(source.times)

    def encoded(of: TrajectorySource, rows: np.ndarray, copies: int = 1) -> CodeData:
        random, parts = np.random.default_rng([seed, 17]), []
        for some, moved in ((rows, None), (np.tile(rows, copies - 1), moves))[:copies]:
            batch = of.moved(some, moved, random)
            parts.append(CodeData(encode(decoder, batch, prior), scale.internal(batch.t), batch.observed))
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
        files={"training": source, "held": held, "tests": tests, "new": new},
        training=EnvironmentCodes(joined, torch.arange(len(joined.codes)) % E),
        held=EnvironmentCodes(held_codes, torch.arange(len(held_codes.codes)) % E),
        adaptation=[encoded(new, np.array([e]), size.copies) for e in range(problem.new_environments)],
        tests=judged,
        new_tests=new_judged,
        integrator=Integrator(step=problem.step),
        seconds=time.process_time() - begun,
        floor=float(np.mean([t.floor() for t in judged])),
        new_floor=float(np.mean([t.floor() for t in new_judged])),
    )
