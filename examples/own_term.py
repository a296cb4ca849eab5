"""A term of one's own in the vector field: `python examples/own_term.py`.

Waves keep their energy. A term that turns the code without changing its norm builds that in; it is trained by descent
on rollouts, saved by its name and loaded again.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import inrflow
from inrflow.pdes.generate import generate
from inrflow.training.parts.decoder import fit_decoder


@inrflow.register_term("skew")
class SkewTerm(inrflow.FieldTerm):
    """(W - W^T) z: rotations."""

    degree = 1

    def __init__(self, state_size: int) -> None:
        super().__init__()
        self.state_size = state_size
        self.weight = nn.Parameter(torch.zeros(state_size, state_size))

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        return z @ (self.weight - self.weight.T).T


def skew_field(size: int) -> inrflow.VectorField:
    """A vector field of this term alone."""
    return inrflow.VectorField(size, [SkewTerm(size)])


def main(
    folder: str | Path = "own_term", *settings: str, grid: int = 32, trajectories: int = 32
) -> inrflow.Surrogate:
    """The surrogate, saved and loaded. `settings`: as on the command line."""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    train = generate("wave", home / "train.h5", trajectories=trajectories, grid=grid, dimensions=1, overwrite=True)
    problem = inrflow.Problem.open(train, "decoder.code_size=16", *settings)
    recipe = inrflow.NeuralRecipe(field=skew_field, decoder=fit_decoder)
    inrflow.fit(problem, [recipe]).save(home / "run")
    return inrflow.Surrogate.load(home / "run")


if __name__ == "__main__":
    surrogate = main("own_term", "training.minutes=1")
    state = surrogate.prior.mean[None] + torch.randn(1, surrogate.code_size, dtype=torch.float64)
    path = surrogate.integrator(surrogate.field, state, torch.arange(20, dtype=torch.float64))
    print(surrogate)
    print("norm of the code along 20 frames:", ", ".join(f"{v:.4f}" for v in path[0].norm(dim=1)[::5].tolist()))
