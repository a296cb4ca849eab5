"""One training in 1, 2, 4 processes: are choice and losses those of one, and how much processor time does each take?

    python benchmarks/cost/team.py 1,2,4 data.train=FILE recipe=law training.minutes=0.5 ...

The decisions of the first training (numbers of steps) are given to the others. Processor seconds are those of the first
process, and of the others on the mean: on idle cores the larger one is about what a training takes.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from inrflow.config.schema import Config


def trained(size: int, arguments: list[str]) -> list[float]:
    """Processor seconds of each process of a training. Raises RuntimeError where one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(size)}
    started = [subprocess.Popen([sys.executable, "-m", "inrflow", "train", *arguments], stdout=subprocess.DEVNULL,
                                env={**os.environ, **place, "RANK": str(rank)}) for rank in range(size)]
    seconds = []
    for one in started:
        _, status, used = os.wait4(one.pid, 0)
        one.returncode = os.waitstatus_to_exitcode(status)
        seconds.append(used.ru_utime + used.ru_stime)
    if any(one.returncode for one in started):
        raise RuntimeError(f"exit codes {[one.returncode for one in started]}")
    return seconds


def losses(folder: Path) -> dict[tuple[str, int], tuple[float | None, float | None]]:
    """Loss and validation error by stage and step."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {(row["stage"], row["step"]): (row.get("loss"), row.get("validation")) for row in rows if "loss" in row}


def main() -> None:
    """Print a row for each number of processes."""
    sizes, arguments = [int(size) for size in sys.argv[1].split(",")], sys.argv[2:]
    steps, first = vars(Config().training.steps), None
    print("processes | chosen | validation error | largest difference of losses | processor s: first, others")
    with tempfile.TemporaryDirectory() as scratch:
        for size in sizes:
            folder = Path(scratch) / str(size)
            spent = trained(size, [*arguments, f"output={folder}"])
            tried = json.loads((folder / "candidates.json").read_text())
            chosen, found = tried["candidates"][tried["chosen"]], losses(folder)
            if first is None:
                first = found
                arguments += [f"training.steps.{k}={v}" for k, v in tried["decisions"].items() if k in steps]
            differences = [abs(a - b) / abs(a) for key in first.keys() & found.keys()
                           for a, b in zip(first[key], found[key], strict=True) if a and b]
            others, most = sum(spent[1:]) / max(size - 1, 1), max(differences, default=0.0)
            print(f"{size} | {chosen['candidate']} | {chosen['validation_error']:.10g} | {most:.1e} of "
                  f"{len(differences)} | {spent[0]:.1f}, {others:.1f}", flush=True)


if __name__ == "__main__":
    main()
