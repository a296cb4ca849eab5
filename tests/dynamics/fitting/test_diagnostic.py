from dataclasses import replace

import numpy as np
import pytest
import torch

from inrflow.domains import Box
from inrflow.dynamics.fitting.diagnostic import (
    Diagnostic,
    completed,
    copies,
    related,
    require_own_fields,
    require_prognostic,
)
from inrflow.dynamics.laws import fit_law
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.setting import Data, EncodedData, encode
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.encoding.harmonic_codes import fit_codes


@pytest.fixture(scope="module")
def line():
    """Diffusion u_t = 0.05 u_xx + u - u^3 on a periodic line by exact steps, and c with (1 - 0.3 lap) c = 0.5 + u^2."""
    rng, points, frames = np.random.default_rng(0), 32, 9
    x, k = 2 * np.pi * np.arange(points) / points, np.fft.rfftfreq(points, 1 / points)
    u = np.sum([rng.normal(size=(12, 1)) / (1 + q) * np.cos(q * x + rng.uniform(0, 6, (12, 1))) for q in range(4)], 0)
    path, steps = [u], 80
    for _ in range(frames - 1):
        for _ in range(steps):  # Strang splitting; the reaction in closed form
            for half in range(2):
                growth = np.exp(0.1 / steps)
                u = u * growth / np.sqrt(1 + u**2 * (growth**2 - 1))
                u = np.fft.irfft(np.exp(-0.05 * k**2 * 0.2 / steps) * np.fft.rfft(u), points) if not half else u
        path.append(u)
    u = np.stack(path, 1)
    c = np.fft.irfft(np.fft.rfft(0.5 + u**2) / (1 + 0.3 * k**2), points)
    return np.arange(frames) * 0.2, x[:, None], np.stack([u, c], -1)


def ground_on(box, t, x, u, count):
    data, harmonics = Data.of(t, x, u), box.harmonics(count, "natural")
    codes = fit_codes(harmonics, data.x, data.u)
    return EncodedData(box, "natural", codes, data, *encode(codes, data))


def test_the_pressure_of_random_flows_is_that_of_a_spectral_solution():
    rng, n = np.random.default_rng(1), 24
    k = np.stack(np.meshgrid(np.fft.fftfreq(n, 1 / n), np.fft.rfftfreq(n, 1 / n), indexing="ij"))
    inverse = 1 / np.where((k**2).sum(0) == 0, np.inf, (k**2).sum(0))
    back = lambda a: np.fft.irfft2(a, (n, n))  # noqa: E731
    fields = []
    for _ in range(20):
        stream = np.fft.rfft2(rng.normal(size=(n, n))) * (np.abs(k).max(0) < 4)
        flow = 1j * k[1] * stream, -1j * k[0] * stream
        slopes = [[back(1j * k[axis] * part) for axis in range(2)] for part in flow]
        source = slopes[0][0] ** 2 + 2 * slopes[0][1] * slopes[1][0] + slopes[1][1] ** 2
        fields.append(np.stack([*map(back, flow), back(np.fft.rfft2(source) * inverse)], -1).reshape(-1, 3))
    axis = 2 * np.pi * np.arange(n) / n
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    fields = np.stack(fields).reshape(4, 5, -1, 3) / np.std(fields, (0, 1))
    box = Box((0.0, 0.0), (2 * np.pi, 2 * np.pi), ("periodic", "periodic"))
    assert related(ground_on(box, np.arange(5.0), x, fields, 300), 2, [0, 1]).share < 1e-9


def test_a_channel_that_another_determines_is_found_and_forecast_with_the_other(line):
    t, x, u = line
    box, kept = Box((0.0,), (2 * np.pi,), ("periodic",)), [0]
    encoded = ground_on(box, t, x, u, 31)
    one = related(encoded, 1, kept)
    assert one.share < 1e-8 and one.terms[0].inertia == pytest.approx(0.3, rel=1e-3)
    nothing = Law(box, "natural", (Term(),), np.zeros((1, 2)), np.zeros((1, 2)), encoded.codes)
    with pytest.raises(Diagnostic) as found:
        require_prognostic(encoded, nothing)
    assert found.value.channels == [1]
    law = completed(fit_law(t, x, u[:10, ..., :1], box, seconds=2), t, x, u[:10], kept, "natural")
    lines = law.written(["u", "c"])
    assert lines[0].startswith("du/dt") and lines[1].startswith("(1 - 0.3 lap) c = 0.500")
    z = law.encode(x, u[10:])
    errors = law.decode(law.rollout(z[:, 0], t), x) - u[10:]
    assert np.square(errors).mean((0, 1, 2)) / u.var((0, 1, 2)) == pytest.approx(0, abs=1e-6)


def test_rates_and_linearised_flows_of_diagnostic_channels_follow_the_others(line):
    t, x, u = line
    box = Box((0.0,), (2 * np.pi,), ("periodic",))
    encoded = ground_on(box, t, x, u, 9)
    terms = Term((((0, VALUE),),)), Term((((0, VALUE),),), 1), Term((((0, VALUE), (0, VALUE)),))
    law = Law(box, "natural", terms, np.array([[1.0, 0.0], [0.3, 0.0], [-0.5, 0.0]]), np.zeros((3, 2)), encoded.codes,
              max_step=0.01, largest=100.0, values=np.array([[0.2, 0.2], [0.0, 0.0], [0.0, 1.0]]) * [0, 1])
    term = LawTerm(**LawTerm.of(law).structure())
    z, gap = torch.tensor(encoded.states[:2, 0]).flatten(1), torch.full((2,), 0.05).double()
    begin = torch.zeros(2).double()
    flow = lambda z, time: term.advance(z, begin, time.expand(len(z)), 0.01)  # noqa: E731
    start = flow(z, torch.tensor(1e-12).double())
    assert torch.allclose(start[:, :9], z[:, :9], atol=1e-6)
    later = flow(start, gap[:1])
    table = encoded.codes.harmonics.values(x)  # orthonormal over the points of the grid
    values = later[:, :9].numpy() @ table.T
    assert np.abs(later[:, 9:].numpy() - (0.2 * values + values**2) @ table / len(x)).max() < 1e-12
    assert torch.allclose(term(begin, start), (flow(start, torch.tensor(1e-4).double()) - start) / 1e-4, atol=2e-3)
    moved = start.clone()
    moved[:, 2] += 1e-4
    slope = (flow(moved, gap[:1]) - later) / 1e-4
    assert torch.allclose(term.tangent_flow(start, gap, begin)[:, :, 2], slope, atol=0.05)
    assert torch.allclose(term.jacobian(begin, start) @ torch.eye(18)[:, 2].double(),
                          (term(begin, moved) - term(begin, start)) / 1e-4, atol=0.05)


def test_fewer_harmonics_than_steady_terms_are_no_obstacle(line):
    t, x, u = line
    box = Box((0.0,), (2 * np.pi,), ("periodic",))
    assert related(ground_on(box, t, x, u, 9), 1, [0]).share < 1.0


def test_constants_and_multiples_of_earlier_channels_are_copies_and_others_are_not(line):
    a, b = np.moveaxis(line[2], -1, 0).astype(np.float32)
    b[0, 0, 0] = np.nan
    fields = np.stack([np.full_like(a, 3.7), a, b, 2 - 3 * a + b, a + 1e-3 * a**2], -1).astype(np.float64)
    assert copies(fields) == [0, 3]
    assert copies(fields[..., [3, 2, 1]]) == [2] and copies(fields[..., 1:3]) == copies(fields * np.nan) == []


def test_copies_and_noise_have_no_law_of_their_own(line):
    t, x, u = line
    box, noise = Box((0.0,), (2 * np.pi,), ("periodic",)), np.random.default_rng(2).normal(size=u[..., :1].shape)
    for other in (noise, 5 - u[..., :1]):
        every = np.concatenate([u, other], -1)
        encoded = ground_on(box, t, x, every, 15)
        variance = np.where(np.arange(3) == 2, every[..., 2].var() * (other is noise), 0.0)
        with pytest.raises(Diagnostic) as found:
            require_own_fields(replace(encoded, train=replace(encoded.train, noise=variance)), every)
        assert found.value.channels == [2]
    require_own_fields(ground_on(box, t, x, u, 15), u)
    every = np.concatenate([u[..., :1], noise], -1)
    law = completed(fit_law(t, x, u[:10, ..., :1], box, seconds=2), t, x, every[:10], [0], "natural")
    found = law.decode(law.rollout(law.encode(x, every[10:])[:, 0], t), x)
    assert np.square(found[..., 1]).mean() < 0.05 and np.square(found - every[10:])[..., 0].mean() < 1e-6
