"""Refinement of coefficients along rollouts of a law, exact and noisy."""

import numpy as np
import pytest
import torch

from inrflow.domains import NATURAL, Box
from inrflow.dynamics.laws import Law
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.law import segments
from inrflow.dynamics.laws.refinement.rollouts import Refinement
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.encoding.harmonic_codes import HarmonicCodes

LINE = Box([0.0], [1.0], ["walled"])
LAP, CUBE = Term((((0, VALUE),),), 1), Term((((0, VALUE),) * 3,))


def _paths(t: np.ndarray) -> np.ndarray:
    """Codes (20, T, 1, 12) of solutions of u_t = 0.02 u_xx - u^3 at times a tenth apart."""
    field = LawField.of([LAP, CUBE], LINE.harmonics(12), torch.tensor([[0.02], [-1.0]], dtype=torch.float64))
    z = [torch.tensor(np.random.default_rng(0).standard_normal((20, 12)) / (1 + np.arange(12)) ** 1.5)]
    for _ in t[1:]:
        z.append(field.advance(z[-1], 0.1, 8))
    return torch.stack(z, 1).numpy()[:, :, None]


def test_refinement_corrects_wrong_coefficients_of_noisy_flights() -> None:
    harmonics, t = LINE.harmonics(12), np.tile(np.arange(7) * 0.1, (20, 1))
    noise, variance = 0.01, (2 * 0.5 / (1 + np.arange(12)) ** 1.5)[None] ** 2
    paths = _paths(t[0])
    paths = paths + noise * np.random.default_rng(3).standard_normal(paths.shape)
    start = Law(LINE, NATURAL, (LAP, CUBE), np.array([[0.03], [-0.8]]), np.zeros((2, 1)),
                HarmonicCodes(harmonics, np.zeros((1, 12)), variance), max_step=0.05, largest=10.0)
    spread = np.full((20, 1, 12), noise**2)
    refinement = Refinement(start, segments(t, paths, spread, 3), np.ones((1, 12)), 5.0)
    refined = refinement.run()
    assert refinement.uncertain
    assert (np.abs(refined.theta[:, 0] - [0.02, -1.0]) < 4 * refined.std[:, 0]).all()
    assert (refined.std[:, 0] < [1e-3, 0.05]).all()


def test_filtered_flights_miss_coefficients_of_very_noisy_codes_by_less_than_plain_ones() -> None:
    harmonics, t, noise = LINE.harmonics(12), np.tile(np.arange(16) * 0.1, (20, 1)), 0.08
    variance = (1 / (1 + np.arange(12)) ** 1.5)[None] ** 2
    spread = np.broadcast_to(1 / (1 / noise**2 + 1 / variance), (20, 1, 12))
    start = Law(LINE, NATURAL, (LAP, CUBE), np.array([[0.03], [-0.8]]), np.zeros((2, 1)),
                HarmonicCodes(harmonics, np.zeros((1, 12)), variance), max_step=0.05, largest=10.0)
    exact = _paths(t[0])
    found: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(4):
        noisy = exact + noise * np.random.default_rng(seed).standard_normal((20, 16, 1, 12))
        data = segments(t, noisy * (spread[:, None] / noise**2), spread, 15)
        for uncertain, values in found.items():
            refinement = Refinement(start, data, np.ones((1, 12)), 5.0, uncertain=uncertain)
            law = refinement.run()
            values.append(law.theta[0, 0])
            if refinement.gains is not None:  # surer codes are corrected less
                assert (refinement.gains.diff(dim=1) <= 0).all() and float(refinement.gains[:, -1].max()) < 0.3
                assert (np.abs(law.theta[:, 0] - [0.02, -1.0]) < 3 * law.std[:, 0]).all()
    assert abs(np.mean(found[True]) - 0.02) < 0.6 * abs(np.mean(found[False]) - 0.02)


def test_steps_are_longer_than_slopes_of_waves_ask_for_that_are_wrong_by_whole_turns() -> None:
    ring, dispersion = Box([0.0], [1.0], ["periodic"]), Term((((0, VALUE),),), 1, axis=0)
    harmonics, t, noise = ring.harmonics(33), np.tile(np.arange(9) * 0.1, (40, 1)), 0.03
    variance = 1 / (1 + np.arange(33)[None]) ** 2.0
    waves = LawField.of([dispersion], harmonics, torch.tensor([[-1e-3]], dtype=torch.float64))
    z = [torch.tensor(np.random.default_rng(0).standard_normal((40, 33)) * variance**0.5)]
    for _ in t[0, 1:]:
        z.append(waves.advance(z[-1], 0.1, 1))
    noisy = torch.stack(z, 1).numpy()[:, :, None] + noise * np.random.default_rng(1).standard_normal((40, 9, 1, 33))
    spread = np.broadcast_to(1 / (1 / noise**2 + 1 / variance), (40, 1, 33))
    start = Law(ring, NATURAL, (dispersion,), np.array([[-1.05e-3]]), np.zeros((1, 1)),
                HarmonicCodes(harmonics, np.zeros((1, 33)), variance), max_step=0.1, largest=20.0)
    data = segments(t, noisy * spread[:, None] / noise**2, spread, 8)
    refinement = Refinement(start, data, np.ones((1, 33)), 5.0)
    path, missed = refinement._path_and_variance(start)
    _, step = refinement._linearised(start, path, missed)
    longer, _ = refinement._line_search(start, missed, step, float(refinement._misfit(path, missed).sum()))
    plain = refinement._after_step(start, step)
    assert abs(longer.theta[0, 0] + 1e-3) < 0.3 * abs(plain.theta[0, 0] + 1e-3)


def test_flights_that_diverge_are_left_out() -> None:
    harmonics, t = LINE.harmonics(12), np.tile(np.arange(7) * 0.1, (20, 1))
    paths = _paths(t[0])
    paths[3] *= 1e3  # whose cubes no step resolves
    start = Law(LINE, NATURAL, (LAP, CUBE), np.array([[0.025], [-0.9]]), np.zeros((2, 1)),
                HarmonicCodes(harmonics, np.zeros((1, 12)), np.ones((1, 12))), max_step=0.05, largest=10.0)
    refinement = Refinement(start, segments(t, paths, np.full((20, 1, 12), 1e-12), 6), np.ones((1, 12)), 5.0)
    refined = refinement.run()
    assert len(refinement.data.codes) == 19
    assert np.allclose(refined.theta[:, 0], [0.02, -1.0], rtol=1e-3)


@pytest.mark.parametrize("max_step", [0.05, np.inf])
def test_a_law_whose_flights_all_diverge_is_left_as_it_is(max_step: float) -> None:
    harmonics, t = LINE.harmonics(12), np.tile(np.arange(7) * 0.1, (20, 1))
    start = Law(LINE, NATURAL, (LAP, CUBE), np.array([[0.025], [-0.9]]), np.zeros((2, 1)),
                HarmonicCodes(harmonics, np.zeros((1, 12)), np.ones((1, 12))), max_step=max_step, largest=10.0)
    every = segments(t, 1e3 * _paths(t[0]), np.full((20, 1, 12), 1e-12), 6)
    assert Refinement(start, every, np.ones((1, 12)), 5.0).run() is start


def test_refinement_says_where_even_few_flights_take_longer_than_the_time() -> None:
    harmonics, t = LINE.harmonics(12), np.tile(np.arange(7) * 0.1, (20, 1))
    start = Law(LINE, NATURAL, (LAP, CUBE), np.array([[0.03], [-0.8]]), np.zeros((2, 1)),
                HarmonicCodes(harmonics, np.zeros((1, 12)), np.ones((1, 12))), max_step=0.05, largest=10.0)
    every = segments(t, _paths(t[0]), np.full((20, 1, 12), 1e-4), 6)
    assert not Refinement(start, every, np.ones((1, 12)), 60.0).too_slow
    assert Refinement(start, every, np.ones((1, 12)), 1e-4).too_slow


def test_standard_errors_hold_the_true_coefficients_at_their_rate() -> None:
    terms, truth = (Term((((0, VALUE),),)), LAP, CUBE), np.array([0.0, 0.02, -1.0])
    harmonics, t, noise = LINE.harmonics(12), np.tile(np.arange(7) * 0.1, (20, 1)), 0.02
    exact, variance = _paths(t[0]), (1 / (1 + np.arange(12)) ** 1.5)[None] ** 2
    spread = np.broadcast_to(1 / (1 / noise**2 + 1 / variance), (20, 1, 12))
    start = Law(LINE, NATURAL, terms, np.array([[0.01], [0.025], [-0.9]]), np.zeros((3, 1)),
                HarmonicCodes(harmonics, np.zeros((1, 12)), variance), max_step=0.05, largest=10.0)
    missed = []
    for seed in range(12):
        noisy = exact + noise * np.random.default_rng(seed).standard_normal(exact.shape)
        data = segments(t, noisy * (spread[:, None] / noise**2), spread, 3)
        law = Refinement(start, data, np.ones((1, 12)), 5.0).run()
        missed.append((law.theta[:, 0] - truth) / law.std[:, 0])
    assert 0.75 <= (np.abs(missed) < 1.645).mean() <= 1.0 and np.square(missed).mean() > 0.2
    refinement = Refinement(start, data, np.ones((1, 12)), 5.0)
    law, (short, *_) = refinement.estimated(refinement.run())
    assert short.theta[0, 0] == 0 and short.theta[1:].all() and (short.std[1:] <= law.std[1:]).all()
