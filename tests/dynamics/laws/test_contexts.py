"""Contexts of laws against coefficients that were put in, and finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inrflow.domains import Box
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Dynamics, Integrator
from inrflow.dynamics.laws import Systems, contexts, families, fit, fit_law
from inrflow.dynamics.laws.contexts import context_searches, standardise_contexts, with_new_contexts
from inrflow.dynamics.laws.families import Families, misfit_of_all
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.library import Library
from inrflow.dynamics.laws.setting import Data, EncodedData, encode
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import VALUE, Term, basic_terms
from inrflow.encoding.harmonic_codes import fit_codes
from inrflow.model.contexts import parameter_contexts
from inrflow.numerics.effort import OutOfTime
from inrflow.numerics.polynomials import affine

LINE = Box([0.0], [1.0], ["walled"])
TERMS = [Term((((0, VALUE),),), 1), Term((((0, VALUE),) * 3,))]
SHORT = Families(basic_terms(1, 1), (("linear", "products"),))
RATES = np.array([0.01, 0.02, 0.03, 0.05])  # of diffusion, one for each system
LAPLACIAN = TERMS[0]


def _paths(rates: np.ndarray, cubic: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u_t = rate u_xx - cubic u^3 from random fields on 16 cosines, read at 40 points; cubic: 1 by default."""
    cubic = np.ones(len(rates)) if cubic is None else cubic
    library, t = Library(TERMS, LINE.harmonics(16)), np.arange(8) * 0.1
    x = (np.arange(40)[:, None] + 0.5) / 40
    z = torch.tensor(np.random.default_rng(0).standard_normal((len(rates), 16)) / (1 + np.arange(16)) ** 2)
    paths = []
    for rate, third, start in zip(rates, cubic, z, strict=True):
        field, path = LawField(library, torch.tensor([[rate], [-third]])), [start[None]]
        for _ in t[1:]:
            path.append(field.advance(path[-1], 0.1, 8))
        paths.append(torch.cat(path).numpy() @ LINE.harmonics(16).values(x).T)
    return t, x, np.stack(paths)[..., None]


def test_a_coefficient_that_differs_between_systems_is_found_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "families_of", lambda *_: SHORT)
    number = np.repeat(np.arange(4), 4)
    t, x, u = _paths(RATES[number])
    law = fit_law(t, x, u, LINE, boundary="natural", seconds=10.0, systems=Systems(number, 4, (1,)))
    j = law.terms.index(LAPLACIAN)
    found = [law.theta_at(context)[j, 0] for context in law.contexts]
    np.testing.assert_allclose(found, RATES, rtol=1e-3)
    assert np.argwhere(law.by_context).tolist() == [[0, j, 0]]  # no other one depends on the system
    np.testing.assert_allclose(law.contexts.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(law.contexts.std(0), 1, rtol=1e-6)


@pytest.mark.parametrize("alike", [True, False])
def test_coefficients_take_as_many_numbers_as_they_differ_by(alike: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "families_of", lambda *_: SHORT)
    number, parameter = np.repeat(np.arange(5), 4), np.array([0.6, 0.7, 0.9, 1.2, 1.6])
    rates, cubic = 0.02 * parameter, 0.3 * (parameter if alike else 1 / parameter)
    t, x, u = _paths(rates[number], cubic[number])
    solved, contexts_of = list[tuple](), contexts.contexts_of
    monkeypatch.setattr(contexts, "contexts_of", lambda *given: solved.append(given) or contexts_of(*given))
    law = fit_law(t, x, u, LINE, boundary="natural", seconds=10.0, systems=Systems(number, 5, (1, 2)))
    assert law.count == 2 - alike
    found = np.array([law.theta_at(context)[[law.terms.index(term) for term in TERMS], 0] for context in law.contexts])
    np.testing.assert_allclose(found, np.stack([rates, -cubic], 1), rtol=1e-2)
    keys = [(id(equations), tuple(map(tuple, support)), count) for equations, _, support, count in solved]
    assert len(keys) == len(set(keys))  # once for each support


def test_a_misfit_of_zero_is_the_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    regress = fit.regress  # equations of few points may be missed by nothing at all
    monkeypatch.setattr(fit, "regress", lambda *given: [(0.0, law) for _, law in regress(*given)])
    monkeypatch.setattr(fit, "families_of", lambda *_: SHORT)
    t, x, u = _paths(np.full(8, 0.02))
    law = fit_law(t, x, u, LINE, boundary="natural", seconds=5.0)
    assert law.theta[law.terms.index(LAPLACIAN), 0] == pytest.approx(0.02, rel=1e-2)


def test_the_best_law_is_kept_where_the_clock_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object, **__: object) -> None:
        raise OutOfTime

    monkeypatch.setattr(fit, "families_of", lambda *_: SHORT)
    monkeypatch.setattr(fit, "refine", ended)
    monkeypatch.setattr(fit.LawSearch, "of_second_order", ended)
    law = fit_law(*_paths(np.full(8, 0.02)), LINE, boundary="natural", seconds=5.0, rates=True)
    assert law.theta[law.terms.index(LAPLACIAN), 0] == pytest.approx(0.02, rel=1e-2)


@pytest.mark.parametrize(("left", "regress"), [(10.0, 2), (4.0, 1)])
def test_laws_are_forecast_before_the_clock_is_over(left: float, regress: int) -> None:
    """Of waves of unrelated frequencies that no family of few terms holds, with some of ten seconds left."""
    draw, t, x = np.random.default_rng(1), np.arange(8) * 0.4, (np.arange(40) + 0.5) / 40
    k, phase = np.arange(5), draw.uniform(0, 7, (12, 1, 1, 5))
    u = np.cos(t[:, None, None] * (1 + k) ** 1.3 + phase) * np.cos(np.pi * k * x[:, None]) / (1 + k)
    lines, clock = list[str](), iter([10.0])

    def log(line: str) -> None:
        lines.append(line)
        if " terms, effort" in line:  # a forecast
            raise LookupError

    with pytest.raises(LookupError):
        fit_law(t, x[:, None], u.sum(-1)[..., None], LINE, boundary="natural", seconds=5.0, log=log,
                clock=lambda: next(clock, left))
    assert min(sum(" candidates of " in line for line in lines), 2) == regress


def test_every_trajectory_may_be_a_system_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "families_of", lambda *_: SHORT)  # the others take time, and are not of this law
    rates = np.linspace(0.01, 0.05, 4)
    t, x, u = _paths(rates)
    law = fit_law(t, x, u, LINE, boundary="natural", seconds=30.0, systems=Systems(np.arange(4), 4, (1,)))
    found = [law.theta_at(context)[law.terms.index(LAPLACIAN), 0] for context in law.contexts]
    np.testing.assert_allclose(found, rates, rtol=5e-3)


@pytest.mark.parametrize("known", [True, False])
def test_contexts_are_those_that_parameters_tell_unless_these_tell_nothing(known: bool,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "families_of", lambda *_: SHORT)
    rates = np.random.default_rng(3).uniform(0.01, 0.05, 8)
    parameters = torch.tensor(rates if known else np.random.default_rng(4).uniform(1, 2, 8))[:, None]
    told = tuple(form.numpy() for form in parameter_contexts(parameters, alike=True))
    systems = Systems(np.arange(8), 8, (1,), told)
    law = fit_law(*_paths(rates), LINE, boundary="natural", seconds=10.0, systems=systems)
    j = law.terms.index(LAPLACIAN)
    assert law.contexts_given == known
    np.testing.assert_allclose([law.theta_at(context)[j, 0] for context in law.contexts], rates, rtol=1e-3)
    if known:
        *numbers, names = affine(parameters, torch.tensor(law.contexts), ["k"])
        (line,) = law.with_parameters(*(part.numpy() for part in numbers)).written(["u"], contexts=names)
        first, second = line.removeprefix("du/dt = ").split(" k lap u - ")
        assert abs(float(first) - 1) < 2e-3 and second.endswith(" u^3")


def test_contexts_of_systems_that_were_not_fitted_to_are_those_of_their_rates() -> None:
    t, x, u = _paths(np.array([0.01, 0.05]))
    data = Data.of(t, x, u, Systems(np.arange(2), 2, (1,)))
    codes = fit_codes(LINE.harmonics(16, "natural"), data.x, data.u)
    law = Law(LINE, "natural", tuple(TERMS), np.array([[0.03], [-1.0]]), np.zeros((2, 1)), codes, max_step=0.02,
              largest=1e3, by_context=np.array([[[0.01], [0.0]]]), contexts=np.zeros((2, 1)))
    found = with_new_contexts(law, data.take(np.arange(0)), data)
    np.testing.assert_allclose(found.contexts[:, 0], [-2, 2], rtol=1e-2)


def test_what_terms_leave_with_coefficients_of_each_system() -> None:
    """Little of the true terms where each system has its own coefficients, much where one is left out or all share."""
    number = np.repeat(np.arange(4), 3)
    t, x, u = _paths(RATES[number], 0.5 * np.array([4.0, 3.0, 2.0, 1.0])[number])
    data = Data.of(t, x, u, Systems(number, 4, (1,)))
    codes = fit_codes(LINE.harmonics(16), data.x, data.u)
    encoded = EncodedData(LINE, "natural", codes, data, *encode(codes, data))
    shared = replace(encoded, train=replace(data, systems=Systems(0 * number, 1, (1,))))
    assert 50 * misfit_of_all(encoded, TERMS) < min(misfit_of_all(shared, TERMS),
                                                    misfit_of_all(encoded, TERMS[:1]))


def test_no_more_contexts_are_sought_than_separate_coefficients_would_pay_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One number explains the systems up to noise, as well as any more could; with many terms none are tried."""
    number, sought = np.repeat(np.arange(4), 3), list[int]()
    t, x, u = _paths(RATES[number])
    noisy = u + 0.003 * u.std() * np.random.default_rng(1).standard_normal(u.shape)
    monkeypatch.setattr(families, "_MOST_COLUMNS", 2 * len(SHORT.all_terms))
    monkeypatch.setattr(families, "context_searches", lambda searches, count,
                        *further: sought.append(count) or context_searches(
        searches, count, *further))
    data = Data.of(t, x, noisy, Systems(number, 4, (1, 2)))
    codes = fit_codes(LINE.harmonics(16), data.x, data.u)
    laws = families.regress([EncodedData(LINE, "natural", codes, data, *encode(codes, data))], SHORT)
    assert laws[0][1].count == 1 and sought == [1]


def test_other_numbers_of_contexts_leave_the_coefficients() -> None:
    generator = np.random.default_rng(0)
    theta, by_context = generator.standard_normal((3, 2)), generator.standard_normal((2, 3, 2))
    law = Law(LINE, "natural", tuple(TERMS), theta, np.zeros((3, 2)), None,  # type: ignore[arg-type]
              by_context=by_context, contexts=generator.standard_normal((6, 2)))
    other = standardise_contexts(law, np.arange(6))
    for before, after in zip(law.contexts, other.contexts, strict=True):
        np.testing.assert_allclose(other.theta_at(after), law.theta_at(before))


@pytest.fixture
def field() -> VectorField:
    term = LawTerm(LINE.state(), "natural", 12, [term.state() for term in TERMS], [[0.02], [-1.0]],
                   by_context=[[[0.01], [0.0]], [[0.0], [0.3]]])
    return VectorField(12, [term], 2).double()


def _states() -> torch.Tensor:
    sizes = np.append((1 + np.arange(12)) ** -1.5, [1, 1])
    return torch.tensor(sizes * np.random.default_rng(1).standard_normal((5, 14)))


def test_rates_and_jacobians_depend_on_the_context_of_each_state(field: VectorField) -> None:
    states, delta = _states(), 1e-6
    now = torch.zeros(5, dtype=torch.float64)
    moved = states[:, None] + delta * torch.eye(14)
    slopes = (field(now[0], moved) - field(now[0], states)[:, None]) / delta
    torch.testing.assert_close(field.jacobian(now, states), slopes.mT, atol=1e-4, rtol=1e-4)


def test_linearised_flows_keep_contexts_and_agree_with_differences(field: VectorField) -> None:
    states, delta = _states() * torch.tensor([0.3] * 12 + [1.0] * 2), 1e-6
    dynamics = Dynamics(field, Integrator("etd", 0.05), torch.zeros(14, dtype=torch.float64))
    begin, end = torch.zeros(5).double(), torch.full((5,), 0.1).double()
    times = torch.stack([begin, end], 1)
    stop = dynamics.flow(states, times)[:, 1]
    _, flow = dynamics.propagate(torch.zeros(5, 14, 14).double(), states, stop, begin, end)
    moved = (states[:, None] + delta * torch.eye(14)).flatten(0, 1)
    ends = dynamics.flow(moved, times.repeat_interleave(14, 0))[:, 1].reshape(5, 14, 14)
    torch.testing.assert_close(flow, ((ends - stop[:, None]) / delta).mT, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(stop[:, 12:], states[:, 12:])
    _, known = dynamics.propagate(torch.zeros(5, 14, 14).double(), states, stop, begin, end, contexts=False)
    torch.testing.assert_close(known[..., :12], flow[..., :12])
    assert not known[:, :12, 12:].any()


@pytest.mark.parametrize(("number", "counts", "fitted", "judges"), [
    ([0, 1, 2, 3, 4], (), [2, 3, 4], [0, 1]),  # one system a trajectory, no contexts
    ([0, 1, 2, 3, 4], (1,), [2, 3, 4], [0, 1]),  # three systems tell one number, and test it
    ([0, 1, 2, 3, 4], (1, 2), [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),  # but not two
    ([0, 1, 0, 2, 2], (1, 2), [0, 1, 3], [2, 4]),  # which others of their system leave to all
])
def test_trajectories_judge_where_enough_systems_are_left_to_tell_contexts(number, counts, fitted, judges):
    systems = Systems(np.array(number), 1 + max(number), counts)
    mine, others = systems.split(np.arange(5), 0.4)
    assert (sorted(mine), sorted(others)) == (fitted, judges)


def test_a_coefficient_of_place_may_depend_on_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """u_t = -p c(x) u in closed form, p of .5 to 2 its own in every system: single terms would be c's average."""
    monkeypatch.setattr(fit, "families_of", lambda *_: SHORT)  # before those with coefficients of place
    parameters, t, x = np.repeat([0.5, 1.0, 2.0], 4), np.arange(6) * 0.1, (np.arange(24) + 0.5) / 24
    decay = 1 + 0.6 * np.cos(np.pi * x) + 0.3 * np.cos(3 * np.pi * x)
    starts = np.random.default_rng(0).standard_normal((12, 5)) @ np.cos(np.pi * np.outer(np.arange(5), x))
    u = starts[:, None] * np.exp(-parameters[:, None, None] * decay * t[:, None])
    number = np.repeat(np.arange(3), 4)
    law = fit_law(t, x[:, None], u[..., None], LINE, boundary="natural", seconds=60.0,
                  systems=Systems(number, 3, (1,)))
    for system, parameter in enumerate(parameters[::4]):
        own = law.theta_at(law.context_of(system))
        (base, (_, field)), = law.varying_coefficients(0, x[:, None], own).items()
        assert base == Term((((0, VALUE),),))
        np.testing.assert_allclose(field, -parameter * decay, rtol=0.02)


def test_a_coefficient_of_place_that_a_context_multiplies_is_written_as_one() -> None:
    """du/dt = .5 u + c (2 + 1.5 sqrt(2) cos(pi x)), a force of place whose amplitude alone is the system's."""
    t, x, u = _paths(RATES)
    terms = [Term((((0, VALUE),),)), Term(), Term(place=1)]
    law = Law(LINE, "natural", tuple(terms), np.array([[0.5], [0.0], [0.0]]), np.zeros((3, 1)),
              fit_codes(LINE.harmonics(16, "natural"), x, u), max_step=0.02, largest=1e3,
              by_context=np.array([[[0.0], [2.0], [1.5]]]), contexts=np.zeros((4, 1)))
    (line,) = law.written(["u"], ["x"], ["p"])
    assert line.startswith("du/dt = 0.5") and " u + a p (a from " in line and line.endswith("0.121 to 4.12)")
    assert law.written(["u"], ["x"]) == [line.replace("a p", "a c")]
