"""Fuzzing of every reader: damaged copies of small valid files are given to the commands that read them.

    python tests/faults/fuzz.py MINUTES [SEED]    # an hour is usual; what fails is kept in ./fuzz-failures

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


@dataclass(frozen=True)
class Outcome:
    """What a case gave: exit code (None: killed for its time), seconds, and what it printed."""

    code: int | None
    seconds: float
    text: str

    @property
    def failed(self) -> bool:
        """Whether it is neither an answer nor one line on stderr."""
        return self.code not in (0, 2) or (self.code == 2 and len(self.text.strip().splitlines()) > 3)


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
    import h5py
    import xarray

    from inrflow.data.formats.trajectory_file import TrajectoryFile

    with TrajectoryFile(data) as file:
        frames, about = file.read(0), file.description
    t, x, u = frames.t[:3], frames.x, frames.u[:3]
    names = [*about.coordinates, *about.channels]
    rows = [",".join(["t", *names])] + [",".join(f"{v:.6g}" for v in (t[k], *x[n], *u[k, n]))
                                        for k in range(len(t)) for n in range(len(x))]
    (folder / "rows.csv").write_text("\n".join(rows))
    np.savez_compressed(folder / "arrays.npz", t=t, x=x, u=u[None], parameters=np.ones((1, 2)))
    lon, lat = np.arange(8) * 45.0, np.array([-30.0, 0.0, 30.0])
    grid = xarray.Dataset({"a": (("time", "lat", "lon"), np.random.default_rng(0).random((4, 3, 8)))},
                          {"time": np.arange(4.0), "lat": lat, "lon": lon})
    grid["time"].attrs["units"] = "hours since 2000-01-01"
    grid.to_netcdf(folder / "grid.nc", engine="h5netcdf")
    grid.to_netcdf(folder / "classic.nc", engine="scipy")
    with h5py.File(folder / "flat.h5", "w") as flat:
        for name, column in zip(["t", *names], np.column_stack([np.repeat(t, len(x)), np.tile(x, (len(t), 1)),
                                                                 u.reshape(-1, u.shape[-1])]).T, strict=True):
            flat[name] = column

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

    files = {"schema": (data, trajectories), "csv": (folder / "rows.csv", table),
             "npz": (folder / "arrays.npz", trajectories), "netcdf 4": (folder / "grid.nc", trajectories),
             "netcdf 3": (folder / "classic.nc", trajectories), "flat hdf5": (folder / "flat.h5", table),
             **{kind: (path, trajectories) for kind, path in _simulations(folder).items()}, **_ensight(folder)}
    parts = ["model.safetensors", "config.yaml", "metrics.jsonl", "evaluation.json", "candidates.json"]
    return files | {name: (run / name, part(name)) for name in parts if (run / name).exists()}


def _simulations(folder: Path) -> dict[str, Path]:
    """Small files in the layouts of simulation codes and of tables in other packages' formats."""
    import gzip

    import h5py
    import meshio
    import pandas
    import torch
    from scipy.io import savemat

    random, axis, times = np.random.default_rng(0), np.linspace(0, 1, 5), np.arange(4.0)
    paths = {kind: folder / name for kind, name in (
        ("pdebench", "tensor.hdf5"), ("the well", "well.hdf5"), ("vtu", "mesh_1.vtu"), ("pvd", "series.pvd"),
        ("parquet", "rows.parquet"), ("gzip", "rows.csv.gz"), ("matlab", "a.mat"), ("matlab packed", "b.mat"),
        ("pytorch", "tensors.pt"), ("npy", "array.npy"))}
    grid = {"t": times, "x": axis, "u": random.random((2, 4, 5))}
    savemat(paths["matlab"], grid)
    savemat(paths["matlab packed"], grid, do_compression=True)
    torch.save({name: torch.tensor(value) for name, value in grid.items()}, paths["pytorch"])
    np.save(paths["npy"], grid["u"])
    with h5py.File(paths["pdebench"], "w") as file:
        file["tensor"], file["x-coordinate"], file["t-coordinate"] = random.random((2, 4, 5)), axis, times
    with h5py.File(paths["the well"], "w") as file:
        file["t0_fields/a"], file["scalars/b"] = random.random((2, 4, 5, 5)), np.arange(2.0)
        file["dimensions/x"], file["dimensions/y"], file["dimensions/time"] = axis, axis, times
        file["dimensions"].attrs["spatial_dims"] = ["x", "y"]
    nodes = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]])
    meshio.vtu.write(str(paths["vtu"]), meshio.Mesh(nodes, [("triangle", np.array([[0, 1, 2]]))], {"p": axis[:3]}))
    paths["pvd"].write_text('<VTKFile type="Collection"><Collection><DataSet timestep="0.5" part="0" '
                            'file="mesh_1.vtu"/></Collection></VTKFile>')
    pandas.DataFrame({"t": times, "x": times, "u": times}).to_parquet(paths["parquet"])
    paths["gzip"].write_bytes(gzip.compress((folder / "rows.csv").read_bytes()))
    return paths


def _ensight(folder: Path) -> dict[str, tuple[Path, Callable[[Path], Sequence[list[str]]]]]:
    """The files of a case of EnSight Gold, of which one is damaged and the others are whole."""
    from ensight_cases import write_case

    case, whole = folder / "ensight/flow.case", folder / "whole/flow.case"
    nodes = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.0]])
    values = np.random.default_rng(0).random((2, 4)).astype(np.float32)
    for path in (case, whole):
        write_case(path, nodes, [{"tria3": np.array([[0, 1, 2], [1, 3, 2]])}], {"p": ("node", values)}, [0.0, 0.5],
                   binary=True)

    def commands_for(name: str) -> Callable[[Path], Sequence[list[str]]]:
        def commands(path: Path) -> list[list[str]]:
            shutil.copytree(whole.parent, case.parent, dirs_exist_ok=True)
            shutil.copy(path, case.with_name(name))
            return [["inspect", str(case)], ["convert", str(case), str(folder / "converted.h5")]]

        return commands

    return {f"ensight {path.suffix}": (path, commands_for(path.name)) for path in sorted(whole.parent.iterdir())}


def fuzz(run: Path, data: Path, minutes: float, seed: int = 0, most: int | None = None, keep: Path | None = None
         ) -> tuple[Counter[str], list[str]]:
    """Cases by kind of file, and a line for each that failed."""
    from inrflow.cli import main

    random, count, failures = np.random.default_rng(seed), Counter[str](), []
    until = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = corpus(folder, run, data)
        for original, commands in kinds.values() if most is None else ():  # what is imported late is imported once
            for arguments in commands(original):
                (folder / "answer.csv").unlink(missing_ok=True)
                (folder / "converted.h5").unlink(missing_ok=True)
                with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                    main(arguments)
        while time.monotonic() < until and (most is None or sum(count.values()) < most):
            kind = list(kinds)[sum(count.values()) % len(kinds)]
            original, commands = kinds[kind]
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
        count, failures = fuzz(folder / "run", data, minutes, seed, keep=Path("fuzz-failures"))
    print(f"{sum(count.values())} cases ({', '.join(f'{kind} {number}' for kind, number in count.items())}), "
          f"{len(failures)} failures")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(_main())
