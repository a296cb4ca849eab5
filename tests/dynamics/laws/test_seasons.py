"""Laws with a season: found in paths of an independent solver, and their flow, which depends on the time."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from inrflow.domains import Box
from inrflow.dynamics.laws import fit_law
from inrflow.dynamics.laws.term import LawTerm

CIRCLE, PERIOD = Box([0.0], [2 * np.pi], ["periodic"]), 2.3
X, T = np.arange(24)[:, None] / 24 * 2 * np.pi, 0.3 * np.arange(16)
WAVES = np.fft.fftfreq(24, 1 / 24) ** 2


def _rate(t: float, u: np.ndarray) -> np.ndarray:
    """u_t = .1 u_xx + u - u^3 + .8 cos(2 pi t / PERIOD) cos x + .3 sin(2 pi t / PERIOD) u."""
    angle = 2 * np.pi * t / PERIOD
    smooth = np.fft.ifft(-0.1 * WAVES * np.fft.fft(u)).real
    return smooth + u - u**3 + 0.8 * np.cos(angle) * np.cos(X[:, 0]) + 0.3 * np.sin(angle) * u


@pytest.fixture(scope="module")
def paths():
    generator = np.random.default_rng(0)
    starts = [sum(generator.standard_normal() * np.cos(m * X[:, 0] + generator.uniform(0, 6)) / (1 + m)
                  for m in range(5)) for _ in range(8)]
    offsets = generator.uniform(0, PERIOD, 8)
    u = [solve_ivp(_rate, (a, a + T[-1]), u, "LSODA", T + a, rtol=1e-9, atol=1e-11).y.T
         for a, u in zip(offsets, starts, strict=True)]
    return T + offsets[:, None], np.stack(u)[..., None]


@pytest.fixture(scope="module")
def found(paths):
    t, u = paths
    return fit_law(t[:6, :10], X, u[:6, :10], CIRCLE, seconds=1.5, period=PERIOD)


def test_forces_of_place_and_season_are_found(found, paths):
    t, u = paths
    (line, *_) = found.written(["u", "cos", "sin"])
    assert "lap u" in line and "u^3" in line and "u sin" in line and " cos (" in line
    term, z = LawTerm.of(found), found.encode(X, u[6:, 0])
    for n in range(T.size - 1):
        z = term.advance(z, torch.tensor(t[6:, n]), torch.tensor(t[6:, n + 1] - t[6:, n]), found.max_step)
    assert ((found.decode(z, X) - u[6:, -1]) ** 2).mean() < 1e-6 * u.var()  # what 24 points resolve


def test_the_linearised_flow_is_that_of_its_time(found, paths):
    t, u = paths
    term, z, one = LawTerm.of(found), found.encode(X, u[6:7, 3]), torch.ones(1).double()
    field = lambda s: term(one, s[None])[0]  # noqa: E731
    torch.testing.assert_close(term.jacobian(one, z)[0], torch.func.jacrev(field)(z[0]), rtol=1e-9, atol=1e-9)
    gap, moved = 0.01 * one, z + 1e-4 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).double()
    later = [term.advance(s, one, gap, 0.005) for s in (z, moved)]
    middle = term.advance(z, one, gap / 2, 0.005)
    flow = term.tangent_flow(middle, gap, one + gap / 2)[0]
    torch.testing.assert_close(later[1] - later[0], (moved - z) @ flow.T, rtol=1e-3, atol=1e-8)
