"""Dynamics that commute with translations: the real field equals the complex one, and is found from few transitions."""

import pytest
import torch
from spectral_systems import burgers, labels_of, line_of_trajectories, random_operator

from inrflow.decoders.embeddings import make_embedding
from inrflow.dynamics.fields.quadratic import Couplings
from inrflow.dynamics.libraries.spectral import SpectralFit
from inrflow.dynamics.libraries.waves import Waves

_RANDOM = torch.Generator().manual_seed(0)


def test_codes_are_those_of_a_fourier_series() -> None:
    """The complex coefficients give the field that the harmonics give."""
    embedding = make_embedding([0.0, 0.0], [1.0, 1.0], [1.0, 1.0], None, 2, 2)
    labels = labels_of(1, 2, 2)
    waves = Waves(labels)
    codes = torch.randn(len(labels), generator=_RANDOM, dtype=torch.float64)
    x = torch.rand(5, 2, generator=_RANDOM, dtype=torch.float64)
    basis = torch.cat([torch.ones(5, 1).double(), embedding.evaluate_harmonics(x)], 1)
    half = [tuple(v) for v in embedding.modes.long().tolist()]
    columns = []
    for wave, sine in zip(labels.waves.tolist(), labels.sine.tolist(), strict=True):
        columns.append(0 if not any(wave) else 1 + half.index(tuple(wave)) + len(half) * sine)
    expected = basis[:, columns] @ codes
    coefficients = waves.coefficients(codes)[0, : waves.count]
    vectors = torch.tensor(list(dict.fromkeys(map(tuple, labels.waves.tolist())))).double()
    series = coefficients * torch.exp(2j * torch.pi * (x @ vectors.T))
    torch.testing.assert_close(series[:, 0].real + 2 * series[:, 1:].real.sum(1), expected)


@pytest.mark.parametrize(("channels", "dimensions"), [(1, 2), (2, 1)])
def test_real_field_equals_the_complex_one(channels: int, dimensions: int) -> None:
    waves = Waves(labels_of(channels, dimensions, 2))
    operator = random_operator(waves, 1.0)
    codes = torch.randn(4, len(waves.labels), generator=_RANDOM, dtype=torch.float64)
    coefficients = waves.coefficients(codes)
    expected = waves.codes(waves.rates(operator, coefficients, waves.products(coefficients)))
    field = waves.field(operator)
    torch.testing.assert_close(field(torch.zeros(()).double(), codes), expected)
    jacobian = field.term(Couplings).jacobian(torch.zeros(4), codes) + field.linear.matrix
    differentiated = torch.func.vmap(torch.func.jacrev(lambda s: field(torch.zeros(()).double(), s)))(codes)
    torch.testing.assert_close(jacobian, differentiated)


def test_field_commutes_with_translations_but_for_its_constant() -> None:
    waves = Waves(labels_of(1, 2, 2))
    operator = random_operator(waves, 1.0)
    operator.constant.zero_()
    operator.linear[0] = operator.linear[0].real.to(torch.complex128)
    operator.products[:, waves.out == 0] = operator.products[:, waves.out == 0].real.to(torch.complex128)
    codes = torch.randn(1, len(waves.labels), generator=_RANDOM, dtype=torch.float64)
    vectors = torch.tensor(list(dict.fromkeys(map(tuple, waves.labels.waves.tolist())))).double()
    turn = torch.exp(2j * torch.pi * (vectors @ torch.tensor([0.3, 0.1]).double()))

    def moved(state: torch.Tensor) -> torch.Tensor:
        return waves.codes(waves.coefficients(state)[..., : waves.count] * turn)

    field = waves.field(operator)
    zero = torch.zeros(()).double()
    difference = (field(zero, moved(codes)) - moved(field(zero, codes)))[:, 1:]
    assert float(difference.detach().abs().max()) < 1e-10


def test_burgers_is_found_from_one_trajectory() -> None:
    """8 transitions, 11 codes: a field without structure has 78 unknowns a code, one that commutes about 12 a wave."""
    labels, taught, waves = line_of_trajectories(2)
    _, judged, _ = line_of_trajectories(3)
    found = SpectralFit(taught, labels).search(judged, 0)
    assert found is not None
    truth = waves.field(burgers(waves))
    state = judged.codes[:, 0]
    rate, expected = (f(torch.zeros(()).double(), state).detach() for f in (found.field(), truth))
    assert found.score < 1e-3
    assert float((rate - expected).square().sum() / expected.square().sum()) < 1e-2


def test_a_prior_that_is_the_truth_is_kept() -> None:
    """Weights of known operators are solved; with the truth as the prior nothing is left to fit."""
    labels, taught, waves = line_of_trajectories(1)
    truth, other = burgers(waves), random_operator(waves, 0.1)
    weights = SpectralFit(taught, labels).weights([truth, other])
    assert weights.tolist() == pytest.approx([1.0, 0.0], abs=0.05)
    fit = SpectralFit(taught, labels, truth)
    assert fit.known(taught, 0).score < 1e-5
    ((_, departed),) = fit.solutions(truth, [1e3])
    assert departed is not None
    assert float((departed.products - truth.products).abs().max()) < 1e-3


@pytest.mark.parametrize(("channels", "dimensions"), [(1, 2), (2, 1)])
def test_operator_of_a_real_field_gives_the_field_back(channels: int, dimensions: int) -> None:
    waves = Waves(labels_of(channels, dimensions, 2))
    field = waves.field(random_operator(waves, 1.0))
    again = waves.field(waves.operator(field))
    codes = torch.randn(4, len(waves.labels), generator=_RANDOM, dtype=torch.float64)
    zero = torch.zeros(()).double()
    torch.testing.assert_close(again(zero, codes), field(zero, codes))
