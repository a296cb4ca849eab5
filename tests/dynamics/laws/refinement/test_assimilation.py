"""Coefficients and initial codes of noisy segments together."""

import numpy as np
import torch
from scipy.optimize import least_squares

from inrflow.domains import NATURAL, Box
from inrflow.dynamics.laws import Law
from inrflow.dynamics.laws.law import Segments, segments
from inrflow.dynamics.laws.refinement.assimilation import Assimilation
from inrflow.dynamics.laws.refinement.rollouts import Refinement
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.encoding.harmonic_codes import HarmonicCodes

LINE = Box([0.0], [1.0], ["walled"])
LAP, CUBE = Term((((0, VALUE),),), 1), Term((((0, VALUE),) * 3,))
CODES, NOISE = 8, 0.08
VARIANCE = (1 / (1 + np.arange(CODES)) ** 1.5)[None] ** 2


def _law(diffusion: float = 0.03, reaction: float = -0.8) -> Law:
    """u_t = diffusion u_xx + reaction u^3."""
    codes = HarmonicCodes(LINE.harmonics(CODES), np.zeros((1, CODES)), VARIANCE)
    return Law(LINE, NATURAL, (LAP, CUBE), np.array([[diffusion], [reaction]]), np.zeros((2, 1)), codes, max_step=0.05,
               largest=10.0)


def _noisy(trajectories: int, frames: int, seed: int) -> Segments:
    """Codes that are encoded from noisy solutions of u_t = 0.02 u_xx - u^3."""
    generator, field = np.random.default_rng(seed), _law(0.02, -1.0).field()
    z = [torch.tensor(generator.standard_normal((trajectories, CODES)) * np.sqrt(VARIANCE))]
    for _ in range(frames - 1):
        z.append(field.advance(z[-1], 0.1, 8))
    seen = torch.stack(z, 1).numpy()[:, :, None]
    seen = seen + NOISE * generator.standard_normal(seen.shape)
    spread = np.broadcast_to(1 / (1 / NOISE**2 + 1 / VARIANCE), (trajectories, 1, CODES))
    t = np.tile(np.arange(frames) * 0.1, (trajectories, 1))
    return segments(t, seen * (spread[:, None] / NOISE**2), spread, frames - 1)


def test_assimilation_ends_where_dense_least_squares_of_all_unknowns_ends() -> None:
    """Unknown are initial codes that points determine, six of eight; the others keep their values."""
    data, told = _noisy(5, 7, 0), 6
    others = data.codes[:, 0, told:].clone()
    assimilation = Assimilation(_law(0.06, -0.2), data, np.arange(CODES)[None] < told, 20.0)
    law = assimilation.run()
    variance = assimilation._variances(assimilation._path(law))

    def missed(*unknown: np.ndarray) -> np.ndarray:
        """Residuals (U, R) at points of unknowns (2 + 5 * told,) with the same coefficients, the first two."""
        first = torch.tensor(np.stack(unknown)[:, 2:].reshape(-1, 5, told))
        path = [torch.cat([first, others.expand(len(first), -1, -1)], 2).flatten(0, 1)]
        field = law.field().at(torch.tensor(unknown[0][:2, None]))
        for _ in range(6):
            path.append(field.advance(path[-1], 0.1, 2))
        left = (torch.stack(path, 1).unflatten(0, (-1, 5)) - assimilation.target)[..., :told]
        weighted = left[:, :, 1:] / variance.sqrt()[..., :told]
        return np.concatenate([weighted.flatten(1).numpy(), left[:, :, 0].flatten(1).numpy() / NOISE], 1)

    def slopes(unknown: np.ndarray) -> np.ndarray:
        steps = 1e-7 * np.eye(len(unknown))
        moved = np.concatenate([*(missed(unknown + step) for step in steps[:2]), missed(*(unknown + steps[2:]))])
        return (moved - missed(unknown)).T / 1e-7

    start = np.concatenate([[0.06, -0.2], data.codes[:, 0, :told].flatten().numpy()])
    best = least_squares(lambda unknown: missed(unknown)[0], start, slopes, x_scale="jac")
    std = np.sqrt(np.diag(np.linalg.inv(best.jac.T @ best.jac)))
    assert (np.abs(law.theta[:, 0] - best.x[:2]) < 0.33 * std[:2]).all()  # where it ends
    first = assimilation.data.codes[:, 0]
    assert (np.abs(first[:, :told].flatten().numpy() - best.x[2:]) < 0.33 * std[2:]).all()
    assert torch.equal(first[:, told:], others)
    assert np.abs((best.x[:2] - [0.06, -0.2]) / std[:2]).min() > 2  # it has gone far


def test_assimilated_coefficients_are_surer_than_those_of_filtered_flights() -> None:
    errors: dict[type, list[np.ndarray]] = {Assimilation: [], Refinement: []}
    for seed in range(3):
        data = _noisy(10, 16, seed)
        filtered = Refinement(_law(), data, np.ones((1, CODES)), 20.0, uncertain=True).run()
        assimilated = Assimilation(filtered, data, np.ones((1, CODES)), 20.0).run()
        for way, law in ((Refinement, filtered), (Assimilation, assimilated)):
            errors[way].append(law.theta[:, 0] / [0.02, -1.0] - 1)
    means = {way: np.square(values).mean() for way, values in errors.items()}
    assert means[Assimilation] < means[Refinement] < 0.2
