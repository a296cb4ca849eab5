"""Pressures that follow from velocities, against the Taylor-Green vortex in a box with slippery walls."""

import numpy as np
import pytest
import torch

from inrflow.domains import NO_SLIP, Flows, Region
from inrflow.domains.triangulation import grid_mesh
from inrflow.dynamics.fitting.flow_pressure import with_pressure
from inrflow.dynamics.laws.flow import TRANSPORT, VISCOSITY
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.term import LawTerm
from inrflow.encoding.harmonic_codes import fit_codes

_VISCOSITY, _DENSITY, _SCALE = 0.02, 1.7, 2.0
_T = 0.2 * np.arange(6)


def vortex(x: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """Fields (S, T, N, 3) of pressure, over its scale, and velocities that decay from some amplitudes (S,)."""
    a, b = np.pi * x.T
    size = amplitudes[:, None, None] * np.exp(-2 * np.pi**2 * _VISCOSITY * _T[:, None])
    pressure = _DENSITY / 4 * (np.cos(2 * a) + np.cos(2 * b)) * size**2
    return np.stack([pressure / _SCALE, np.sin(a) * np.cos(b) * size, -np.cos(a) * np.sin(b) * size], -1)


@pytest.fixture(scope="module")
def found() -> tuple[Law, float, np.ndarray]:
    """The law with a pressure, its unexplained share, and points."""
    nodes, cells = grid_mesh(*[np.linspace(0, 1, 11)] * 2)
    x, generator = np.random.default_rng(0).random((200, 2)), np.random.default_rng(1)
    mesh = Region(nodes, cells, 2).basis.mesh
    facets = mesh.boundary_facets()
    middle = mesh.p[:, mesh.facets[:, facets]].mean(1)
    held = np.where(np.abs(middle - 0.5) > 0.5 - 1e-9, facets, -1)  # normal components
    flows, u = Flows(nodes, cells, np.ones(2), held=held), vortex(x, generator.uniform(0.5, 1.5, 6))
    places = np.broadcast_to(x, (6, *x.shape))
    law = Law(flows, NO_SLIP, (VISCOSITY, TRANSPORT), np.array([[_VISCOSITY], [-1.0]]), np.zeros((2, 1)),
              fit_codes(flows.harmonics(20), places, u[..., 1:]), max_step=0.05)
    whole = with_pressure(law, _T, places, u, [1, 2], _SCALE)
    assert whole is not None
    assert with_pressure(law, _T, places, generator.standard_normal(u.shape), [1, 2], _SCALE) is None
    return *whole, x


def test_the_density_and_the_pressure_of_a_vortex_are_found(found: tuple[Law, float, np.ndarray]) -> None:
    law, share, x = found
    assert share < 1e-3 and law.values is not None and not isinstance(law.domain, Region)
    assert law.values[law.terms.index(TRANSPORT), 0] == pytest.approx(_DENSITY, rel=1e-2)
    u = vortex(x, np.array([1.2]))
    path = law.rollout(law.encode(x, u[:, 0]), _T)
    np.testing.assert_allclose(law.decode(path, x), u, atol=2e-2)


def test_rates_and_tangent_flows_of_pressures_follow_from_velocities(found: tuple[Law, float, np.ndarray]) -> None:
    law, _, x = found
    term, z = LawTerm.of(law), law.encode(x, vortex(x, np.array([1.2]))[:, 2])
    z = law.field().bounded(z, 1e-9, 0.05, np.inf)
    rate, step, gap = term(torch.zeros(()), z), 1e-4, torch.tensor([0.01])
    ahead = [law.field().bounded(z, sign * step, 0.05, np.inf) for sign in (1, -1)]
    torch.testing.assert_close(rate, (ahead[0] - ahead[1]) / (2 * step), atol=2e-3 * float(rate.norm()), rtol=0.0)
    jacobian = torch.func.jacrev(lambda one: term(torch.zeros(()), one[None])[0])(z[0])
    velocities = slice(0, law.codes.harmonics.free)
    torch.testing.assert_close(term.jacobian(torch.zeros(()), z)[0][:, velocities], jacobian[:, velocities],
                               atol=2e-3 * float(jacobian.abs().max()), rtol=0.0)
    flow, move = term.tangent_flow(z, gap, torch.zeros(1))[0], 1e-4 * torch.eye(z.shape[1]).double()[0]
    moved = [law.field().bounded(z + sign * move, 0.01, 0.01, np.inf)[0] for sign in (1, -1)]
    torch.testing.assert_close(flow[:, 0], (moved[0] - moved[1]) / 2e-4, atol=2e-2 * float(flow.abs().max()), rtol=0.0)
