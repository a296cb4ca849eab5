"""Throughput of the modulated SIREN by provider, as a table and a JSON file.

    python benchmarks/cost/kernel_throughput.py [--out FILE] [--quick] [--minutes M]

With a CUDA device: a check of correctness, then forward, forward and backward, modulation gradients alone, shared
trunk and tangents, for eager torch, torch.compile and the Triton kernels, most important rows first; no row begins
after 7 minutes. Without one: the CPU rows, each in its own process to measure its peak memory. Columns are explained in
benchmarks/cost/KERNELS.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from inrflow_kernels import modulated_siren, modulated_siren_jvp

from benchmarks.cost.kernel_correctness import by_reference, check_correctness, random_siren

MODES = ("forward", "forward+backward", "modulations only", "shared trunk", "tangents")
# Eager evaluation of every (sample, point) pair under output modulation, as without a shared trunk.
EVERY_PAIR = "eager, every pair"


@dataclass(frozen=True)
class Case:
    """Problem and provider of one row."""

    mode: str
    provider: str
    width: int = 64
    layers: int = 4
    samples: int = 640
    points: int = 4096
    channels: int = 1
    repeats: int = 5


def problem(case: Case, device: torch.device) -> dict:
    """Weights and codes, the same for every provider."""
    return random_siren(
        case.width, case.layers, case.samples, case.points, case.channels, case.mode == "shared trunk", device
    )


def _expanded(arguments: dict, samples: int) -> dict:
    """Arguments of the same values that make every (sample, point) pair be evaluated."""
    x = arguments["x"].expand(samples, -1, -1)
    return arguments | dict(x=x, shift=arguments["shift"].expand(samples, -1, -1))


def evaluation(case: Case, arguments: dict) -> Callable[[], torch.Tensor]:
    """Provider's forward function of the given arguments."""
    provider = case.provider
    if provider == EVERY_PAIR:
        arguments = _expanded(arguments, case.samples)
    if provider.startswith("eager"):
        return lambda: _in_precision(by_reference, provider.partition(" ")[2], arguments)
    if provider.startswith("compile"):
        # Rows compile the same function; without a reset the recompilation limit would leave it eager.
        torch.compiler.reset()
        compiled = torch.compile(by_reference, dynamic=False)
        return lambda: _in_precision(compiled, provider.partition(" ")[2], arguments)
    backend, _, precision = provider.partition(" ")
    options = dict(backend={"blocked": "torch"}.get(backend, backend), precision=precision or "auto")
    return lambda: modulated_siren(**arguments, **options)


def _in_precision(function: Callable, precision: str, arguments: dict) -> torch.Tensor:
    device = arguments["x"].device.type
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    if precision in ("fp16", "bf16"):
        with torch.autocast(device, dtype=torch.float16 if precision == "fp16" else torch.bfloat16):
            return function(**arguments)
    return function(**arguments)


def step(case: Case, device: torch.device) -> Callable[[], object]:
    """Function to time: one evaluation, or one evaluation and its gradients."""
    arguments = problem(case, device)
    if case.mode == "tangents":
        tangent = torch.ones(8, *arguments["shift"].shape, device=device)
        backend, _, precision = case.provider.partition(" ")
        options = dict(backend={"blocked": "torch", "eager": "reference"}.get(backend, backend))
        options["precision"] = precision or "auto"
        return _without_graph(lambda: modulated_siren_jvp(**arguments, shift_tangent=tangent, **options))
    if case.mode in ("forward", "shared trunk"):
        return _without_graph(evaluation(case, arguments))
    trained = [arguments["shift"]]
    if case.mode == "forward+backward":
        trained += [*arguments["hidden_weights"], arguments["output_weight"], arguments["output_bias"]]
    for tensor in trained:
        tensor.requires_grad_()
    function = evaluation(case, arguments)

    def forward_and_backward() -> None:
        value = function()
        torch.autograd.grad(value.float().square().mean(), trained)

    return forward_and_backward


def _without_graph(function: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return function()

    return run


def measure(case: Case) -> dict:
    """Seconds (median, 20 and 80 % quantiles), pairs per second and additional peak memory in bytes."""
    device = _device()
    run = step(case, device)
    before = _start_of_peak(device)
    run()  # compiles and warms up
    if device.type == "cuda":  # exclude the memory of compilation
        before = _start_of_peak(device)
    seconds = _seconds_on_cuda(run) if device.type == "cuda" else _seconds_on_cpu(run, case.repeats)
    quantiles = torch.tensor(seconds, dtype=torch.float64).quantile(torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64))
    low, median, high = quantiles.tolist()
    return asdict(case) | dict(
        median_s=median,
        q20_s=low,
        q80_s=high,
        points_per_s=case.samples * case.points / median,
        peak_bytes=_peak(device) - before,
        share_of_floor=_share_of_floor(case, median, device),
    )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _seconds_on_cpu(run: Callable[[], object], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def _seconds_on_cuda(run: Callable[[], object]) -> list[float]:
    """Device time between events around queued calls, for about a second in all.

    Includes everything a call launches; caches are not flushed between calls.
    """

    def timed(repeats: int) -> list[float]:
        events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
        events[0].record()
        for event in events[1:]:
            run()
            event.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1e3 for a, b in zip(events[:-1], events[1:], strict=True)]

    return timed(max(5, min(200, int(3 / max(sum(timed(3)), 1e-6)))))


def _start_of_peak(device: torch.device) -> int:
    """Bytes in use now; resets the peak where possible."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak(device)


def _peak(device: torch.device) -> int:
    """Peak bytes since `_start_of_peak`, or of the process where the peak cannot be reset (not Linux)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _share_of_floor(case: Case, seconds: float, device: torch.device) -> float | None:
    """Ratio of the hardware bound to the measured time of the Triton kernels; None for others.

    Per clock and multiprocessor, the special function unit computes 16 sines and the tensor cores 1024 (sm_80) or 2048
    (sm_90 and later) 16-bit multiply-adds. The backward pass needs two sines and three products per forward one.
    """
    if device.type != "cuda" or case.mode not in ("forward", "forward+backward") or "triton" not in case.provider:
        return None
    properties = torch.cuda.get_device_properties(device)
    clock = properties.clock_rate * 1e3 if hasattr(properties, "clock_rate") else None
    if clock is None:
        return None
    activations = case.samples * case.points * case.layers * case.width
    sines = activations / (16 * properties.multi_processor_count * clock)
    rate = (2048 if properties.major >= 9 else 1024) * properties.multi_processor_count * clock
    products = activations * case.width * (case.layers - 1) / case.layers / rate
    forward = max(sines, products)
    return (forward if case.mode == "forward" else forward + max(2 * sines, 3 * products)) / seconds


def cpu_cases(quick: bool) -> list[Case]:
    samples = 40 if quick else 640
    repeats = 2 if quick else 3
    cases = []
    for mode, baseline in (
        ("forward", "eager"),
        ("forward+backward", "eager"),
        ("shared trunk", EVERY_PAIR),
        ("modulations only", "eager"),
    ):
        cases += [Case(mode, provider, samples=samples, repeats=repeats) for provider in (baseline, "blocked")]
    cases += [
        Case(mode, provider, width=128, samples=samples // 8, repeats=repeats)
        for mode in ("forward", "forward+backward")
        for provider in ("eager", "blocked")
    ]
    cases += [Case("tangents", provider, samples=samples // 20, repeats=repeats) for provider in ("eager", "blocked")]
    return cases


def cuda_cases(quick: bool) -> list[Case]:
    """Rows for a GPU, most important first."""
    cases = []
    for width in (64,) if quick else (64, 128, 256, 32):
        # Eager activations of width 128 at 640 x 4096 do not fit beside their gradients.
        samples = 640 if width <= 64 else 160
        main = width in (64, 128)
        forward = ["eager", "compile fp16", "triton fast", "triton accurate", "triton bf16"]
        cases += [Case("forward", p, width, samples=samples) for p in [*forward, *(["compile tf32"] if main else [])]]
        if width <= 128:
            providers = ("eager", "compile fp16", *(["compile tf32"] if main else []), "triton fast")
            cases += [Case("forward+backward", p, width, samples=samples) for p in providers]
            cases += [Case("modulations only", p, width, samples=samples) for p in providers]
        if width == 64:
            trunk = (EVERY_PAIR, "eager", "triton fast", "triton accurate")
            cases += [Case("shared trunk", provider) for provider in trunk]
            cases += [Case("tangents", p, samples=80) for p in ("eager", "triton fast", "triton accurate")]
    cases += [Case("forward", "triton fast", layers=layers) for layers in (1, 2, 6)]
    cases += [Case("forward", "triton fast", samples=s, points=n) for s, n in ((1, 65536), (64, 1024), (4096, 256))]
    cases += [Case("forward", provider) for provider in ("compile", "compile bf16")]
    return cases


def environment() -> dict:
    """Device, threads and versions on which figures depend."""
    cuda = torch.cuda.is_available()
    try:
        import triton

        triton_version = triton.__version__
    except ImportError:
        triton_version = None
    return dict(
        device=torch.cuda.get_device_name() if cuda else _processor(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        triton=triton_version,
        python=platform.python_version(),
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _in_own_process(case: Case) -> dict:
    """Measurement in a new process, whose peak memory is that of this row; the reason if it fails."""
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"ended with status {done.returncode}"]
        return asdict(case) | dict(error=reason[0])
    return json.loads(done.stdout.splitlines()[-1])


def _in_this_process(case: Case) -> dict:
    try:
        return measure(case)
    except Exception as error:
        failed = asdict(case) | dict(error=f"{type(error).__name__}: {error}".splitlines()[0])
    # The failed call's tensors are released only here.
    torch.cuda.empty_cache()
    return failed


HEADER = ("mode", "provider", "H", "L", "S", "N", "median s", "20-80 % s", "M points/s", "peak MB", "of floor")


def as_table(rows: list[dict]) -> str:
    """Rows as a Markdown table."""
    lines = ["| " + " | ".join(HEADER) + " |", "| " + " | ".join("---" for _ in HEADER) + " |"]
    for row in rows:
        sizes = [str(row[key]) for key in ("width", "layers", "samples", "points")]
        if "error" in row:
            figures = [row["error"][:60], "", "", "", ""]
        else:
            share = row["share_of_floor"]
            figures = [
                f"{row['median_s']:.4g}",
                f"{row['q20_s']:.4g}-{row['q80_s']:.4g}",
                f"{row['points_per_s'] / 1e6:.3g}",
                f"{row['peak_bytes'] / 1e6:.0f}",
                "" if share is None else f"{share:.0%}",
            ]
        lines.append("| " + " | ".join([row["mode"], row["provider"], *sizes, *figures]) + " |")
    return "\n".join(lines)


def gains(rows: list[dict]) -> list[str]:
    """Speed and memory of each provider relative to the first of its mode and size, in sentences."""
    lines, baselines = [], {}
    for row in rows:
        if "error" in row:
            continue
        key = tuple(row[name] for name in ("mode", "width", "layers", "samples", "points"))
        base = baselines.setdefault(key, row)
        if base is not row:
            faster = base["median_s"] / row["median_s"]
            smaller = base["peak_bytes"] / max(1, row["peak_bytes"])
            lines.append(
                f"{row['mode']}, H={row['width']}: {row['provider']} is {faster:.2f} times as fast as "
                f"{base['provider']}, with {smaller:.1f} times less memory"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("kernel_throughput.json"), help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="small problems, one width on a GPU")
    parser.add_argument(
        "--minutes", type=float, help="begin no row later than this (default: 7 on a GPU, no limit on a CPU)"
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(Case(**json.loads(options.case)))))
        return
    started, cuda = time.monotonic(), torch.cuda.is_available()
    minutes = options.minutes or (7.0 if cuda else float("inf"))
    backends = ["torch", *(["triton fast", "triton bf16", "triton accurate"] if cuda else [])]
    errors = check_correctness(_device(), backends)
    print("relative errors against float64:", {name: f"{error:.1e}" for name, error in errors.items()}, flush=True)
    rows: list[dict] = []
    report = dict(environment=environment(), errors=errors, rows=rows)
    for case in cuda_cases(options.quick) if cuda else cpu_cases(options.quick):
        if time.monotonic() - started > 60 * minutes:
            rows.append(asdict(case) | dict(error="not measured: the time was over"))
        else:
            rows.append(_in_this_process(case) if cuda else _in_own_process(case))
        print(as_table(rows[-1:]).splitlines()[-1], flush=True)
        partial = options.out.with_name(options.out.name + ".partial")
        partial.write_text(json.dumps(report, indent=1))
        os.replace(partial, options.out)
    print(f"\n{report['environment']}\n\n{as_table(rows)}\n")
    print("\n".join(gains(rows)))


if __name__ == "__main__":
    main()
