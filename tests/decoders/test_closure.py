"""The closure on the code: what it adds to an affine decoder, and its derivative."""

import pytest
import torch
from torch import Tensor, nn

from inrflow.decoders.base import Decoder
from inrflow.decoders.closure import ClosureDecoder
from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.siren import ModulatedSiren


class TableDecoder(Decoder):
    """u(x) = offset[i] + basis[i] z at the points x = i: any affine decoder on a few points."""

    affine = True

    def __init__(self, offset: Tensor, basis: Tensor) -> None:
        super().__init__()
        self.offset, self.table = nn.Parameter(offset), nn.Parameter(basis)
        self.channels, self.code_size = basis.shape[1:]

    def basis(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = x[..., 0].long()
        return self.offset[rows], self.table[rows]

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        offset, basis = self.basis(x)
        return offset + (basis @ z[..., None, :, None])[..., 0]


def table_decoder(points: int = 12, channels: int = 2, size: int = 6) -> TableDecoder:
    random = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(points * channels, size, generator=random, dtype=torch.float64))[0]
    return TableDecoder(
        torch.randn(points, channels, generator=random, dtype=torch.float64), basis.reshape(points, channels, size)
    )


def curved_codes(trajectories: int, frames: int, seed: int = 0) -> Tensor:
    """Codes (S, T, 6) whose last four follow the first two on a curved surface, and a little noise."""
    random = torch.Generator().manual_seed(seed)
    angle = 6.3 * torch.rand(trajectories, 1, generator=random) + torch.linspace(0, 2, frames)
    z = torch.stack([angle.cos(), angle.sin()], -1)
    rest = torch.stack([(2 * angle).cos(), (2 * angle).sin(), (3 * angle).cos(), (3 * angle).sin()], -1)
    return torch.cat([z, 0.3 * rest], -1) + 1e-3 * torch.randn(trajectories, frames, 6, generator=random)


def fitted() -> ClosureDecoder:
    decoder = ClosureDecoder(table_decoder(), 2, width=32).double()
    decoder.fit(curved_codes(20, 10), steps=300)
    return decoder


X = torch.arange(12, dtype=torch.float64)[:, None]


def test_before_the_fit_it_is_the_affine_decoder_with_fewer_modes():
    affine = table_decoder()
    decoder = ClosureDecoder(affine, 2)
    z = torch.randn(3, 2, dtype=torch.float64)
    decoder = decoder.double()
    torch.testing.assert_close(decoder(X, z), affine(X, torch.cat([z, torch.zeros(3, 4)], -1)))


def test_fit_finds_the_curved_surface_and_says_so_on_held_out_codes():
    decoder = ClosureDecoder(table_decoder(), 2, width=64).double()
    errors = decoder.fit(curved_codes(40, 10), steps=600)
    assert errors.without_closure == pytest.approx((0.18 / 1.18) ** 0.5, rel=0.01)  # four of 0.3 / sqrt(2) left out
    assert errors.with_closure < 0.1 * errors.without_closure and errors.worthwhile
    unseen = curved_codes(10, 7, seed=1).double()
    missed = decoder.full_code(unseen[..., :2]).detach() - unseen
    assert float(missed.square().sum(-1).mean()) < 3 * errors.residual


def test_codes_without_a_relation_gain_nothing():
    codes = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    decoder = ClosureDecoder(table_decoder(), 2).double()
    errors = decoder.fit(codes, steps=100)
    assert not errors.worthwhile
    assert errors.with_closure <= errors.without_closure * 1.001  # zero is a state that was judged too


def test_error_of_the_code_is_the_error_of_the_field():
    decoder, codes = fitted(), curved_codes(3, 4).double()
    z = codes[..., :2].flatten(0, 1)
    field = decoder(X, z) - decoder.decoder(X, codes.flatten(0, 1))
    of_code = decoder.full_code(z) - codes.flatten(0, 1)
    torch.testing.assert_close(field.square().sum((1, 2)), of_code.square().sum(1))


def test_unobserved_frames_are_left_out_and_a_seed_repeats():
    codes = curved_codes(6, 10)
    codes[2, 5:] = float("nan")
    results = []
    for _ in range(2):
        decoder = ClosureDecoder(table_decoder(), 2, width=16).double()
        results.append((decoder.fit(codes, steps=50, seed=3), decoder.closure(codes[:1, :, :2].double())))
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=0)


@pytest.mark.parametrize("own_points", [False, True])
def test_linearise_agrees_with_finite_differences(own_points):
    decoder = fitted()
    z = 0.7 * torch.randn(5, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    x = torch.stack([X.roll(i, 0) for i in range(5)]) if own_points else X
    with torch.no_grad():
        u, jacobian = decoder.linearise(x, z)
        torch.testing.assert_close(u, decoder(x, z))
        for k in range(2):
            step = torch.zeros(2, dtype=torch.float64)
            step[k] = 1e-6
            difference = (decoder(x, z + step) - decoder(x, z - step)) / 2e-6
            torch.testing.assert_close(jacobian[..., k], difference, rtol=0, atol=1e-8)
    assert float(decoder._closure_slope(z).detach().abs().max()) > 0.1  # there is a slope to get wrong


def test_it_wraps_a_siren_and_trains_g_alone():
    torch.manual_seed(0)
    siren = ModulatedSiren(Embedding([0, 0], [1, 1]), 2, 8, width=16)
    decoder = ClosureDecoder(siren, 3)
    u, jacobian = decoder.linearise(torch.rand(7, 2), torch.randn(4, 3))
    assert u.shape == (4, 7, 2) and jacobian.shape == (4, 7, 2, 3)
    trained = {name for name, p in decoder.named_parameters() if p.requires_grad}
    assert trained and not any(name.startswith("decoder.") for name in trained)


def test_what_cannot_carry_a_closure_is_refused():
    siren = ModulatedSiren(Embedding([0.0], [1.0]), 1, 4, width=8, modulation=("shift",))
    with pytest.raises(ValueError, match="affine"):
        ClosureDecoder(siren, 2)
    with pytest.raises(ValueError, match="fewer"):
        ClosureDecoder(table_decoder(), 6)
    with pytest.raises(ValueError, match="too few"):
        ClosureDecoder(table_decoder(), 2).double().fit(torch.randn(1, 6))
