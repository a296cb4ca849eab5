import pytest
import torch
from inrflow_kernels import modulated_siren
from inrflow_kernels.cpu import blocked
from inrflow_kernels.cpu.workers import run_in_parallel
from siren_problems import make_problem


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_parts_are_consecutive_and_results_in_order(four_threads):
    assert run_in_parallel(range(10), list, 4) == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]


def test_workers_leave_threads_and_gradient_mode_as_they_were(four_threads):
    modes = run_in_parallel(range(8), lambda part: (torch.is_grad_enabled(), torch.get_num_threads()), 4)
    assert modes == [(False, 1)] * 4
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == 4


def test_an_error_in_a_worker_reaches_the_caller(four_threads):
    with pytest.raises(ZeroDivisionError):
        run_in_parallel(range(4), lambda part: [1 // item for item in part], 4)


@pytest.mark.parametrize("points", ["shared", "per_sample", "ragged"])
def test_gradients_are_bitwise_the_same_in_every_run(points, four_threads, monkeypatch):
    monkeypatch.setattr(blocked, "rows_per_block", lambda arguments, block_bytes: 8)
    problem = make_problem(points=points, modulated="shift gain output", dtype=torch.float32)
    runs = []
    for _ in range(3):
        trainable = problem.trainable()
        value = modulated_siren(*trainable.positional(), **trainable.options, backend="torch")
        runs.append((value, *torch.autograd.grad(value.square().sum(), trainable.leaves())))
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))
