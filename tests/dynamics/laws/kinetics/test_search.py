"""Functions with a constant among the terms of laws."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from inrflow.domains import NATURAL, Box
from inrflow.dynamics.laws import fit_law
from inrflow.dynamics.laws.families import Families, families_of
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.kinetics.search import with_functions
from inrflow.dynamics.laws.setting import Data, prepare_data
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import LAPLACIAN, VALUE, Term
from inrflow.numerics.kinetics import ARRHENIUS, FUNCTION, HILL, kind_and_constant, number_of

LINE = Box([0.0], [2.0], ["walled"])
Rate = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def holling(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prey and predators that it satiates (Holling 1959)."""
    eaten = 1.3 * u * v / (u + 0.4)
    return u * (1 - u) - eaten, 0.8 * eaten - 0.4 * v


def oscillating(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FitzHugh and Nagumo's cubic law."""
    return u - u**3 - v, 0.2 * (u + 0.3 - 0.5 * v)


def _fields(rate: Rate, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times (T,), points (N, 1) and values (S, T, N, 2) of u_t = .01 u_xx + f, v_t = .02 v_xx + g without flux:
    finite differences."""
    n, t, random = 40, np.arange(10) * 0.4, np.random.default_rng(3)
    x = (np.arange(n) + 0.5) * 2 / n

    def change(_: float, y: np.ndarray) -> np.ndarray:
        w = y.reshape(2, n)
        spread = np.diff(np.pad(w, ((0, 0), (1, 1)), mode="edge"), 2) * (n / 2) ** 2
        return (np.array([[0.01], [0.02]]) * spread + np.stack(rate(*w))).ravel()

    waves = np.cos(np.pi * np.arange(4)[:, None] * x / 2) / (1 + np.arange(4)[:, None])
    starts = 0.55 + 0.2 * np.tanh(random.standard_normal((8, 2, 4)) @ waves)
    u = np.stack([solve_ivp(change, (0, t[-1]), one.ravel(), "BDF", t, rtol=1e-8, atol=1e-10).y.T for one in starts])
    u = u.reshape(8, 10, 2, n).swapaxes(2, 3)
    return t, x[:, None], u + noise * u.std() * random.standard_normal(u.shape)


def _extended(rate: Rate, noise: float = 0.0, late: bool = False) -> tuple[Families, Families]:
    """First families of such fields, and with functions."""
    t, x, u = _fields(rate, noise)
    encoded, _, _ = prepare_data(Data.of(t, x, u), [LINE], NATURAL, 0, lambda _: None)
    first = families_of(encoded.domain, encoded.codes.harmonics, encoded.states)
    return first, with_functions(first, encoded, lambda _: None, lambda: late)


def test_a_rate_that_saturates_is_found_with_its_constant() -> None:
    _, families = _extended(holling)
    functions = {factor for term in families.terms["kinetics"] for factor in term.products[0] if factor[1] <= FUNCTION}
    ((channel, number),) = functions
    kind, constant = kind_and_constant(number)
    assert (channel, kind) == (0, HILL[0]) and constant == pytest.approx(0.4, rel=5e-3)


@pytest.mark.parametrize(("rate", "noise"), [(oscillating, 0.0), (oscillating, 0.05), (holling, 0.2)])
def test_no_function_is_sought_beside_cubic_laws_or_found_in_noise(rate: Rate, noise: float) -> None:
    first, families = _extended(rate, noise)
    assert families is first


def test_with_noise_functions_are_further_terms_for_forecasts_to_choose() -> None:
    first, families = _extended(holling, 0.01)
    assert families.terms == first.terms and families.later[1:] == first.later
    assert "kinetics" in families.later[0].terms and "kinetics" not in first.terms


def test_no_function_is_sought_when_time_is_over() -> None:
    first, families = _extended(holling, late=True)
    assert families is first


def test_a_saturating_law_forecasts_and_is_written_and_saved_with_its_constant() -> None:
    t, x, u = _fields(holling)
    law = fit_law(t, x, u, LINE, boundary=NATURAL, seconds=1)
    functions = [term for term in law.terms if any(axis <= FUNCTION for _, axis in term.products[0])]
    assert functions and any("v 1/(u+0." in line for line in law.written(["u", "v"]))
    later = law.rollout(law.encode(x, u[:, 0]).flatten(1), t)
    assert float(np.mean((law.decode(later[:, -1], x) - u[:, -1]) ** 2)) < 1e-10 * u.var()
    ((channel, number),) = law.functions
    assert channel == 0 and kind_and_constant(number) == (HILL[0], pytest.approx(0.4, rel=1e-4))
    term = LawTerm.of(law)
    again = LawTerm(**term.structure())
    z = later[:, 3]
    assert torch.equal(term(torch.zeros(()), z), again(torch.zeros(()), z))


@pytest.mark.parametrize("kind", [ARRHENIUS, *HILL])
def test_jacobians_of_laws_with_functions_are_those_of_differences(kind: int) -> None:
    factor = (0, number_of(kind, 0.6))
    terms = [Term((product,)) for product in (((1, VALUE), factor), (factor,), (factor, (0, LAPLACIAN)))]
    terms.append(Term(((factor,),), 1))
    theta = torch.tensor(np.random.default_rng(2).standard_normal((4, 2)))
    harmonics = LINE.harmonics(9, NATURAL)
    field = LawField.of(terms, harmonics, theta)
    z = 0.1 * torch.tensor(np.random.default_rng(1).standard_normal((1, 18)))
    z[:, [0, 9]] = 2.0
    slopes = torch.autograd.functional.jacobian(lambda one: field(0.0, one[None])[0], z[0])
    torch.testing.assert_close(field.slopes(z)[0] + field.linear, slopes, rtol=1e-6, atol=1e-8)
