"""Quadratic dynamics as a candidate: products that the time allows, and a search that finds the size of a system."""

from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from inrflow.dynamics.states import CodeData
from inrflow.training.budget import Budget
from inrflow.training.parts.quadratic import QuadraticSearch, number_of_products, refitted
from inrflow.training.recorder import Recorder


def logistic(starts: torch.Tensor, frames: int = 8) -> CodeData:
    """Codes (S, T, 2): ds/dt = s (1 - s) for both, in closed form, steps of one internal unit."""
    t = torch.arange(frames).double()
    grown = starts[:, None] * (0.3 * t).exp()[:, None]
    codes = grown / (1 - starts[:, None] + grown)
    return CodeData(codes, t.expand(len(starts), -1), torch.ones(codes.shape[:2], dtype=torch.bool))


@pytest.fixture
def stage(tmp_path):
    random = torch.Generator().manual_seed(0)
    starts = 0.1 + 0.8 * torch.rand(12, 2, generator=random, dtype=torch.float64)
    recorder = Recorder(tmp_path, Console(quiet=True))
    return QuadraticSearch(logistic(starts[:9]), logistic(starts[9:]), 0, recorder)


def test_a_quadratic_law_is_found_at_its_full_size(stage):
    with stage.log:
        found = stage.search([1, 2], 3)
    assert found is not None and found.size == 2
    assert found.score < 1e-4
    assert stage.error(found.field()) == pytest.approx(found.score, rel=1e-6)


def test_a_refit_keeps_size_and_products_and_forecasts_as_well(stage):
    with stage.log:
        found = stage.search([2], 3)
    again = refitted(found, CodeData.join([stage.train, stage.validation]))
    assert (again.size, len(again.left), again.ridges) == (found.size, len(found.left), found.ridges)
    assert stage.error(again.field()) < 1.5 * found.score + 1e-8


def test_the_number_of_products_is_the_wanted_one_or_follows_from_the_time(stage):
    def count(wanted, seconds):
        settings = SimpleNamespace(dynamics=SimpleNamespace(products=wanted))
        run = SimpleNamespace(config=settings, budget=Budget(seconds / 60))
        return number_of_products(run, stage.train)

    assert count(7, 0.0) == 7
    assert count(None, 0.0) == count(None, -1.0) == 0
    few, many = count(None, 5e-6), count(None, 2e-5)
    assert 0 < few and many == pytest.approx(2 * few, abs=2)
    assert count(None, 1e9) == 4000

