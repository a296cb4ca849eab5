"""The command line: `inrflow COMMAND key=value ...`.

Exit code 0; 2 for a user's mistake, reported in one line; 130 for Ctrl-C; 1 for anything else.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from inrflow.errors import INTERRUPTED, UserError, is_disk_full, missing
from inrflow.runtime.processes import RANKS, Processes
from inrflow.runtime.safe_names import printable

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_LARGEST_KEPT = 32 << 20  # the largest threshold that 64-bit systems allow

#: What is known before torch is imported; a test compares it with the registries.
RECIPES = ("auto", "law", "series", "reduced_order", "neural", "auto_decoding", "dino", "coral", "local_equation",
           "translation_equivariant")
WRITTEN = (".csv", ".txt", ".tsv", ".csv.gz", ".tsv.gz", ".pvd", ".xdmf", ".parquet", ".h5", ".hdf5", ".pt", ".pth",
           ".mat", ".npz", ".nc", ".nc4", ".zarr")

COMMANDS = {
    "train": "train a surrogate: data.train=FILE data.test=FILE training.minutes=5 (without file: embedded wave data)",
    "evaluate": "report errors of forecasts of a test file: run=DIR data.test=FILE observe.frames=1",
    "query": "predict values at points: run=DIR observations=FILE points=FILE to=FILE std=true derivatives=true",
    "forecast": "forecast quantiles after the last observation: run=DIR observations=FILE until=TIME to=FILE",
    "next": "choose places for further sensors: run=DIR observations=FILE count=3 to=FILE",
    "update": "update a run with new observations: run=DIR data.train=FILE output=DIR",
    "inspect": "describe a data file or run directory: FILE",
    "convert": "convert any readable format to the project's schema: SOURCE [SOURCE ...] TARGET",
    "generate": "simulate trajectories of a PDE: pde=NAME trajectories=64 output=FILE (without pde: list them)",
    "adapt": "adapt a run to a new system from a few of its trajectories: run=DIR data.train=FILE",
    "export": "write a run as torch.export programs and ONNX graphs, with a model card: run=DIR output=DIR",
    "explore": "explore a run in the browser, on this machine only: run=DIR data.test=FILE",
    "plot": "draw pictures and an animation of a run: run=DIR",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return _say(_help())
    if arguments[0] == "--version":
        from inrflow import __version__

        return _say(__version__)
    name, rest = arguments[0], arguments[1:]
    # Threads that spin while they wait are up to 40 times slower beside another busy process; torch reads it on import.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    keep_freed_memory()
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by whoever started us
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115
    if name == "train" and RANKS & set(os.environ) and not _tells(rest):
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        # One line each, without the source of the warning.
        warnings.showwarning = _told_once(next((one[4:] for one in rest if one.startswith("run=")), None))
        if name not in COMMANDS:
            near = get_close_matches(name, COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}"
            raise UserError(f"unknown command {name!r}; {hint}")
        if any(r in ("-h", "--help") for r in rest):
            from inrflow.config.help import command_help

            return _say(command_help(name, COMMANDS[name]))
        if any("~/" in item for item in rest):
            from inrflow.config.resolve import at_home

            rest = [at_home(item) for item in rest]
        _require_folder()
        _check(name, rest)
        with _stopped_by_sigterm():
            return _command(name)(rest)
    except UserError as error:
        print(f"inrflow {printable(name)}: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"inrflow {name}: stopped", file=sys.stderr)
        return INTERRUPTED
    except (MemoryError, RuntimeError, ImportError, SystemError) as error:
        if not _out_of_memory(error):
            raise
        print(f"inrflow {name}: not enough memory; free some, or give fewer frames, points or trajectories",
              file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # of files that grow in place, such as metrics.jsonl
        if not is_disk_full(error):
            raise
        place = f" while writing {error.filename}" if error.filename else ""
        print(f"inrflow {name}: no space left on the disk (or quota){place}; free some and run again", file=sys.stderr)
        return 2


def _say(text: str) -> int:
    """Print for whoever still reads, which `| head` does not; returns 0, or 2 where the disk is full."""
    try:
        print(text, flush=True)
    except OSError as error:
        if not (isinstance(error, BrokenPipeError) or is_disk_full(error)):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if is_disk_full(error):
            print("inrflow: no space left on the disk (or quota); free some and run again", file=sys.stderr)
            return 2
    return 0


def keep_freed_memory() -> bool:
    """Let the C library keep up to 64 MB of freed memory; returns whether the thresholds were set.

    They are not without glibc, or where the environment sets malloc's thresholds itself. glibc returns large freed
    blocks, and the freed end of the heap, to the system at once: a step that allocates a few megabytes each time then
    spends as long on page faults as on arithmetic (measured: half of the system time of a run). glibc itself raises the
    thresholds to these values once a block of that size has been freed; peak memory does not change.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(_MMAP, _LARGEST_KEPT)) and bool(library.mallopt(_TRIM, 2 * _LARGEST_KEPT))


def _tells(arguments: Sequence[str]) -> bool:
    """Whether this process tells the user what happens: of several that share one training, the first does."""
    from inrflow.config.resolve import is_sweep

    try:
        return is_sweep(arguments) or Processes.of().first
    except UserError:
        return True


def _out_of_memory(error: Exception) -> bool:
    """Whether an error, of Python or torch or of its import, says that memory is exhausted."""
    texts = ("can't allocate memory", "out of memory", "can't start new thread", "cannot allocate memory",
             "failed to map segment", "without exception set", "without setting an exception")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that half-written files are removed."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield  # the caller handles signals
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _require_folder() -> None:
    """Raise UserError where the working folder, against which names of files are resolved, is gone."""
    try:
        os.getcwd()
    except OSError as error:
        raise UserError("the working folder no longer exists; change to one that does") from error


def _check(name: str, arguments: list[str]) -> None:
    """Raise UserError for mistakes in the settings before the command is imported, which takes seconds."""
    from inrflow.config.resolve import is_sweep, resolve, settings_and_files
    from inrflow.config.schema import SCHEMAS
    from inrflow.pdes import require_known
    from inrflow.runtime.run_files import MODEL_FILE, no_model

    if name == "train" and is_sweep(arguments):
        from inrflow.config.sweeps import each_once, swept_settings

        for combination in each_once(swept_settings(arguments)):
            _check(name, combination)
        return
    if name in SCHEMAS:
        given, files = settings_and_files(arguments) if name == "convert" else (arguments, [])
        settings = resolve(name, SCHEMAS[name], given)
        run = getattr(settings, "run", None)
        if run is not None and not (Path(run) / MODEL_FILE).exists():
            raise no_model(Path(run))
        if name == "convert" and len(files) < 2:
            raise UserError(f"{' '.join(files) or 'nothing'} is given; expected SOURCE TARGET, or several sources and "
                            "a TARGET")
        if getattr(settings, "pde", None) is not None:
            require_known(settings.pde)
        if "torch" not in sys.modules:  # else devices, recipes and formats are told, and may be the user's own
            _require_known(settings, files[-1] if name == "convert" else None)
        data = getattr(settings, "data", None)
        read = {f"data.{key}": getattr(data, key, None) for key in ("train", "test")}
        _require_files(read if name != "convert" else {"": files[:-1]})


def _require_known(settings: Any, target: str | None) -> None:
    """Raise UserError for names of devices, recipes and files that no part of the package knows or finds."""
    device, recipe, to = (getattr(settings, key, None) for key in ("device", "recipe", "to"))
    _require_files({key: getattr(settings, key, None) for key in ("observations", "stations")})
    if device and not re.fullmatch("auto|cpu|cuda(:[0-9]{1,3})?", device):
        raise UserError(f"device={device}; choose auto, cpu, cuda or cuda:N")
    if recipe and recipe not in RECIPES:
        raise UserError(f"recipe={recipe} is not known; choose from {', '.join(RECIPES)}")
    if to and not Path(to).name.lower().endswith(WRITTEN):
        raise UserError(f"cannot tell the format of {to} by its suffix {Path(to).suffix!r}; use one of "
                        f"{', '.join(WRITTEN)}")
    if target and not target.lower().endswith((".h5", ".hdf5")):
        raise UserError(f"{target} is not named as HDF5, and convert writes that, in the project's schema; name it "
                        f"{os.path.splitext(target)[0]}.h5")


def _require_files(given: dict[str, str | list[str] | None]) -> None:
    """Raise UserError where files, by the settings that name them, do not exist."""
    for key, value in given.items():
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, str) and not os.path.exists(path) and not set(path) & set("*?["):
                raise UserError(f"{key}{'=' if key else ''}{missing(path)}")


def _command(name: str) -> Callable[[list[str]], int]:
    from importlib import import_module

    module, collected = f"inrflow.commands.{name}", gc.isenabled()
    first = module not in sys.modules
    gc.disable()  # what is imported stays: looking for garbage in it takes a fifth of the time until a command begins
    try:
        return import_module(module).run
    finally:
        if first:
            gc.freeze()
        if collected:
            gc.enable()


def _help() -> str:
    lines = ["inrflow: continuous fields u(t, x) and their forecasts from observations at any points and times", ""]
    lines += [f"  inrflow {name:<9} {text}" for name, text in COMMANDS.items()]
    lines += [
        "",
        "Settings are given as key=value; `inrflow COMMAND --help` lists those of a command, with defaults.",
        "Exit codes: 0 success, 2 an error in the input (reported in one line), 130 interrupted, 1 any other error.",
    ]
    return "\n".join(lines)


def _told_once(run: str | None = None) -> Callable[..., None]:
    """What prints a warning, but no sentence twice: a file may be read as observations and for its places; none with
    another count, as of parts of a series; and of a run's files none that was told when it was trained. Its attribute
    `about` holds what was told until now."""
    told, known = set[str](), set[str]()
    if run is not None:
        from inrflow.runtime.run_files import WARNINGS_FILE

        with suppress(OSError, ValueError, TypeError, KeyError):
            known = set(json.loads((Path(run) / WARNINGS_FILE).read_text(encoding="utf-8"))["warnings"])

    def show(message, category, filename, lineno, file=None, line=None) -> None:  # noqa: ANN001
        text = printable(message)
        if issubclass(category, UserWarning) and "matplotlib" not in str(filename) and text not in told:
            told.add(text)
            # Neither the name of the file that it is about, nor shares and ranges of its values.
            about = re.sub(r"\d+ of \d+|between \S+ and \S+", "", text.partition(": ")[2] or text)
            counted = text[:1].isdigit() and about in show.about  # type: ignore[attr-defined]
            show.about.add(about)  # type: ignore[attr-defined]
            if about not in known and not counted:
                print(f"inrflow: warning: {text}", file=sys.stderr)

    show.about = set()  # type: ignore[attr-defined]
    return show


if __name__ == "__main__":
    sys.exit(main())
