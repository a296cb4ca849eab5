"""Cost of asking a surrogate: decoding against points and codes, memory against points, rollouts against horizon.

    python benchmarks/cost/query.py [--parts decoding rollouts questions] [--decoders NAME ...] [--out FILE] [--quick]

Decoders have the sizes of the published recipes and of inrflow's default; their weights are random, which costs the
same. One thread, and a process of its own for every row. How to read the result: benchmarks/cost/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from torch import Tensor

from benchmarks.common import as_table, child_rows, environment, exponent, peak_bytes
from inrflow.data.batch import Normalisation, TimeScale
from inrflow.data.description import Description
from inrflow.data.observations import Observations
from inrflow.decoders.base import Decoder
from inrflow.decoders.embeddings import Embedding, PeriodicEmbedding
from inrflow.decoders.filter_net import FourierFilterNet
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.model.solution import Solution
from inrflow.model.state_prior import StatePrior
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.atomic_files import write_json

CODES, POINTS = 640, 1024
#: Questions to a solution: what is asked, and how times are given.
QUESTIONS = {
    "values of a frame": ("mean",),
    "values, standard deviations, derivatives of a frame": ("mean", "std", "dx", "dt"),
    "values at times of their own": ("mean",),
}
CODES_OF_MEMORY = 64
PUBLISHED = "filter net, as published"
DECODERS = (
    "SIREN, output modulation (default)",
    "harmonics alone",
    PUBLISHED,
    "filter net, points not expanded",
    "filter net, affine basis",
    "SIREN, shift modulation (CORAL)",
    "SIREN, shift and scale",
)
PARTS = ("decoding", "rollouts", "questions")
FIELDS = {"linear (default)": {"depth": 0}, "linear and network": {"depth": 3}}
_LOW, _HIGH, _PERIOD = [0.0, 0.0], [0.96875, 0.96875], [1.0, 1.0]


def make(name: str) -> tuple[Decoder, Callable[[Decoder, Tensor, Tensor], Tensor]]:
    """A decoder of one channel, and how it is asked: (decoder, x (N, 2), z (S, Z)) -> u (S, N, 1)."""
    torch.manual_seed(0)
    raw, periodic = Embedding(_LOW, _HIGH), PeriodicEmbedding(_LOW, _HIGH, _PERIOD, 2, 6)

    def plain(decoder: Decoder, x: Tensor, z: Tensor) -> Tensor:
        return decoder(x, z)

    def expanded(decoder: Decoder, x: Tensor, z: Tensor) -> Tensor:
        """Coordinates repeated for every code, so that every filter is evaluated for every pair."""
        return decoder(x.expand(len(z), *x.shape).contiguous(), z)

    def by_basis(decoder: Decoder, x: Tensor, z: Tensor) -> Tensor:
        offset, basis = decoder.basis(x)
        return offset + (z @ basis.flatten(0, 1).T).unflatten(-1, offset.shape)

    if name.startswith("filter net"):
        ask = {"as published": expanded, "points not expanded": plain, "affine basis": by_basis}
        return FourierFilterNet(raw, 1, 100), ask[name.partition(", ")[2]]
    if name.startswith("harmonics"):
        return HarmonicDecoder(periodic, 1, 100), plain
    if "default" in name:
        return ModulatedSiren(periodic, 1, 100, 128, 2, 2.0), plain
    modulation = ["shift"] if "CORAL" in name else ["shift", "scale"]
    return ModulatedSiren(raw, 1, 100, 64, 3, 5.0, modulation), plain


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Processor seconds of decoding `codes` codes at `points` points each, and the memory that it needs at its peak."""
    torch.set_num_threads(1)
    decoder, ask = make(case["decoder"])
    x = torch.rand(case["points"], 2)
    z = torch.randn(case["codes"], decoder.code_size)
    with torch.no_grad():
        ask(decoder, x, z[:8])  # the first call of its kind sets up what later ones use
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        before = peak_bytes()
        seconds = _seconds(lambda: ask(decoder, x, z))
    pairs = case["points"] * case["codes"]
    return case | {"seconds": seconds, "points_per_second": pairs / seconds, "peak_bytes": peak_bytes() - before}


def measure_question(case: dict[str, Any]) -> dict[str, Any]:
    """Processor seconds of a question to a solution, and memory at its peak beyond question and answer."""
    torch.set_num_threads(1)
    solution, count = make_solution(), case["points"]
    x = torch.rand(count, 2, dtype=torch.float64)
    own = "own" in case["question"]

    def ask(n: int) -> dict[str, Tensor]:
        times = torch.rand(n, dtype=torch.float64) * 8 if own else torch.tensor(3.3, dtype=torch.float64)
        asked = QUESTIONS[case["question"]]
        return solution.query(times, x[:n], std="std" in asked, derivatives="dx" in asked)

    ask(8192)  # the first call of its kind sets up what later ones use
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before, began = peak_bytes(), time.process_time()
    answer = ask(count)
    seconds = time.process_time() - began
    held = sum(value.numel() * value.element_size() for value in answer.values()) + (8 * count if own else 0)
    return case | {"seconds": seconds, "peak_bytes": peak_bytes() - before - held, "answer_bytes": held}


def make_solution() -> Solution:
    """A solution of inrflow's default sizes with random weights, seen in one frame of 32 x 32 points."""
    decoder, _ = make("SIREN, output modulation (default)")
    size = decoder.code_size
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    prior = StatePrior(zero, torch.eye(size, dtype=torch.float64), 1e-2 * one, zero + 1e-4, one)
    field = VectorField.of(size).double()
    box = np.array([_LOW, _HIGH])
    surrogate = Surrogate(
        Description("random", ("u",), ("x", "y"), period=(1.0, 1.0)), Normalisation(0 * one, one), decoder, field,
        Integrator(), prior, TimeScale(0.0, 1.0), box, 100.0, {},
    )
    seen = Observations(0 * one, torch.rand(POINTS, 2, dtype=torch.float64), torch.randn(1, POINTS, 1).double())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # noise is unlike any training data
        return surrogate.assimilate(seen)


def _seconds(call: Callable[[], Any], least: float = 0.3) -> float:
    """Processor time of a call: the smallest of several, for other programs can only lengthen it."""
    best, spent, calls = float("inf"), 0.0, 0
    while spent < least or calls < 2:
        began = time.process_time()
        call()
        taken = time.process_time() - began
        best, spent, calls = min(best, taken), spent + taken, calls + 1
    return best


def measure_rollout(field_name: str, horizon: int, shared: bool, trajectories: int = 32) -> dict[str, Any]:
    """Processor seconds of integrating so many trajectories over `horizon` steps."""
    torch.manual_seed(0)
    field = VectorField.of(100, width=256, **FIELDS[field_name])
    times = torch.arange(horizon + 1, dtype=torch.float64)
    if not shared:  # every trajectory has steps of its own, at most as long as the shared ones
        steps = 1 - 0.5 * torch.rand(trajectories, horizon, dtype=torch.float64)
        times = torch.cat([torch.zeros(trajectories, 1, dtype=torch.float64), steps.cumsum(1)], 1)
    start, integrator = torch.randn(trajectories, 100), Integrator()
    with torch.no_grad():
        integrator(field, start, times[..., :2])
        seconds = _seconds(lambda: integrator(field, start, times))
    return {"field": field_name, "horizon": horizon, "times": "shared" if shared else "own", "seconds": seconds}


def decode_table(rows: list[dict[str, Any]]) -> str:
    """Decoding, with how much faster every decoder is than DINo's as published on the same problem."""
    published = {(r["codes"], r["points"]): r for r in rows if r["decoder"] == PUBLISHED and "error" not in r}
    lines = []
    for row in rows:
        if "error" in row:
            lines.append([row["decoder"], row["codes"], row["points"], row["error"], "", "", ""])
            continue
        base = published.get((row["codes"], row["points"]))
        faster = row["points_per_second"] / base["points_per_second"] if base else None
        lines.append(
            [row["decoder"], row["codes"], row["points"], row["seconds"], row["points_per_second"] / 1e6]
            + [row["peak_bytes"] / 1e6, faster]
        )
    header = ("decoder", "codes", "points", "seconds", "M points/s", "peak MB", "times as fast as published")
    return as_table(header, lines)


def question_table(rows: list[dict[str, Any]]) -> str:
    """Questions to a solution."""
    lines = [
        [row["question"], row["points"], row["error"], "", ""]
        if "error" in row
        else [row["question"], row["points"], row["seconds"], row["answer_bytes"] / 1e6, row["peak_bytes"] / 1e6]
        for row in rows
    ]
    return as_table(("question", "points", "seconds", "answer MB", "peak MB beyond question and answer"), lines)


def exponents(rows: list[dict[str, Any]], rollouts: list[dict[str, Any]]) -> list[str]:
    """How cost grows: seconds and memory with points, seconds with codes, rollouts with the horizon."""
    lines = []
    for name in DECODERS:
        found = [row for row in rows if row["decoder"] == name and "error" not in row]
        if not found:
            continue
        along_points = [row for row in found if row["codes"] == CODES_OF_MEMORY]
        along_codes = [row for row in found if row["points"] == POINTS and row["codes"] != CODES_OF_MEMORY]
        points = [row["points"] for row in along_points]
        time_exponent = exponent(points, [row["seconds"] for row in along_points])
        memory = exponent(points[-2:], [row["peak_bytes"] for row in along_points[-2:]])
        codes = exponent([row["codes"] for row in along_codes], [row["seconds"] for row in along_codes])
        lines.append(
            f"{name}: seconds ~ points^{time_exponent:.2f} and codes^{codes:.2f}, memory ~ points^{memory:.2f}"
        )
    for name in FIELDS if rollouts else ():
        by_kind = {}
        for kind in ("shared", "own"):
            some = [row for row in rollouts if (row["field"], row["times"]) == (name, kind)]
            by_kind[kind] = exponent([r["horizon"] for r in some], [r["seconds"] for r in some]), some[-1]["seconds"]
        ratio = by_kind["own"][1] / by_kind["shared"][1]
        lines.append(
            f"rollout, {name}: seconds ~ horizon^{by_kind['shared'][0]:.2f}; times of every trajectory's own cost "
            f"{ratio:.2f} times the shared ones"
        )
    return lines


def plot(rows: list[dict[str, Any]], rollouts: list[dict[str, Any]], path: Path) -> None:
    """Throughput against codes, memory against points, rollout seconds against horizon."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 5.2), layout="constrained")
    for index, name in enumerate(DECODERS):
        found = [row for row in rows if row["decoder"] == name and "error" not in row]
        codes = [row for row in found if row["points"] == POINTS and row["codes"] != CODES_OF_MEMORY]
        points = [row for row in found if row["codes"] == CODES_OF_MEMORY]
        axes[0].plot(
            [r["codes"] for r in codes], [r["points_per_second"] / 1e6 for r in codes], f"C{index}o-", label=name
        )
        axes[1].plot([r["points"] for r in points], [max(r["peak_bytes"], 1e5) / 1e6 for r in points], f"C{index}o-")
    axes[0].set(xlabel="codes", ylabel="million points a second", title=f"decoding {POINTS} points for every code")
    axes[1].set(xlabel="points", ylabel="peak MB", title=f"memory of decoding {CODES_OF_MEMORY} codes")
    for style, kind in (("-", "shared"), ("--", "own")):
        for index, name in enumerate(FIELDS):
            some = [row for row in rollouts if (row["field"], row["times"]) == (name, kind)]
            label = f"{name}, {kind} times"
            axes[2].plot([r["horizon"] for r in some], [r["seconds"] for r in some], f"C{index}{style}", label=label)
    axes[2].set(xlabel="horizon in steps", ylabel="seconds for 32 trajectories", title="rollouts")
    axes[2].legend(fontsize="small")
    for axis in axes:
        axis.set(xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("query.json"), help="JSON file to write; PNG beside it")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--decoders", nargs="+", default=list(DECODERS), choices=list(DECODERS))
    parser.add_argument("--quick", action="store_true", help="few and small problems: a check")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.case:
        case = json.loads(options.case)
        print(json.dumps(measure_question(case) if "question" in case else measure(case)), flush=True)
        return
    codes = (1, 32) if options.quick else (1, 10, 100, CODES)
    points = (256, 1024) if options.quick else (256, 1024, 4096, 16384)
    horizons = (5, 10) if options.quick else (10, 20, 40, 80, 160)
    problems = [(count, POINTS) for count in codes] + [(CODES_OF_MEMORY, count) for count in points]
    found: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}

    def keep(part: str, row: dict[str, Any]) -> None:
        found[part].append(row)
        write_json(options.out, {"environment": environment()} | found)

    # DINo's decoder first: the others are compared with it.
    names = sorted(options.decoders, key=lambda name: name != PUBLISHED) if "decoding" in options.parts else []
    for name in names:
        for count, where in problems:
            for row in child_rows(__file__, {"decoder": name, "codes": count, "points": where}):
                keep("decoding", row)
                print(decode_table(found["decoding"]).splitlines()[-1], flush=True)
    if "rollouts" in options.parts:
        for field in FIELDS:
            for shared in (True, False):
                for horizon in horizons:
                    keep("rollouts", measure_rollout(field, horizon, shared))
    if "questions" in options.parts:
        for question in QUESTIONS:
            for count in (1_000, 10_000) if options.quick else (10_000, 100_000, 1_000_000):
                for row in child_rows(__file__, {"question": question, "points": count}):
                    keep("questions", row)
    rows, rollouts = found["decoding"], found["rollouts"]
    if rows and rollouts:
        plot(rows, rollouts, options.out.with_suffix(".png"))
    header = ("field", "times", "horizon", "seconds")
    tables = [decode_table(rows), as_table(header, [[row[key] for key in header] for row in rollouts])]
    print("\n\n".join([f"\n{environment()}", *tables, question_table(found["questions"])]) + "\n")
    print("\n".join(exponents(rows, rollouts)))
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
