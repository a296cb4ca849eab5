"""A field on a circle whose harmonics turn and decay, and candidates for its dynamics: good ones and bad ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inrflow.data.description import Description
from inrflow.data.formats.writing import write_trajectories
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.dynamics.fields.linear import LinearTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.encode import CodeData
from inrflow.encoding.posterior import GaussianPrior
from inrflow.training.candidate import Candidate, Score
from inrflow.training.problem import Problem
from inrflow.training.run import Run

#: Of the coefficients of cosine and sine, by unit of time; frames are one unit apart.
RATES = torch.tensor([[-0.1, 0.5], [-0.5, -0.1]], dtype=torch.float64)
NOISE = 0.01


def write_rotations(path: Path, trajectories: int = 10, frames: int = 8, seed: int = 0, noise: float = NOISE) -> Path:
    """A data file of random starts (16 points), with white noise."""
    random = np.random.default_rng(seed)
    t, x = np.arange(float(frames)), np.arange(16)[:, None] / 16
    flow = torch.linalg.matrix_exp(RATES * torch.as_tensor(t)[:, None, None]).numpy()
    coefficients = np.einsum("tij,sj->sti", flow, random.normal(size=(trajectories, 2)))
    basis = np.concatenate([np.cos(2 * np.pi * x), np.sin(2 * np.pi * x)], 1)
    u = coefficients @ basis.T + noise * random.normal(size=(trajectories, frames, len(x)))
    write_trajectories(path, t, x, u[..., None].astype(np.float32), Description("rotations", ("u",), ("x",),
                                                                                period=(1.0,)))
    return path


def linear(matrix: Tensor = RATES) -> VectorField:
    """The field dz/dt = A z."""
    field = VectorField(len(matrix), [LinearTerm(len(matrix))]).double()
    field.set_linear(matrix, torch.zeros(len(matrix)))
    return field


def candidate(
    run: Run, matrix: Tensor = RATES, recipe: str = "stub", error: float = 1e-2, memory: bool = False, **changes: object
) -> Candidate:
    """A candidate with the rates `matrix`, not fitted, of the stated validation error.

    `memory`: with one number of memory, which moves nothing.
    """
    problem: Problem = run.problem
    decoder = HarmonicDecoder(problem.embedding(harmonics=1), 1).double()
    modes = torch.zeros(2, 1, 3)
    modes[0, 0, 1] = modes[1, 0, 2] = 1.0
    decoder.set_output(torch.zeros(1, 3), modes)
    prior = GaussianPrior(torch.zeros(2).double(), torch.eye(2).double(), torch.tensor([4e-4]).double())
    parts = []
    for rows in (problem.train, problem.validation):
        if not len(rows):
            continue
        codes = problem.codes(decoder, prior, rows)
        if memory:
            codes = CodeData(torch.cat([codes.codes, codes.codes[..., :1]], -1), codes.t, codes.observed)
        parts.append(codes)
    if memory:
        matrix = torch.block_diag(matrix, -torch.ones(1, 1).double())
    values: dict = {
        "problem": problem, "recipe": recipe, "name": f"rates of error {error:g}", "decoder": decoder,
        "code_prior": prior, "field": linear(matrix), "integrator": Integrator(step=0.5), "states": parts[0],
        "validation": parts[-1], "first": 0, "score": Score(error, 1e-4, 4), **changes,
    }
    return Candidate(**values)


def candidate_with_context(run: Run, **changes: object) -> Candidate:
    """A candidate whose field has the right rates at the context 1 alone, which all trajectories have; their prior has
    mean 0."""
    field = VectorField(2, [LinearTerm(2, 1)], 1).double()
    field.set_linear(torch.zeros(2, 2), torch.zeros(2))
    field.linear.set_context(RATES[None], torch.zeros(1, 2))
    one = candidate(run, **changes)
    data = []
    for codes in (one.states, one.validation):
        ones = torch.ones(*codes.codes.shape[:2], 1, dtype=torch.float64)
        data.append(CodeData(torch.cat([codes.codes, ones], -1), codes.t, codes.observed))
    contexts = torch.ones(len(run.problem.validation), 1, dtype=torch.float64)
    return replace(one, field=field, states=data[0], validation=data[1], context_size=1, contexts=contexts)


class Stub:
    """A recipe that proposes candidates of the given rates and errors, or does not apply for a reason."""

    def __init__(self, name: str, *proposals: tuple[Tensor, float], reason: str | None = None) -> None:
        self.name, self.proposals, self.reason = name, proposals, reason
        self.best_before: list[Candidate | None] = []

    def applies(self, problem: Problem, best: Candidate | None) -> str | None:
        self.best_before.append(best)
        return self.reason

    def propose(self, run: Run) -> Iterator[Candidate]:
        for matrix, error in self.proposals:
            yield candidate(run, matrix, self.name, error)
