"""Channels with boundary conditions of their own at each wall of a box."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inrflow.domains import Box
from inrflow.dynamics.laws import Systems, fit_law
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.library import Library
from inrflow.dynamics.laws.refinement.final import worse
from inrflow.dynamics.laws.setting import Data, forecast_errors
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import LAPLACIAN, OTHER_HARMONICS, SECOND, VALUE, Term
from inrflow.encoding.conditions import conditions
from inrflow.encoding.harmonic_codes import HarmonicCodes, fit_codes, tail, white_noise

TUBE = Box([0.0], [1.0], ["walled"])
RING = Box([0.0], [1.0], ["periodic"])
OPEN = "natural-held, held-natural"  # pressure and velocity in a tube closed on the left and open on the right


def _tube(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p_t = -v_x, v_t = -p_x in closed form: quarter waves, cos q x cos q t and sin q x sin q t."""
    t, x = np.arange(10) * 0.05, (np.arange(40) + 0.5) / 40
    q = (np.arange(5) + 0.5) * np.pi
    size = np.random.default_rng(seed).standard_normal((count, 5, 1, 1)) / (1 + np.arange(5))[:, None, None]
    p = (size * np.cos(q[:, None] * t)[..., None] * np.cos(q[:, None] * x)[:, None]).sum(1)
    v = (size * np.sin(q[:, None] * t)[..., None] * np.sin(q[:, None] * x)[:, None]).sum(1)
    return t, x[:, None], np.stack([p, v], -1)


def _data(t: np.ndarray, x: np.ndarray, u: np.ndarray) -> Data:
    return Data(np.broadcast_to(t, u.shape[:2]), np.broadcast_to(x, (len(u), *x.shape)), u,
                Systems(np.zeros(len(u), dtype=int)))


def test_sound_in_a_tube_with_one_open_end_is_found() -> None:
    t, x, u = _tube(8, 0)
    law = fit_law(t, x, u, TUBE, seconds=4)
    assert law.boundary == OPEN
    assert forecast_errors(law, _data(*_tube(3, 1))).max() < 1e-8
    text = " ".join(law.written(["p", "v"], ["x"]))
    assert "dv/dx" in text
    assert "dp/dx" in text


def test_conditions_of_each_channel_and_axis_are_those_of_the_field() -> None:
    box = Box([0.0, 0.0], [1.0, 2.0], ["walled", "periodic"])
    x = np.random.default_rng(0).random((300, 2)) * [1, 2]
    k = np.arange(1, 4)[:, None]
    along = np.cos(np.pi * k * x[:, 1] + k)
    fields = [np.sin(np.pi * k * x[:, 0]) * along, np.cos(np.pi * k * x[:, 0]) * along]
    size = np.random.default_rng(1).standard_normal((4, 4, 3))
    u = np.stack([size @ f for f in fields], -1)
    assert conditions(box, np.broadcast_to(x, (4, 300, 2)), u, 0) == "held/natural, natural"


def test_codes_that_a_channel_does_not_use_stay_zero_and_jacobians_agree_with_differences() -> None:
    box = Box([0.0, 0.0], [1.0, 2.0], ["walled", "walled"])
    harmonics = box.harmonics(40, "natural, held/natural")
    allowed = harmonics.allowed
    assert allowed is not None
    x = np.random.default_rng(0).random((200, 2)) * [1, 2]
    u = np.random.default_rng(1).standard_normal((2, 3, 200, 2))
    codes = fit_codes(harmonics, np.broadcast_to(x, (2, 200, 2)), u)
    z = torch.tensor(codes.encode(x, u)[0][0]).flatten(1)
    assert not z.unflatten(1, (2, -1))[:, ~torch.tensor(allowed)].any()
    terms = (Term((((0, VALUE),),), 1), Term((((1, 0),),)), Term((((0, VALUE), (0, 0)),)), Term((((1, VALUE),),), 1))
    theta = np.array([[0.1, 0.2], [-1.0, 0.0], [0.0, 0.5], [0.0, 0.3]])
    term = LawTerm.of(Law(box, "natural, held/natural", terms, theta, 0 * theta, codes))
    rate = term(torch.zeros(()), z)
    assert not rate.unflatten(1, (2, -1))[:, ~torch.tensor(allowed)].any()
    slopes = torch.autograd.functional.jacobian(lambda one: term(torch.zeros(()), one[None])[0], z[0])
    own = torch.tensor(allowed).flatten()
    torch.testing.assert_close(term.jacobian(torch.zeros(()), z[:1])[0][:, own], slopes[:, own])


def test_noise_on_a_grid_is_told_from_waves_that_it_resolves() -> None:
    grid = Box([0.0], [1.0], ["periodic"], [31])
    x = np.arange(32)[:, None] / 32
    smooth = np.exp(np.sin(2 * np.pi * x.T + np.arange(6)[:, None])).reshape(2, 3, 32, 1)
    noise = 0.1 * np.random.default_rng(0).standard_normal(smooth.shape)
    left = [tail(grid.harmonics(31), x, u) for u in (smooth, smooth + noise)]
    assert left[0] < 1e-12
    assert left[1] == pytest.approx(noise.var() / (smooth + noise).var(), rel=0.5)


def test_one_trajectory_whose_forecast_is_lost_makes_a_law_worse() -> None:
    assert worse(np.array([1.0, 0.1, 0.1, 0.1]), np.full(4, 0.1))
    assert not worse(np.array([0.11, 0.1, 0.09, 0.1]), np.full(4, 0.1))


def test_steady_values_at_walls_drive_what_is_between_them() -> None:
    """u_t = .05 u_xx - .7 u between walls held at 1 and 2, other values in each trajectory: exact in each sine wave."""
    x, k, t = (np.arange(40)[:, None] + 0.25) / 40, np.arange(1, 200), np.arange(10) * 0.1
    generator, rate = np.random.default_rng(0), 0.05 * (np.pi * np.arange(1, 200)) ** 2 + 0.7
    ends = 1 + generator.random((12, 2)) * [0.5, 1]
    sines = np.sin(np.pi * k * x)
    pull = -0.7 * 2 / (np.pi * k) * (ends[:, :1] - (-1.0) ** k * ends[:, 1:])  # of the affine profile, on each sine
    start = pull / rate + generator.standard_normal((12, 199)) * np.exp(-k)
    codes = pull[:, None] / rate + (start - pull / rate)[:, None] * np.exp(-rate * t[:, None])
    u = ends[:, :1, None] + (ends[:, 1:, None] - ends[:, :1, None]) * x.T + codes @ sines.T
    law = fit_law(t, x, u[:10, ..., None], Box([0.0], [1.0], ["walled"]), seconds=4)
    assert law.boundary == "steady"
    found = {term.written(["u"], ["x"]): value for term, value in zip(law.terms, law.theta[:, 0], strict=True)}
    assert found["lap u"] == pytest.approx(0.05, rel=1e-2) and found["u"] == pytest.approx(-0.7, rel=1e-2)
    forecast = law.decode(law.rollout(law.encode(x, u[10:, 0, :, None]), t), x)[..., 0]
    assert ((forecast - u[10:]) ** 2).mean() < 1e-5 * u.var()


def test_terms_of_place_beside_the_same_without_do_not_count_steady_values_twice() -> None:
    harmonics, own = TUBE.harmonics(12, "steady"), ((0, VALUE),)
    terms = [Term((own,)), Term((own,), place=2), Term((own,), axis=0), Term((own,), axis=0, place=1, flux=True)]
    law = Library(terms, harmonics)
    theta = torch.tensor([[0.7], [-1.3], [0.4], [0.9]]).double()
    z = torch.tensor(np.random.default_rng(0).standard_normal((3, 1, harmonics.count)))
    with torch.no_grad():
        sums = torch.einsum("bjk,jc->bck", law.features(z, harmonics.count), theta)
        torch.testing.assert_close(LawField(law, theta)(0.0, z.flatten(1)), sums.flatten(1))


def test_what_a_wind_of_place_carries_stays_between_the_walls() -> None:
    """d(w u)/dx, w = sqrt(2) cos pi x, of u = 1 + cos(2 pi x): no flux through walls, though w is not zero there."""
    harmonics, x = TUBE.harmonics(40), np.linspace(0, 1, 200)[:, None]
    term = Term((((0, VALUE),),), axis=0, place=1, flux=True)
    codes = torch.tensor(fit_codes(harmonics, x[None], (1 + np.cos(2 * np.pi * x))[None, None]).encode(
        x, (1 + np.cos(2 * np.pi * x))[None])[0])
    rate = Library([term], harmonics).features(codes, 40)[0, 0].numpy()
    assert abs(rate[0]) < 1e-9  # nothing is lost
    fine = (np.arange(4000) + 0.5)[:, None] / 4000
    carried = np.sqrt(2) * np.cos(np.pi * fine) * (1 + np.cos(2 * np.pi * fine))
    exact = -(carried * harmonics.gradients(fine)[..., 0]).mean(0)
    np.testing.assert_allclose(rate[:9], exact[:9], rtol=1e-2, atol=1e-9)


def test_values_act_on_channels_of_other_harmonics_by_their_projections() -> None:
    """v, of cosines, in the rate of u, of sines: as what turns a current along a coast."""
    harmonics, fine = TUBE.harmonics(24, "held, natural"), (np.arange(2000) + 0.5)[:, None] / 2000
    z = torch.tensor(np.random.default_rng(0).standard_normal((1, 2, harmonics.count)) / harmonics.count)
    z = z * torch.tensor(harmonics.allowed)
    term, theta = Term((((1, OTHER_HARMONICS),),)), torch.tensor([[1.0, 0.0]]).double()
    rate = LawField.of([term], harmonics, theta)(0.0, z.flatten(1)).reshape(2, -1)[0].numpy()
    v = harmonics.values(fine) @ z[0, 1].numpy()
    own = harmonics.own(0)
    np.testing.assert_allclose(rate[own[:6]], (v[:, None] * harmonics.values(fine)[:, own[:6]]).mean(0), atol=2e-3)
    assert not rate[np.setdiff1d(np.arange(harmonics.count), own)].any()
    assert term.written(["u", "v"], ["x"]) == "v"


def test_flows_that_slip_along_walls_are_projected() -> None:
    """Vortices of a walled box carry themselves by a gradient alone; what buoyancy adds has no divergence."""
    harmonics = Box([0.0, 0.0], [np.pi, np.pi], ["walled", "walled"]).harmonics(
        300, "held/natural, natural/held, natural/held")
    assert harmonics.vectors == {0: ("natural", "natural")} and harmonics.allowed is not None
    terms = (Term.transport(0, (1.0, 1.0), (0, 1)), *(Term((((2, VALUE),),), -1, SECOND + j) for j in (0, 1)))
    library = Library.of(terms, harmonics)
    points, allowed = harmonics.quadrature().points, harmonics.allowed
    (a, b), (sin, cos) = points.T, (np.sin, np.cos)
    fields = np.stack([sin(a) * cos(b), -cos(a) * sin(b), cos(2 * a) * sin(b)])
    codes = (fields @ harmonics.values(points) / len(points)) * allowed
    features = library.features(torch.tensor(codes)[None], harmonics.count)[0]
    assert float(features[0].abs().max()) < 1e-12
    # lap^-1 of d2/dxdx and d2/dxdy of a temperature cos(2 x) sin(y), whose Laplacian is -5 times itself
    for feature, field in zip(features[1:], (4 / 5 * fields[2], 2 / 5 * sin(2 * a) * cos(b)), strict=True):
        np.testing.assert_allclose(harmonics.values(points) @ feature.numpy(), field, atol=1e-10)


def test_flows_that_walls_hold_feel_no_gradient_and_stay_without_divergence_and_at_rest_there() -> None:
    """u in sines and v in cosines between plates: both vanish there. Gradients do no work on what does."""
    harmonics = Box([0.0, 0.0], [2.0, 1.0], ["periodic", "walled"]).harmonics(
        200, "natural/held, natural, natural/steady")
    assert (harmonics.vectors or {})[0] == ("natural", "held") and harmonics.allowed is not None
    allowed = torch.tensor(harmonics.allowed)
    terms = (*(Term((((c, LAPLACIAN),),), solenoidal=True, vector=(0, 1), units=(1.0, 2.0)) for c in (0, 1)),
             *(Term((((2, VALUE),),), axis=i, solenoidal=True, vector=(0, 1), units=(1.0, 2.0), row=j)
               for i in (0, 1) for j in (0, 1)), *(Term.transport(j, (1.0, 2.0), (0, 1)) for j in (0, 1)))
    library = Library.of(terms, harmonics)
    z = torch.tensor(np.random.default_rng(0).standard_normal((2, 3, harmonics.count)))
    z = z * allowed / (1 + library.eigenvalues)
    features = library.features(z, harmonics.count)
    edge = harmonics.values(np.stack(np.meshgrid(np.arange(9) / 4.5, [0.0, 1.0]), -1).reshape(-1, 2))
    for u, v in [(0, 1), (2, 3), (4, 5), (6, 7)]:
        one, other = features[:, u], 2 * features[:, v]  # of the units
        divergence = sum(library.transform.derive(part, axis) for axis, part in enumerate((one, other)))
        assert float(divergence.abs().max()) < 1e-8 * float(one.abs().max())
        assert float((other @ torch.tensor(edge).T).abs().max()) < 1e-8 * float(one.abs().max())
    x, y = library.transform.points.T
    gradient = np.stack([np.cos(np.pi * x) * y**2, np.sin(np.pi * x) / np.pi * 2 * y])
    codes = library.transform.project(torch.tensor(gradient)) * allowed[:2]
    left = library.pressure(0).project([part[None] for part in codes])
    assert float(torch.cat(left).norm()) < 1e-5 * float(codes.norm())
    theta = np.random.default_rng(1).standard_normal((len(terms), 3)) * [1.0, 1.0, 0.0]
    prior = HarmonicCodes(harmonics, np.zeros((3, harmonics.count)), np.ones((3, harmonics.count)))
    term = LawTerm.of(Law(Box([0.0, 0.0], [2.0, 1.0], ["periodic", "walled"]), "natural/held, natural, natural/steady",
                          terms, theta, 0 * theta, prior))
    slopes = torch.autograd.functional.jacobian(lambda one: term(torch.zeros(()), one[None])[0], z[0].flatten())
    own = (allowed & (torch.arange(harmonics.count) < harmonics.count - harmonics.steady)).flatten()
    torch.testing.assert_close(term.jacobian(torch.zeros(()), z[:1].flatten(1))[0][:, own], slopes[:, own])


@pytest.mark.parametrize("count", [12, 40])
def test_noise_is_told_from_waves_beyond_the_harmonics_and_not_counted_in_forecasts(count: int) -> None:
    # 12 of 60 harmonics leave travelling waves of several times the noise
    t, x, wave = np.arange(8.0) * 0.1, (np.arange(120) + 0.5) / 120, np.arange(1, 12)
    size = np.random.default_rng(0).standard_normal((12, 2, 11)) / wave
    angle = 2 * np.pi * wave * (x[:, None] - 0.02 * t[:, None, None])  # (T, N, waves)
    clean = np.einsum("sw,tnw->stn", size[:, 0], np.cos(angle)) + np.einsum("sw,tnw->stn", size[:, 1], np.sin(angle))
    data, noise = _data(t, x[:, None], clean[..., None]), 0.15
    noisy = data.u + noise * np.random.default_rng(1).standard_normal(data.u.shape)
    codes = fit_codes(RING.harmonics(count), data.x, noisy)
    assert white_noise(codes, data.x, data.u) == 0.0
    assert white_noise(codes, data.x, noisy) == pytest.approx(noise**2, rel=0.25)
    if count == 40:
        law = Law(RING, "natural", (Term((((0, 0),),)),), np.array([[-0.02]]),
                  np.zeros((1, 1)), codes, largest=100.0)
        held = replace(data, u=noisy)
        assert forecast_errors(law, held).mean() * held.u.var() == pytest.approx(noise**2, rel=0.5)
        assert forecast_errors(law, replace(held, noise=np.array([noise**2]))).mean() * held.u.var() < 0.5 * noise**2
