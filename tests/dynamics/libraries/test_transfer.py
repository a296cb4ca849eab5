"""What one physics knows of products serves another that is the same in other variables."""

import pytest
import torch
from spectral_systems import burgers, labels_of, random_operator

from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.spectral import SpectralFit
from inrflow.dynamics.libraries.transfer import ProductTransfer, transferred_form
from inrflow.dynamics.libraries.waves import SpectralOperator, Waves
from inrflow.dynamics.states import CodeData


def slopes(waves: Waves) -> torch.Tensor:
    return 1j * waves.vectors[:, 0].double()


def potential_form(waves: Waves) -> SpectralOperator:
    """Burgers' equation of a potential h, u = h_x: h_t = -.05 h_x^2 - .05 h."""
    k = torch.cat([slopes(waves), -slopes(waves)[1:]])
    twice = torch.where(waves.left == waves.right, 1.0, 2.0).double()
    weight = -0.05 * twice * k[waves.left] * k[waves.right] * (waves.out > 0)
    return SpectralOperator(
        torch.zeros(1, waves.count, dtype=torch.complex128),
        torch.full((waves.count, 1, 1), -0.05, dtype=torch.complex128), weight[None],
    )


def trajectories(operator: SpectralOperator, waves: Waves, count: int, seed: int) -> CodeData:
    start = torch.randn(count, len(waves.labels), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    start[:, 0] = 0
    times = 0.25 * torch.arange(9).double().expand(count, -1)
    codes = Integrator(step=0.05)(waves.field(operator), start, times).detach()
    return CodeData(codes, times, torch.ones(count, 9, dtype=torch.bool))


def test_burgers_serves_its_potential_form() -> None:
    """h_x is a velocity: from one trajectory of h the products of Burgers' equation tell more than h alone does."""
    labels = labels_of(1, 1, 5)
    waves = Waves(labels)
    truth = potential_form(waves)
    taught, judged = trajectories(truth, waves, 1, 1), trajectories(truth, waves, 3, 2)
    known = burgers(waves)

    def source(some):  # noqa: ANN001, ANN202
        inner = Waves(some)
        return inner, inner.operator(waves.field(known)) if len(some) == len(labels) else known

    found = transferred_form(taught, labels, [len(labels)], source, judged, 0)
    scratch = SpectralFit(taught, labels).search(judged, 0)
    assert found is not None and scratch is not None
    assert found.score < 1e-4
    assert found.score < scratch.score / 10


@pytest.mark.parametrize(("channels", "sources"), [(1, 2), (2, 1)])
def test_transferred_products_are_those_of_mapped_coefficients(channels: int, sources: int) -> None:
    """With V = E U, the products of V by the known physics equal the products of U by the transferred weights."""
    labels = labels_of(channels, 1, 3)
    latent = Waves(labels_of(sources, 1, 3))
    source = random_operator(latent, 1.0)
    random = torch.Generator().manual_seed(3)
    codes = torch.randn(2, 4, len(labels), generator=random, dtype=torch.float64)
    data = CodeData(codes, torch.arange(4.0).double().expand(2, -1), torch.ones(2, 4, dtype=torch.bool))
    transfer = ProductTransfer(SpectralFit(data, labels), latent, source)
    maps = transfer.start(1)
    waves = transfer.waves
    inner = waves.coefficients(codes)
    every = torch.cat([maps, maps[..., 1:].conj()], -1)
    seen = torch.einsum("acl,stcl->stal", every, inner)
    nothing = latent.nothing()
    bare = SpectralOperator(nothing.constant, nothing.linear, source.products)
    expected = latent.rates(bare, seen, latent.products(seen))
    mine = waves.products(inner)[..., None, :] * transfer.products(maps)
    zero = torch.zeros(2, 4, sources, waves.count, dtype=torch.complex128)
    torch.testing.assert_close(zero.index_add(-1, waves.out, mine), expected)


def test_steps_lower_what_is_left() -> None:
    labels = labels_of(1, 1, 4)
    waves = Waves(labels)
    fit = SpectralFit(trajectories(potential_form(waves), waves, 2, 5), labels)
    transfer = ProductTransfer(fit, waves, burgers(waves))
    block, start = fit.gathered(None), transfer.start(0)
    before = transfer.improve(start, block, 0)[1]
    assert transfer.improve(start, block, 10)[1] < 0.1 * before
