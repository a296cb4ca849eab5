"""GPU rows of the throughput benchmark on tiny problems, with interpreted kernels and simulated events."""

from dataclasses import replace

import pytest
import torch

from benchmarks.cost import kernel_correctness, kernel_throughput

CPU = torch.device("cpu")
ROWS = {
    (case.mode, case.provider): replace(case, width=32, layers=2, samples=2, points=20)
    for case in kernel_throughput.cuda_cases(quick=True)
    if "compile" not in case.provider
}


@pytest.mark.parametrize("case", ROWS.values(), ids=lambda case: f"{case.mode}, {case.provider}")
def test_every_row_can_be_computed(case):
    if "triton" in case.provider:
        pytest.importorskip("triton")
    kernel_throughput.step(case, CPU)()


def test_every_mode_is_measured_with_and_without_the_kernels():
    for mode in kernel_throughput.MODES:
        providers = {provider for row_mode, provider in ROWS if row_mode == mode}
        assert {"eager", "triton fast"} <= providers


def test_backends_are_compared_with_float64():
    pytest.importorskip("triton")
    backends = ["torch", "triton fast", "triton accurate"]
    errors = kernel_correctness.check_correctness(CPU, backends, small=True)
    assert list(errors) == backends and all(0 < error < 2e-3 for error in errors.values())


def test_a_wrong_backend_ends_the_run(monkeypatch):
    right = kernel_correctness.modulated_siren
    monkeypatch.setattr(kernel_correctness, "modulated_siren", lambda **given: 1.001 * right(**given))
    with pytest.raises(AssertionError, match="torch at width 32"):
        kernel_correctness.check_correctness(CPU, ["torch"], small=True)


def test_times_on_a_gpu_are_those_between_events(monkeypatch):
    clock = [0.0]

    class Event:
        def __init__(self, enable_timing):
            self.at = None

        def record(self):
            self.at = clock[0]

        def elapsed_time(self, later):
            return later.at - self.at

    def run():
        clock[0] += 250.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert kernel_throughput._seconds_on_cuda(run) == [0.25] * 5
