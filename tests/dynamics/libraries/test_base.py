"""What every library of features must do: rates that it holds are found, and are a fixed point of its corrections."""

import pytest
import torch
from torchdiffeq import odeint

from inrflow.dynamics.libraries.integral_form import refit, search
from inrflow.dynamics.libraries.quadratic import QuadraticFit
from inrflow.dynamics.states import CodeData


def predator(t, s):
    """Lotka and Volterra's equations."""
    x, y = s.unbind(-1)
    return torch.stack([0.4 * x - 0.3 * x * y, 0.2 * x * y - 0.3 * y], -1)


def quadratic():
    start = 1 + torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = 1.5 * torch.arange(6).double()
    codes = odeint(predator, start, t, rtol=1e-10, atol=1e-12).transpose(0, 1)
    states = CodeData(codes, t.expand(20, -1), torch.ones(20, 6, dtype=torch.bool))
    return QuadraticFit(states, 3), states, lambda s: predator(None, s)


def test_corrections_along_the_flow_come_nearer_to_the_rates_and_a_refit_repeats_them() -> None:
    library, states, truth = quadratic()
    seen = states.codes[:, 0]
    expected = truth(seen).detach()

    def error(solution) -> float:
        rate = library.field(solution)(torch.zeros(()).double(), seen).detach()
        return float((rate - expected).square().sum() / expected.square().sum())

    ((ridge, first),) = library.solutions(None, [1e-9])
    assert ridge == 1e-9 and error(first) < 1e-1
    fitted = search(library, error, (1e-10, 1e-8), 4, (1e-9,))
    assert fitted is not None and fitted.score < 1e-5 and fitted.score < 0.5 * error(first)
    assert fitted.ridges[0] == 1e-9 and len(fitted.ridges) > 1
    again = refit(library, fitted.ridges)
    assert error(again) == pytest.approx(fitted.score, rel=1e-3, abs=1e-12)


def test_a_search_in_which_everything_diverges_ends_without_a_solution() -> None:
    library, _, _ = quadratic()
    assert search(library, lambda _: float("inf"), (1e-9, 1e-3), 2) is None
