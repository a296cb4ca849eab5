"""Laws of second order, against closed forms of damped waves between walls and of an anharmonic string."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from inrflow.domains import NATURAL, Box, Sphere
from inrflow.dynamics.laws import Law, Systems, fit_law
from inrflow.dynamics.laws.contexts import with_new_contexts
from inrflow.dynamics.laws.families import Families, regress
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.library import Library
from inrflow.dynamics.laws.rate_solver import rates_between
from inrflow.dynamics.laws.rates import as_first_order, on_rotating_sphere, with_best_inertia, with_rates
from inrflow.dynamics.laws.setting import Data, EncodedData, encode
from inrflow.dynamics.laws.terms import VALUE, Term, basic_terms
from inrflow.encoding.encode import CodeData
from inrflow.encoding.harmonic_codes import HarmonicCodes, fit_codes

LINE, COUNT = Box([0.0], [1.0], ["walled"]), 8
DAMPING, SPEED = 0.3, 0.2  # u'' = -0.3 u' + 0.04 lap u


def waves(trajectories: int, t: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codes (S, T, 1, K) of damped waves and their rates, in closed form."""
    random = np.random.default_rng(seed)
    k = np.pi * np.arange(1, COUNT)
    real = -DAMPING / 2
    turn = np.sqrt((SPEED * k) ** 2 - real**2)
    a, b = random.standard_normal((2, trajectories, 1, COUNT - 1)) / np.arange(1, COUNT) ** 2
    time = t[None, :, None]
    cos, sin, decay = np.cos(turn * time), np.sin(turn * time), np.exp(real * time)
    codes = decay * (a * cos + b * sin)
    rates = real * codes + decay * turn * (b * cos - a * sin)
    constant = np.zeros((*codes.shape[:2], 1))
    return tuple(np.concatenate([constant, part], -1)[:, :, None] for part in (codes, rates))


def law() -> Law:
    codes = HarmonicCodes(LINE.harmonics(COUNT), np.zeros((1, COUNT)), np.ones((1, COUNT)))
    terms = (Term((((1, VALUE),),)), Term((((0, VALUE),),), 1))
    theta = np.array([[-DAMPING], [SPEED**2]])
    return as_first_order(Law(LINE, NATURAL, terms, theta, np.zeros_like(theta), codes, largest=10.0), [0])


def test_the_law_of_a_damped_wave_whose_velocity_is_not_observed_is_found_and_forecasts_from_two_frames() -> None:
    x, t = (np.arange(20)[:, None] + 0.5) / 20, 0.25 * np.arange(11)
    u = np.swapaxes(waves(12, t)[0] @ LINE.harmonics(COUNT).values(x).T, 2, 3)
    found = fit_law(t, x, u, LINE, seconds=10, rates=True)
    assert found.has_rates
    line = dict(zip((term.written(["u", "u_t"], ["x"]) for term in found.terms), found.theta[:, 1], strict=True))
    np.testing.assert_allclose([line.pop("u_t"), line.pop("lap u")], [-DAMPING, SPEED**2], rtol=1e-5)
    assert max(map(abs, line.values()), default=0.0) < 1e-4
    first = torch.tensor(found.codes.encode(x, u[:, :2])[0]).flatten(2)
    rates = rates_between(found.field(), found.rates, found.max_step, torch.full((12,), 0.25), first[:, 0], first[:, 1])
    forecast = found.decode(found.rollout(torch.cat([first[:, 0], rates], 1), t), x)
    assert ((forecast - u) ** 2).mean() < 1e-8 * u.var()


def test_rates_are_those_of_each_system() -> None:
    one, t = law(), 0.25 * np.arange(6)
    by_context = np.zeros((1, *one.theta.shape))
    by_context[0, 0, 1] = 0.2  # of the damping
    family = replace(one, by_context=by_context, contexts=np.array([[0.0], [1.0]]))
    codes = torch.tensor(waves(4, t)[0]).flatten(2)
    data = CodeData(codes, torch.tensor(t).expand(4, -1), torch.ones(4, 6, dtype=torch.bool))
    found = with_rates(family, data, torch.tensor([[1.0], [0.0], [1.0], [0.0]]).double()).codes
    alone = replace(one, theta=family.theta_at(np.ones(1)))
    for rows, own in ((torch.tensor([0, 2]), alone), (torch.tensor([1, 3]), one)):
        torch.testing.assert_close(found[rows], with_rates(own, data.at(rows)).codes)
    assert float((found[0] - with_rates(one, data).codes[0]).abs().max()) > 1e-3


def test_the_damping_of_each_system_is_a_context() -> None:
    x, t, dampings = (np.arange(20)[:, None] + 0.5) / 20, 0.25 * np.arange(11), np.repeat([0.1, 0.3, 0.4, 0.6, 0.8], 4)
    k, random = np.pi * np.arange(1, COUNT), np.random.default_rng(1)
    codes = []
    for damping in dampings:
        turn, (a, b) = np.sqrt((SPEED * k) ** 2 - damping**2 / 4), random.standard_normal((2, COUNT - 1)) / k
        codes.append(np.exp(-damping / 2 * t)[:, None] * (
            a * np.cos(turn * t[:, None]) + b * np.sin(turn * t[:, None])))
    u = np.stack(codes) @ LINE.harmonics(COUNT).values(x).T[1:]
    systems = Systems(np.repeat(np.arange(5), 4), 5, (1,))
    found = fit_law(t, x, u[..., None], LINE, seconds=2, rates=True, systems=systems)
    assert found.has_rates and found.count == 1
    own = [term.written(["u", "u_t"], ["x"]) for term in found.terms].index("u_t")

    def read(law: Law) -> list[float]:
        return [-law.theta_at(context)[own, 1] for context in law.contexts]

    np.testing.assert_allclose(read(found), dampings[::4], rtol=1e-4)
    data = Data.of(t, x, u[..., None], systems)  # as if no system had been fitted to: by splines in time
    again = with_new_contexts(replace(found, contexts=0 * found.contexts), data.take(np.arange(0)), data)
    np.testing.assert_allclose(read(again), dampings[::4], rtol=0.1)


def test_fields_that_say_what_follows_have_no_rates() -> None:
    x, t = (np.arange(20)[:, None] + 0.5) / 20, 0.25 * np.arange(8)
    start = np.random.default_rng(0).standard_normal((8, 1, COUNT)) / np.arange(1, COUNT + 1)
    codes = start * np.exp(-0.02 * (np.pi * np.arange(COUNT)) ** 2 * t[:, None])
    found = fit_law(t, x, (codes @ LINE.harmonics(COUNT).values(x).T)[..., None], LINE, seconds=5, rates=True)
    assert not found.has_rates and [term.written(["u"], ["x"]) for term in found.terms] == ["lap u"]


def test_fronts_that_frames_hardly_resolve_are_of_first_order() -> None:
    """Burgers by Fourier series, of fronts that move by their widths from frame to frame."""
    n, viscosity, step, random = 96, 0.02, 0.05 / 160, np.random.default_rng(0)
    k, kept = 1j * np.pi * np.arange(n // 2 + 1), np.arange(n // 2 + 1) < n // 3
    x, half = np.arange(n) * 2 / n, np.exp(viscosity * k**2 * step / 2)
    u = 1.6 * sum(random.standard_normal((16, 1)) * np.cos(np.pi * m * x + random.uniform(0, 6.3, (16, 1)))
                  for m in (1, 2, 3))
    z, frames = np.fft.rfft(u) * kept, []

    def rate(z: np.ndarray) -> np.ndarray:
        return kept * -k * np.fft.rfft(np.fft.irfft(z, n) ** 2) / 2

    for index in range(7 * 160 + 1):
        if index % 160 == 0:
            frames.append(np.fft.irfft(z, n))
        middle = half * (z + step / 2 * rate(z))
        z = half**2 * z + step * half * rate(middle)
    u = np.stack(frames, 1)[..., None]
    found = fit_law(0.05 * np.arange(8), x[:, None], u / u.std(), Box([0.0], [2.0], ["periodic"]), seconds=8,
                    rates=True, units=[u.std()])
    assert not found.has_rates
    line = dict(zip((term.written(["u"], ["x"]) for term in found.terms), found.theta[:, 0], strict=True))
    np.testing.assert_allclose([line["lap u"], line["u du/dx"]], [viscosity, -u.std()], rtol=1e-4)


def test_the_inertia_of_long_waves_is_found() -> None:
    """u_t - u_xxt = -u_x - u u_x on a circle of length 20, by Fourier series."""
    n, random = 64, np.random.default_rng(0)
    k, t = 0.1j * np.pi * np.fft.fftfreq(n, 1 / n), 0.5 * np.arange(9)
    waves = np.exp(np.outer(np.arange(1, 9), 2j * np.pi * np.arange(n) / n))
    starts = ((random.standard_normal((12, 8)) + 1j * random.standard_normal((12, 8))) @ waves).real / 4

    def rate(_: float, u: np.ndarray) -> np.ndarray:
        u = u.reshape(12, n)
        return np.asarray(np.fft.ifft(-k / (1 - k**2) * np.fft.fft(u + u**2 / 2)).real.ravel())

    u = solve_ivp(rate, (0, t[-1]), starts.ravel(), t_eval=t, rtol=1e-9, atol=1e-9).y.T.reshape(9, 12, n).swapaxes(0, 1)
    x, circle = 20 * np.arange(n)[:, None] / n, Box([0.0], [20.0], ["periodic"])
    law = fit_law(t, x, u[..., None], circle, seconds=3)
    assert [term.inertia for term in law.terms] == [pytest.approx(1.0, rel=2e-3)] * len(law.terms)
    line = law.written(["u"])[0]
    assert line.startswith("(1 - ") and " lap) du/dt = " in line and "u du/dx" in line
    assert Term.from_state(law.terms[0].state()) == law.terms[0]
    noise = 0.05 * u.std()
    data = replace(Data.of(t, x, (u + noise * random.standard_normal(u.shape))[..., None]), noise=np.array([noise**2]))
    codes = fit_codes(circle.harmonics(25), data.x, data.u)
    encoded = EncodedData(circle, NATURAL, codes, data, *encode(codes, data))
    found = with_best_inertia(encoded, Families(basic_terms(1, 1)))
    assert found.inertia == (pytest.approx(1.0, rel=0.05),)


def test_channels_have_inertia_of_their_own() -> None:
    """(1 - .2 dxx) e_t = -u_x - (e u)_x, u_t = -e_x - u u_x, of zero mean, on a circle of length 12, by Fourier."""
    n, random, t = 48, np.random.default_rng(0), 0.2 * np.arange(9)
    k = 2j * np.pi * np.fft.fftfreq(n, 12 / n)
    waves = np.exp(np.outer(np.arange(1, 5), 2j * np.pi * np.arange(n) / n))
    starts = ((random.standard_normal((10, 2, 4)) + 1j * random.standard_normal((10, 2, 4))) @ waves).real / 20

    def rate(_: float, z: np.ndarray) -> np.ndarray:
        e, u = z.reshape(10, 2, n).swapaxes(0, 1)
        rates = np.fft.fft(u + e * u) / (1 - 0.2 * k**2), np.fft.fft(e + u**2 / 2)
        return np.asarray(np.fft.ifft(-k * np.stack(rates, 1)).real.ravel())

    u = solve_ivp(rate, (0, t[-1]), starts.ravel(), t_eval=t, rtol=1e-9, atol=1e-11).y.T.reshape(9, 10, 2, n)
    circle = Box([0.0], [12.0], ["periodic"])
    data = Data.of(t / 0.2, 0.25 * np.arange(n)[:, None], u.transpose(1, 0, 3, 2))
    codes = fit_codes(circle.harmonics(40), data.x, data.u)
    encoded = EncodedData(circle, NATURAL, codes, data, *encode(codes, data))
    found = with_best_inertia(encoded, Families(basic_terms(2, 1)))
    assert found.inertia == (pytest.approx(0.2, rel=2e-3), 0.0)
    misfit, law = regress([encoded], found)[0]
    lines = law.written(["e", "u"])
    assert misfit < 1e-6 and lines[0].startswith("(1 - 0.2") and lines[1].startswith("du/dt")


def test_stream_functions_of_drift_waves_are_carried_by_their_own_flow() -> None:
    """(1 - lap) p_t = p_y + J(p, lap p) - .01 lap^2 p (Hasegawa and Mima 1978) on a torus, by Runge-Kutta steps."""
    n, length, generator = 24, 9.0, np.random.default_rng(0)
    k = 2 * np.pi * np.fft.fftfreq(n, length / n)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    square, keep = kx**2 + ky**2, (np.abs(kx) < 0.6 * k.max()) & (np.abs(ky) < 0.6 * k.max())

    def values(w: np.ndarray) -> np.ndarray:
        return np.fft.ifft2(w).real

    def rate(w: np.ndarray) -> np.ndarray:
        bent = -square * w
        carried = values(1j * kx * w) * values(1j * ky * bent) - values(1j * ky * w) * values(1j * kx * bent)
        return (1j * ky * w - 0.01 * square**2 * w + keep * np.fft.fft2(carried)) / (1 + square)

    w = np.fft.fft2(generator.standard_normal((6, n, n))) * (0 < square) * (square < 3) / 4
    frames = [w]
    for index in range(70):
        a = rate(w)
        b = rate(w + 0.01 * a)
        c = rate(w + 0.01 * b)
        w = w + 0.02 / 6 * (a + 2 * b + 2 * c + rate(w + 0.02 * c))
        frames += [w] * (index % 10 == 9)
    x = np.stack(np.meshgrid(*[np.arange(n) * length / n] * 2, indexing="ij"), -1).reshape(-1, 2)
    u = values(np.stack(frames, 1)).reshape(6, 8, -1, 1)
    torus = Box([0.0, 0.0], [length, length], ["periodic", "periodic"])
    data = Data.of(0.2 * np.arange(8), x, u)
    codes = fit_codes(torus.harmonics(200), data.x, data.u)
    encoded = EncodedData(torus, NATURAL, codes, data, *encode(codes, data))
    found = with_best_inertia(encoded, Families(basic_terms(1, 2)))
    law = regress([encoded], found)[0][1]
    assert next(term.inertia for term in law.terms) == pytest.approx(1, rel=0.02)
    (line,) = law.written(["p"], ["x", "y"])
    assert "J(p, lap p)" in line, line


def test_only_the_channel_whose_changes_nothing_explains_has_rates() -> None:
    """w' = u - 0.5 w beside the wave u, whose velocity is not observed."""
    x, fine = (np.arange(20)[:, None] + 0.5) / 20, 0.025 * np.arange(101)
    u = waves(12, fine)[0][:, :, 0]
    w = np.zeros_like(u)
    w[:, 0] = 0.3 * np.random.default_rng(1).standard_normal((12, COUNT)) / np.arange(1, COUNT + 1) ** 2
    decay = np.exp(-0.5 * 0.025)
    for n in range(100):  # exact but for u, by Simpson's rule between frames
        mid = waves(12, fine[n : n + 1] + 0.0125)[0][:, 0, 0]
        w[:, n + 1] = decay * w[:, n] + 0.025 / 6 * (decay * u[:, n] + 4 * decay**0.5 * mid + u[:, n + 1])
    codes = np.stack([u, w], 2)[:, ::10]
    fields = np.swapaxes(codes @ LINE.harmonics(COUNT).values(x).T, 2, 3)
    found = fit_law(fine[::10], x, fields, LINE, seconds=2, rates=True)
    assert found.rates == (0,)
    names = [term.written(["u", "w", "u_t"], ["x"]) for term in found.terms]
    for channel, expected in ((1, {"u": 1.0, "w": -0.5}), (2, {"u_t": -DAMPING, "lap u": SPEED**2})):
        line = dict(zip(names, found.theta[:, channel], strict=True))
        np.testing.assert_allclose([line.pop(name) for name in expected], list(expected.values()), rtol=1e-3)
        assert max(map(abs, line.values()), default=0.0) < 1e-3


def test_terms_of_a_rotating_sphere_are_their_closed_forms_for_the_field_z() -> None:
    """lap z = -2 z and |grad z|^2 = 1 - z^2 on the unit sphere."""
    harmonics = Sphere().harmonics(16)
    families = on_rotating_sphere(Families(basic_terms(1, 3, True)), [0])
    library = Library(families.all_terms, harmonics)
    x = np.random.default_rng(0).standard_normal((50, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    table, z = harmonics.values(x), x[:, 2]
    code = torch.tensor(np.linalg.lstsq(table, z, rcond=None)[0])[None, None]
    rates = library.features(code, 16)[0].numpy() @ table.T
    found = dict(zip(families.all_terms, rates, strict=True))
    turned, winds = families.terms["rotation"], families.terms["winds"]
    np.testing.assert_allclose(found[turned[0]], np.sqrt(3) * z**2, atol=1e-12)  # harmonics have unit mean square
    np.testing.assert_allclose(found[turned[1]], -(1 - z**2) / 2, atol=1e-12)
    np.testing.assert_allclose(found[winds[0]], (6 * z**2 - 2) / 4, atol=1e-12)
    np.testing.assert_allclose(found[winds[1]], -(1 - z**2) / 2, atol=1e-12)
    np.testing.assert_allclose(found[winds[2]], z**2, atol=1e-12)


def test_rates_along_a_law_are_those_of_the_closed_form_at_unequal_times_and_beside_gaps() -> None:
    t = np.array([0.0, 0.3, 0.5, 1.0, 1.4, 1.6])
    codes, rates = waves(5, t, seed=1)
    observed = torch.ones(5, 6, dtype=torch.bool)
    observed[1, 2] = False
    observed[2, 1::2] = False  # no two frames in a row
    states = with_rates(law(), CodeData(torch.tensor(codes).flatten(2), torch.tensor(t).expand(5, -1), observed))
    assert states.observed.tolist() == [
        [True] * 6, [True, True, False, True, True, True], [False] * 6, [True] * 6, [True] * 6]
    truth = torch.tensor(np.concatenate([codes, rates], 2)).flatten(2)
    torch.testing.assert_close(states.codes[states.observed], truth[states.observed], rtol=0, atol=1e-8)


def test_the_state_that_forecasts_start_from_does_not_depend_on_later_frames() -> None:
    t = 0.5 * np.arange(6)
    codes = torch.tensor(waves(3, t)[0]).flatten(2)
    other = codes.clone()
    other[:, 3:] += 0.1
    seen = torch.ones(3, 6, dtype=torch.bool)
    one, two = (with_rates(law(), CodeData(each, torch.tensor(t).expand(3, -1), seen), start=2).codes[:, 2]
                for each in (codes, other))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    torch.testing.assert_close(one[:, COUNT:], torch.tensor(waves(3, t)[1][:, 2, 0]), rtol=0, atol=1e-8)


def string() -> Law:
    """u'' = .04 lap u - u^3 on a line."""
    codes = HarmonicCodes(LINE.harmonics(COUNT), np.zeros((1, COUNT)), np.ones((1, COUNT)))
    terms = (Term((((0, VALUE),),), 1), Term((((0, VALUE),) * 3,)))
    theta = np.array([[SPEED**2], [-1.0]])
    return as_first_order(Law(LINE, NATURAL, terms, theta, np.zeros_like(theta), codes, 0.02, 10.0), [0])


def test_rates_of_a_nonlinear_law_lead_to_the_later_codes() -> None:
    start = 0.2 * torch.randn(6, 2 * COUNT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    later = string().step(start, 0.4)
    rates = rates_between(string().field(), string().rates, 0.02, torch.full((6,), 0.4), start[:, :COUNT],
                          later[:, :COUNT])
    torch.testing.assert_close(rates, start[:, COUNT:], rtol=0, atol=1e-5)


def test_rates_between_codes_that_no_rate_leads_from_one_to_the_other_do_not_spoil_others() -> None:
    start = 0.2 * torch.randn(6, 2 * COUNT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    later = string().step(start, 0.4)
    later[2, :COUNT] *= 1e3
    rates = rates_between(string().field(), string().rates, 0.02, torch.full((6,), 0.4), start[:, :COUNT],
                          later[:, :COUNT])
    rows = [0, 1, 3, 4, 5]
    torch.testing.assert_close(rates[rows], start[rows, COUNT:], rtol=0, atol=1e-5)


def test_rough_rates_take_a_fraction_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    start = 0.2 * torch.randn(6, 2 * COUNT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = 0.4 * torch.arange(6).expand(6, -1)
    paths = torch.stack([string().step(start, float(time)) for time in t[0]], 1)
    data, steps = CodeData(paths[..., :COUNT], t.double(), torch.ones(6, 6, dtype=torch.bool)), [0]
    advance = LawField.advance

    def counted(self: LawField, z: torch.Tensor, dt: float, number: int) -> torch.Tensor:
        steps[0] += number * len(z)
        return advance(self, z, dt, number)

    monkeypatch.setattr(LawField, "advance", counted)
    exact, each = with_rates(string(), data), steps[0]
    rough = with_rates(string(), data, error=1e-2, roughly=True)
    assert steps[0] - each < each / 6
    for found, off in ((exact, 1e-5), (rough, 0.05)):
        missed = (found.codes - paths)[found.observed]
        assert missed.norm() < off * paths[found.observed][:, COUNT:].norm()
    assert rough.observed[:, :-1].all() and not rough.observed[:, -1].any()
