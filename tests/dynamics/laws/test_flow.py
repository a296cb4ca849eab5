"""Laws of flows against finite differences, conservation of energy, and coefficients that were put in."""

import numpy as np
import pytest
import torch

from inrflow.decoders.domain_harmonics import DomainHarmonicDecoder
from inrflow.domains import NO_SLIP, Flows
from inrflow.domains.triangulation import grid_mesh
from inrflow.dynamics.laws import Law, fit_law
from inrflow.dynamics.laws.flow import TRANSPORT, VISCOSITY, FlowField, FlowLibrary
from inrflow.dynamics.laws.law import segments
from inrflow.dynamics.laws.refinement.assimilation import Assimilation
from inrflow.encoding.harmonic_codes import HarmonicCodes

_AXIS = np.linspace(0, 1, 7)


@pytest.fixture(scope="module")
def flows() -> Flows:
    """Flows in a square whose upper wall moves."""
    x = np.stack(np.meshgrid(np.linspace(0, 1, 13), np.linspace(0, 1, 13)), -1).reshape(-1, 2)
    lid = np.sin(np.pi * x[:, :1]) ** 2 * np.stack([x[:, 1] ** 2 * (3 * x[:, 1] - 2), 0 * x[:, 1]], 1)
    found = Flows(*grid_mesh(_AXIS, _AXIS), np.ones(2)).with_steady(x, np.array([1.0, 2.0])[:, None, None, None] * lid)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def field(flows: Flows) -> FlowField:
    library = FlowLibrary([VISCOSITY, TRANSPORT], flows.harmonics(30))
    return FlowField(library, torch.tensor([[0.01], [-1.0]], dtype=torch.float64))


def _states(count: int, size: int) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(0).standard_normal((count, size)) / (1 + np.arange(size)))


def test_rates_are_the_sum_of_features_and_steady_codes_stay(field: FlowField) -> None:
    z = _states(3, 30)
    rate = field(0.0, z)
    sums = torch.einsum("bjk,j->bk", field.library.features(z[:, None], 30), field.theta[:, 0])
    torch.testing.assert_close(rate, sums)
    assert field.library.free == 29 and bool((rate[:, 29:] == 0).all())
    assert bool((field.advance(z, 0.5, 4)[:, 29:] == z[:, 29:]).all())


def test_slopes_agree_with_finite_differences(field: FlowField) -> None:
    z, delta = _states(2, 30), 1e-6
    moved = (z[:, None] + delta * torch.eye(30)).flatten(0, 1)[:, None]
    slopes = (field.products(moved)[:, 0].reshape(2, 30, 30) - field.products(z[:, None])) / delta
    torch.testing.assert_close(field.slopes(z, 30), slopes.mT, atol=1e-4, rtol=1e-4)


def test_transport_between_resting_walls_conserves_energy(field: FlowField) -> None:
    z = _states(4, 30)
    z[:, 29:] = 0
    rate = field.library.transport(z)
    gain = (z * rate).sum(1) / (z.norm(dim=1) * rate.norm(dim=1))
    assert float(gain.abs().max()) < 0.1  # divergence vanishes weakly


def test_viscosity_and_transport_are_found_in_flows_of_several_lids(flows: Flows) -> None:
    library = FlowLibrary([VISCOSITY, TRANSPORT], flows.harmonics(38))  # as many as the search takes
    field = FlowField(library, torch.tensor([[0.01], [-1.0]], dtype=torch.float64))
    t = np.arange(9) * 0.05
    x = np.stack(np.meshgrid(np.linspace(0, 1, 13), np.linspace(0, 1, 13)), -1).reshape(-1, 2)
    path = [_states(10, 38)]
    path[0][:, 37] = torch.linspace(0.5, 1.5, 10).double()
    for _ in t[1:]:
        path.append(field.advance(path[-1], 0.05, 4))
    u = (torch.stack(path, 1).numpy() @ flows.harmonics(38).values(x).T).reshape(10, 9, -1, 2)
    law = fit_law(t, x, u, flows, seconds=2.0)
    found = dict(zip(law.terms, law.theta[:, 0], strict=True))
    np.testing.assert_allclose([found[VISCOSITY], found[TRANSPORT]], [0.01, -1.0], rtol=6e-2)
    assert law.written(["(u, v)"])[0].startswith("d(u, v)/dt = ")
    np.testing.assert_allclose(law.decode(law.encode(x, u), x), u, atol=1e-5)


def test_coefficients_and_first_codes_of_noisy_flows_are_found(flows: Flows, field: FlowField) -> None:
    noise, z = 0.02, [_states(6, 30)]
    for _ in range(7):
        z.append(field.advance(z[-1], 0.2, 4))
    seen = torch.stack(z, 1).numpy()[:, :, None]
    seen = seen + noise * np.random.default_rng(1).standard_normal(seen.shape)
    t, spread = np.tile(np.arange(8) * 0.2, (6, 1)), np.full((6, 1, 30), noise**2)
    codes = HarmonicCodes(flows.harmonics(30), np.zeros((1, 30)), np.full((1, 30), 1.0))
    start = Law(flows, NO_SLIP, (VISCOSITY, TRANSPORT), np.array([[0.02], [-0.7]]), np.zeros((2, 1)), codes,
                max_step=0.05, largest=10.0)
    law = Assimilation(start, segments(t, seen, spread, 7), np.ones((1, 30)), 20.0).run()
    np.testing.assert_allclose(law.theta[:, 0], [0.01, -1.0], rtol=0.05)


def test_the_decoder_of_flows_gives_both_components_and_their_slopes(flows: Flows) -> None:
    decoder = DomainHarmonicDecoder(flows.state(), NO_SLIP, 30, 2)
    x, z = torch.tensor(np.random.default_rng(0).uniform(0.1, 0.9, (7, 2))), _states(3, 30)
    harmonics = flows.harmonics(30)
    values = (z.numpy() @ harmonics.values(x.numpy()).T).reshape(3, 7, 2)
    np.testing.assert_allclose(decoder(x.float().expand(3, 7, 2), z.float()).detach(), values, atol=1e-5)
    slopes = np.einsum("bk,nckd->bncd", z.numpy(), harmonics.gradients(x.numpy()).reshape(7, 2, 30, 2))
    np.testing.assert_allclose(decoder.slopes(x.float().expand(3, 7, 2), z.float()).detach(), slopes, atol=1e-3)
    assert decoder.code_size == 30 and not decoder.code_per_channel
