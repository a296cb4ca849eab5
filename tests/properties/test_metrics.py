"""What every registered metric must do: values of the whole, whatever the blocks it comes in."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inrflow.evaluation.metrics import METRICS, Block, ChannelStatistics
from inrflow.evaluation.metrics.base import report_of

S, T, N, C = 7, 5, 6, 2
every_metric = pytest.mark.parametrize("name", sorted(METRICS))
random_trials = settings(max_examples=12, deadline=None, derandomize=True)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """Forecasts of S trajectories, some truths unknown; with or without observed points and deviations."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 999)))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    truth = 3 + normal(S, T, N, C)
    prediction = truth + 0.3 * normal(S, T, N, C)
    unknown = torch.rand(truth.shape, generator=random) < draw(st.sampled_from([0.0, 0.3]))
    return Block(
        prediction, torch.where(unknown, torch.nan, truth),
        torch.arange(T).expand(S, T) < torch.randint(1, T, (S, 1), generator=random),
        torch.rand(S, N, generator=random) < 0.5 if draw(st.booleans()) else None,
        0.3 * normal(S, T, N, C).abs() if draw(st.booleans()) else None,
    )


def rows(block: Block, chosen: torch.Tensor) -> Block:
    """Some trajectories of a block."""
    parts = (block.prediction, block.truth, block.in_time, block.observed_points, block.std)
    return Block(*(None if part is None else part[chosen] for part in parts))


def value(name: str, parts: list[Block]) -> dict:
    channels = ChannelStatistics(("u", "v"))
    metric = METRICS[name](channels)
    for part in parts:
        channels.update(part.truth)
        metric.update(part)
    return report_of([metric])


def numbers(report: object) -> list[float]:
    """All numbers of a nested report in order, NaN for null."""
    if isinstance(report, dict):
        return [number for item in report.values() for number in numbers(item)]
    if isinstance(report, list):
        return [number for item in report for number in numbers(item)]
    return [np.nan if report is None else float(report)]


@every_metric
@given(data=st.data())
@random_trials
def test_values_do_not_depend_on_the_blocks_nor_on_their_order(name, data):
    block = data.draw(blocks())
    order = torch.tensor(data.draw(st.permutations(range(S))))
    cuts = sorted(data.draw(st.sets(st.integers(1, S - 1))))
    parts = [rows(block, chosen) for chosen in order.tensor_split(cuts)]
    whole, split = value(name, [block]), value(name, parts)
    json.dumps(whole, allow_nan=False)
    assert whole.keys() == split.keys() and whole
    np.testing.assert_allclose(numbers(split), numbers(whole), rtol=1e-9, atol=1e-12)


@every_metric
@given(data=st.data())
@random_trials
def test_values_where_the_truth_is_unknown_are_of_no_account(name, data):
    block = data.draw(blocks())
    noise = torch.where(torch.isfinite(block.truth), 0.0, 1e6)
    std = None if block.std is None else block.std + noise
    other = Block(block.prediction + noise, block.truth, block.in_time, block.observed_points, std)
    np.testing.assert_allclose(numbers(value(name, [other])), numbers(value(name, [block])), rtol=1e-9, atol=1e-12)


@every_metric
def test_titles_and_compared_keys_are_keys_of_the_value(name):
    random = torch.Generator().manual_seed(0)
    truth = torch.randn(S, T, N, C, generator=random, dtype=torch.float64)
    block = Block(truth + 0.1, truth, torch.ones(S, T, dtype=torch.bool), None, torch.full_like(truth, 0.1))
    metric = METRICS[name]
    assert set(metric.titles) | set(metric.compared) <= value(name, [block]).keys()
