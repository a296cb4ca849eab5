"""Fuzzing of every reader: damaged copies of small valid files are given to the commands that read them.

    python tests/faults/fuzz.py MINUTES [SEED] [LEFT_OUT ...]    # an hour is usual; kinds of files are left out by name

What fails is kept in ./fuzz-failures.

Each case runs in a forked copy of one process, with limits on time and memory. A case fails where it ends with anything
but an answer (0) or one line on stderr (2), takes more than 10 s of processor time or 60 s by the clock, or needs more
than 1 GB beyond what was there.
"""

from __future__ import annotations

import io
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SECONDS, WAITED, MEMORY = 10, 60.0, 1 << 30
NUMBERS = [0, 1, -1, 255, 2**31 - 1, 2**63 - 1, -(2**31)]
WORDS = [b"nan", b"inf", b"-1", b"1e999", b"null", b"[]", b"{}", b"", b"\0", b"\xff\xfe", b"'", b'"', b"9" * 400,
         b"[" * 999, b"${oc.env:HOME}", b"../../x", b"\x1b[2J", b"true", b"&a [*a]"]
_LEFT_OUT = ".pp"  # whose library does not bear that of GRIB in one process


@dataclass(frozen=True)
class Outcome:
    """What a case gave: exit code (None: killed for its time), seconds, and what it printed."""

    code: int | None
    seconds: float
    text: str

    @property
    def failed(self) -> bool:
        """Whether it is neither an answer nor, besides warnings, one line on stderr."""
        errors = [line for line in self.text.strip().splitlines() if ": warning: " not in line]
        return self.code not in (0, 2) or (self.code == 2 and len(errors) > 3)


def run_forked(work: Callable[[], int], seconds: int = SECONDS, waited: float = WAITED) -> Outcome:
    """The outcome of `work`, which returns an exit code, in a forked copy of this process, given so many seconds of
    processor time, and `waited` by the clock."""
    with tempfile.TemporaryFile() as printed:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
                resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
                out, err = io.StringIO(), io.StringIO()
                try:
                    with redirect_stdout(out), redirect_stderr(err):
                        code = work()
                except BaseException:
                    err.write(traceback.format_exc())
                os.write(printed.fileno(), err.getvalue().encode(errors="replace")[-20000:])
            finally:
                os._exit(code)
        code_or_none: int | None = None
        while time.monotonic() - began < waited:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code_or_none = os.waitstatus_to_exitcode(status)
                break
            time.sleep(0.002)
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        printed.seek(0)
        return Outcome(code_or_none, time.monotonic() - began, printed.read().decode(errors="replace"))


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """A damaged copy: bytes flipped, zeroed, cut, doubled, swapped, or replaced by numbers and words that break
    readers."""
    bytes_ = bytearray(data)
    for _ in range(int(random.choice([1, 1, 1, 2, 4, 30]))):
        reach = len(bytes_) if random.random() < 0.6 else min(800, len(bytes_))  # headers are hit more often
        at = int(random.integers(reach + 1))
        length = int(random.integers(1, 65))
        match int(random.integers(7)):
            case 0 if at < len(bytes_):
                bytes_[at] ^= 1 << int(random.integers(8))
            case 1:
                bytes_[at : at + length] = bytes(len(bytes_[at : at + length]))
            case 2:
                del bytes_[at : at + length]
            case 3:
                bytes_[at:at] = bytes_[at : at + length]
            case 4:
                kind = str(random.choice(["<i", "<q", "<d", "<f", ">i"]))
                number = NUMBERS[int(random.integers(len(NUMBERS)))]
                fits = kind[1] in "qdf" or abs(number) < 2**31
                bytes_[at : at + 8] = struct.pack(kind, number) if fits else struct.pack("<q", number)
            case 5:
                bytes_[at : at + length] = WORDS[int(random.integers(len(WORDS)))]
            case 6 if random.random() < 0.3:
                del bytes_[at:]
    return bytes(bytes_)


def corpus(folder: Path, run: Path, data: Path) -> dict[str, tuple[Path, Callable[[Path], Sequence[list[str]]]]]:
    """Valid files by kind, each with the commands that read a damaged copy of it at a path."""
    from inrflow.data.formats.trajectory_file import TrajectoryFile

    with TrajectoryFile(data) as file:
        frames, about = file.read(0), file.description
    t, x, u = frames.t[:3], frames.x, frames.u[:3]
    names = ["t", *about.coordinates, *about.channels]
    rows = np.column_stack([np.repeat(t, len(x)), np.tile(x, (len(t), 1)), u.reshape(-1, u.shape[-1])])
    np.savetxt(folder / "rows.csv", rows, "%.6g", ",", header=",".join(names), comments="")
    np.savez_compressed(folder / "arrays.npz", t=t, x=x, u=u[None], parameters=np.ones((1, 2)))

    def table(path: Path) -> list[list[str]]:
        return [*trajectories(path), ["query", f"run={run}", f"observations={path}", f"points={path}",
                                      f"to={folder / 'answer.csv'}"]]

    def trajectories(path: Path) -> list[list[str]]:
        return [["inspect", str(path)], ["convert", str(path), str(folder / "converted.h5")]]

    def part(name: str) -> Callable[[Path], Sequence[list[str]]]:
        def commands(path: Path) -> list[list[str]]:
            place = folder / "damaged"
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(run, place)
            shutil.copy(path, place / name)
            query = ["query", f"run={place}", f"observations={folder / 'rows.csv'}", f"points={folder / 'rows.csv'}",
                     f"to={folder / 'answer.csv'}"]
            return [["inspect", str(place)], *([query] if name == "model.safetensors" else [])]

        return commands

    parts = ["model.safetensors", "config.yaml", "metrics.jsonl", "evaluation.json", "candidates.json"]
    return {"schema": (data, trajectories), "rows": (folder / "rows.csv", table),
            "packed": (folder / "arrays.npz", trajectories),
            **{name: (run / name, part(name)) for name in parts if (run / name).exists()}, **_of_programs(folder)}


def _of_programs(folder: Path) -> dict[str, tuple[Path, Callable[[Path], Sequence[list[str]]]]]:
    """Files in the layouts of other programs; of folders and of files that name others each file by itself, the others
    whole."""
    from instrument_files import FILES
    from known_files import CASES

    makers = {name: (make, name) for make, name, _ in CASES if not name.endswith(_LEFT_OUT)}
    makers |= {name: (make, name) for name, make in FILES.items()}
    found = {}
    for kind, (make, name) in makers.items():
        place, whole = folder / "given" / kind, folder / "whole" / kind
        whole.mkdir(parents=True)
        options = getattr(make(whole / name), "options", ())

        def commands_for(one: Path, place: Path = place, whole: Path = whole, name: str = name,
                         options: Sequence[str] = options) -> Callable[[Path], Sequence[list[str]]]:
            def commands(path: Path) -> list[list[str]]:
                shutil.copytree(whole, place, dirs_exist_ok=True)
                shutil.copy(path, place / one)
                return [["inspect", str(place / name), *options],
                        ["convert", str(place / name), str(folder / "converted.h5"), *options]]

            return commands

        for one in sorted(item for item in whole.rglob("*") if item.is_file()):
            own = one.relative_to(whole)
            found[f"{kind} {own}" if str(own) != name else kind] = (one, commands_for(own))
    return found


def fuzz(run: Path, data: Path, minutes: float, seed: int = 0, most: int | None = None, keep: Path | None = None,
         left_out: Sequence[str] = ()) -> tuple[Counter[str], list[str]]:
    """Cases by kind of file, but for kinds left out, and a line for each that failed."""
    from inrflow.cli import main

    random, count, failures = np.random.default_rng(seed), Counter[str](), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = {kind: case for kind, case in corpus(folder, run, data).items() if kind not in left_out}
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until and (most is None or sum(count.values()) < most):
            kind = list(kinds)[sum(count.values()) % len(kinds)]
            original, commands = kinds[kind]
            for arguments in () if count[kind] else commands(original):  # what is imported late is imported once
                (folder / "answer.csv").unlink(missing_ok=True)
                (folder / "converted.h5").unlink(missing_ok=True)
                with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                    main(arguments)
            case = folder / f"case{original.suffix}"
            case.write_bytes(mutated(original.read_bytes(), random))
            count[kind] += 1
            for arguments in commands(case):
                for left in ("answer.csv", "converted.h5"):
                    (folder / left).unlink(missing_ok=True)
                outcome = run_forked(lambda arguments=arguments: main(arguments))
                if outcome.failed:
                    last = (outcome.text.strip().splitlines() or ["killed"])[-1]
                    failures.append(f"{kind} {arguments[0]}: {outcome.code} in {outcome.seconds:.1f} s: {last[:200]}")
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        shutil.copy(case, keep / f"{len(failures):03d}-{kind.replace(' ', '')}{original.suffix}")
                        print(failures[-1], flush=True)
    return count, failures


def _main() -> int:
    sys.path.insert(0, str(Path(__file__).parents[1] / "systems"))
    from inrflow.cli import main
    from inrflow.pdes.generate import generate

    minutes, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = generate("heat", folder / "heat.h5", trajectories=4, frames=6, seed=0, dimensions=1, grid=16)
        settings = [f"data.train={data}", f"data.test={data}", "training.minutes=0.02", f"output={folder / 'run'}"]
        if main(["train", *settings]):
            return 1
        count, failures = fuzz(folder / "run", data, minutes, seed, None, Path("fuzz-failures"), sys.argv[3:])
    print(f"{sum(count.values())} cases ({', '.join(f'{kind} {number}' for kind, number in count.items())}), "
          f"{len(failures)} failures")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(_main())
