"""What the command line answers to what users do wrong: one clear line, exit code 2, nothing written over."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from forked import job

import inrflow
from inrflow.cli import COMMANDS, _command, _told_once, main


@pytest.fixture
def data(tiny_data, elsewhere):
    """A copy of the training file to spoil."""
    return Path(shutil.copy(tiny_data[0], elsewhere / "data.h5"))


def spoil(path, name, change):
    """Replace a dataset of a file by `change` of its values."""
    with h5py.File(path, "r+") as file:
        values = change(file[name][()])
        del file[name]
        file[name] = values


def no_channels(path):
    with h5py.File(path, "r+") as file:
        del file.attrs["channels"]


def other_format(path):
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = "something else"


def renamed(path, attribute, names):
    with h5py.File(path, "r+") as file:
        file.attrs[attribute] = names


def replaced(index, value):
    def change(values):
        values = values.copy()
        values[index] = value
        return values
    return change


SPOILT = {
    "missing file": (lambda path: path.unlink(), "does not exist"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "folder"),
    "no data file": (lambda path: path.write_text("<html></html>"), "unknown format"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:3000]), "damaged"),
    "wrong schema": (other_format, "expected the project's schema"),
    "no channel names": (no_channels, "channels"),
    "NaN times": (lambda path: spoil(path, "t", replaced(2, np.nan)), "t"),
    "duplicate times": (lambda path: spoil(path, "t", replaced(2, 0.25)), "increas"),
    "mismatched shapes": (lambda path: spoil(path, "u", lambda u: u[:, :, :-1]), "shape"),
    "coordinates not finite": (lambda path: spoil(path, "x", replaced((3, 0), np.inf)), "finite"),
    "coordinates that are fill values": (lambda path: spoil(path, "x", replaced((3, 0), 9.97e36)), "beyond"),
    "infinite values": (lambda path: spoil(path, "u", replaced((0, 0, 0, 0), np.inf)), "infinite"),
    "fill values": (lambda path: spoil(path, "u", replaced((0, 0, 0, 0), 9.97e36)), "beyond"),
    "a channel that is no file name": (lambda path: renamed(path, "channels", ["u", "du/dt"]), "rename"),
    "all-NaN channel": (lambda path: spoil(path, "u", replaced(np.s_[..., 1], np.nan)), "channel"),
    "one frame only": (lambda path: (spoil(path, "u", lambda u: u[:, :1]), spoil(path, "t", lambda t: t[:1])), "frame"),
    "zero points": (lambda path: (spoil(path, "u", lambda u: u[:, :, :0]), spoil(path, "x", lambda x: x[:0])), "point"),
    "zero trajectories": (lambda path: spoil(path, "u", lambda u: u[:0]), "trajector"),
}


def one_line(outcome, *said):
    lines = outcome.err.strip().splitlines()
    return outcome.code == 2 and len(lines) == 1 and all(text in lines[0] for text in said)


@pytest.mark.parametrize("kind", SPOILT)
def test_bad_training_data_is_one_clear_line(kind, data, elsewhere, inrflow_command, quick_settings):
    damage, said = SPOILT[kind]
    damage(data)
    outcome = inrflow_command("train", "data.train=data.h5", *quick_settings, "output=run")
    lines = [line for line in outcome.err.splitlines() if line.strip()]
    assert outcome.code == 2 and said in lines[-1] and lines[-1].startswith("inrflow train: "), outcome.err
    assert "data.h5" in lines[-1] and not (elsewhere / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("kind", SPOILT)
def test_bad_test_data_is_one_clear_line(kind, data, tiny_run, elsewhere, inrflow_command):
    damage, said = SPOILT[kind]
    damage(data)
    outcome = inrflow_command("evaluate", f"run={tiny_run.run}", "data.test=data.h5", "output=report")
    assert one_line(outcome, said, "data.h5"), outcome.err
    assert not (elsewhere / "report").exists()


@pytest.mark.parametrize(("arguments", "said"), [
    (("trian",), "unknown command 'trian'"),
    (("train", "training.minute=3"), "did you mean training.minutes?"),
    (("train", "minutes=3"), "did you mean training.minutes?"),
    (("train", "training.minutes=soon"), "training.minutes=soon; give a number"),
    (("train", "--data.frames=3"), "without them: data.frames=3"),
    (("train", "training.minutes=0"), "training.minutes=0"),
    (("train", "training.minutes=inf"), "training.minutes=inf"),
    (("train", "decoder.width=0"), "decoder.width=0"),
    (("train", "data.symmetries=3"), "symmetry '3'"),
    (("train", "data.test="), "data.test= is empty"),
    (("train", "+nothing=1"), "unknown key 'nothing'"),
    (("train", "output='run"), "output='run"),
    (("evaluate", "observe.noise=nan"), "observe.noise=nan"),
    (("train", "data.points=1.5"), "data.points=1.5"),
    (("train", "data.frames=1"), "data.frames=1"),
    (("train", "data.frames=1.5"), "data.frames=1.5; give a whole number"),
    (("train", "dynamics.method=euler"), "euler"),
    (("train", "device=abacus"), "abacus"),
    (("train", "training"), "key=value"),
    (("train", "data.train=[1"), "data.train"),
    (("train", "resume=nowhere"), "nowhere"),
    (("train", "data.test=nowhere.h5"), "nowhere.h5"),
    (("train", f"data.test={__file__}"), "train: data.test: "),  # before any time is spent on training
    (("train", "experiment=nothing"), "choose one of coral"),
    (("convert", "data.h5", "a.h5", "select.x=1"), "select is for files whose variables have named dimensions"),
    (("evaluate",), "run=DIR is missing"),
    (("evaluate", "run=nowhere"), "does not exist"),
    (("plot",), "run=DIR is missing"),
    (("query", "run=nowhere", "observations=data.h5", "points=data.h5"), "does not exist"),
    (("query", "run=."), "observations=FILE is missing"),
    (("adapt", "run=."), "data.train=FILE is missing"),
    (("convert", "data.h5"), "expected SOURCE TARGET"),
    (("generate",), "pde is missing"),
    (("train", "seed=${oc.env:HOME}"), "refers to a variable"),
    (("train", "seed=0,1"), "seed=0,1 gives several values; add --multirun"),
    (("train", "data.train=nowhere.nc"), "data.train=nowhere.nc does not exist"),
    (("convert", "nowhere.nc", "a.h5"), "nowhere.nc does not exist"),
])
def test_wrong_arguments_are_one_clear_line(arguments, said, data, elsewhere, inrflow_command):
    if arguments[0] == "train" and not any("data.train" in item for item in arguments):
        arguments += ("data.train=data.h5",)
    outcome = inrflow_command(*arguments)
    assert one_line(outcome, said), outcome.err
    assert [item.name for item in elsewhere.iterdir()] == ["data.h5"]


@pytest.mark.parametrize(("argument", "said"), [
    ("data.symmetries=[rotation]", "unknown symmetry 'rotation'"),
    ("decoder.name=cosine", "cosine"),
])
def test_settings_that_do_not_fit_end_the_training_in_one_clear_line(argument, said, data, elsewhere, inrflow_command):
    outcome = inrflow_command("train", "data.train=data.h5", "output=run", argument)
    last = outcome.err.strip().splitlines()[-1]
    assert outcome.code == 2 and said in last and "Traceback" not in outcome.err, outcome.err
    assert not (elsewhere / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("command", ["evaluate", "plot", "query", "resume"])
@pytest.mark.parametrize("kind", ["foreign", "interrupted", "damaged", "other version"])
def test_a_run_directory_that_cannot_be_used_is_one_clear_line(command, kind, tiny_run, elsewhere, inrflow_command):
    run = elsewhere / "run"
    run.mkdir()
    if kind == "interrupted":
        shutil.copy(tiny_run.run / "config.yaml", run)
    elif kind == "damaged":
        shutil.copy(tiny_run.run / "config.yaml", run)
        (run / "config.yaml").write_text("no: configuration\n")
        (run / "model.safetensors").write_bytes(b"nothing of the kind")
    elif kind == "other version":
        inrflow.Surrogate.load(tiny_run.run).save(run)
        (run / "config.yaml").write_text("data: {future: 1}\n")
        state, metadata = inrflow.runtime.tensor_files.load_tensors(run / "model.safetensors")
        inrflow.runtime.tensor_files.save_tensors(run / "model.safetensors", state, metadata | {"version": 99})
    if command == "resume":
        if kind == "interrupted":
            pytest.skip("this is what resume is for")
        outcome = inrflow_command("train", "resume=run")
    else:
        more = ("observations=a.csv", "points=a.csv") if command == "query" else ()
        outcome = inrflow_command(command, "run=run", *more)
    assert one_line(outcome, "run"), outcome.err
    if kind == "interrupted":
        assert "resume=run" in outcome.err


def test_a_run_is_not_written_over(tiny_run, inrflow_command, quick_settings):
    before = {item: item.stat().st_mtime_ns for item in tiny_run.run.iterdir()}
    outcome = inrflow_command("train", f"data.train={tiny_run.train}", f"output={tiny_run.run}", *quick_settings)
    assert one_line(outcome, "holds a run already")
    assert {item: item.stat().st_mtime_ns for item in tiny_run.run.iterdir()} == before


def test_a_test_file_of_another_system_is_one_clear_line(tiny_run, elsewhere, inrflow_command):
    assert inrflow_command("generate", "pde=heat", "output=heat.h5", "trajectories=2", "grid=8", "resolution=16",
                           "frames=3").code == 0
    for command in ("evaluate", "plot"):
        assert one_line(inrflow_command(command, f"run={tiny_run.run}", "data.test=heat.h5"), "heat.h5", "channels")


def test_data_without_any_variation_are_one_clear_line(data, inrflow_command):
    spoil(data, "u", np.ones_like)
    outcome = inrflow_command("train", "data.train=data.h5")
    assert outcome.code == 2 and "nothing to learn" in outcome.err and len(outcome.err.splitlines()) == 1


def test_values_in_one_frame_alone_are_one_clear_line(data, inrflow_command):
    spoil(data, "u", replaced(np.s_[:, 1:], np.nan))
    outcome = inrflow_command("train", "data.train=data.h5")
    assert one_line(outcome, "data.h5", "two of its frames"), outcome.err


def test_coordinates_in_another_order_are_one_clear_line(data, tiny_run, inrflow_command):
    renamed(data, "coordinates", ["y", "x"])
    for command in ("evaluate", "plot"):
        outcome = inrflow_command(command, f"run={tiny_run.run}", "data.test=data.h5")
        assert one_line(outcome, "data.h5", "coordinates y, x"), outcome.err
    outcome = inrflow_command("train", f"data.train={tiny_run.train}", "data.test=data.h5")
    assert one_line(outcome, "data.h5", "coordinates y, x"), outcome.err


def test_more_observed_frames_than_there_are_is_one_clear_line(tiny_run, elsewhere, inrflow_command):
    outcome = inrflow_command("evaluate", f"run={tiny_run.run}", "observe.frames=11")
    assert one_line(outcome, "observe.frames=11", "10 frames"), outcome.err
    outcome = inrflow_command("train", f"data.train={tiny_run.train}", f"data.test={tiny_run.test}",
                              "observe.frames=11")
    assert one_line(outcome, "observe.frames=11", "10 frames"), outcome.err


def test_more_observed_frames_than_rows_at_any_times_give_is_told_before_training(elsewhere, inrflow_command):
    """Rows that each have a time of their own are gathered in a few bins, whose number counts."""
    rng = np.random.default_rng(0)
    rows = 300
    with h5py.File("rows.h5", "w") as file:
        file.attrs.update(format="inrflow-trajectories", version=1, name="rows", channels=["u"], coordinates=["x"])
        file["trajectory"], file["t"] = np.zeros(rows, dtype=int), np.sort(rng.random(rows))
        file["x"], file["u"] = rng.random((rows, 1)), rng.random((rows, 1))
    outcome = inrflow_command("train", "data.train=rows.h5", "data.test=rows.h5", "observe.frames=250")
    assert one_line(outcome, "observe.frames=250", "no trajectory of rows.h5 has more than"), outcome.err


def test_a_resumed_run_takes_no_other_settings(tiny_run, inrflow_command):
    outcome = inrflow_command("train", f"resume={tiny_run.run}", "training.minutes=9")
    assert one_line(outcome, "leave out training.minutes=9")


@pytest.mark.parametrize("content", ["a: [b", "- a list", "training: {minutes: -1}"])
def test_a_damaged_configuration_is_one_clear_line(content, tiny_run, elsewhere, inrflow_command):
    shutil.copytree(tiny_run.run, "run")
    Path("run/config.yaml").write_text(content)
    for arguments in (("inspect", "run"), ("train", "resume=run"), ("plot", "run=run")):
        assert one_line(inrflow_command(*arguments), "config.yaml"), arguments


def test_help_names_every_command_and_the_version_is_told(inrflow_command):
    outcome = inrflow_command("--help")
    assert outcome.code == 0 and all(f"inrflow {name}" in outcome.out for name in COMMANDS)
    assert inrflow_command().out == outcome.out
    assert inrflow_command("--version").out.strip() == inrflow.__version__
    for name in COMMANDS:
        assert inrflow_command(name, "--help").code == 0
    train = inrflow_command("train", "--help").out
    assert all(text in train for text in ("data.train=null", "dynamics.method=rk4", "seed=0", "experiment=dino"))
    assert "Share of the trajectories held out" in train and "run=null" in inrflow_command("plot", "--help").out


# ---- a disk that is full, a run that is stopped: in a process of its own ----

def process(arguments, code="import sys; from inrflow.cli import main; sys.exit(main())"):
    root = Path(inrflow.__file__).parents[1]
    path = os.pathsep.join([str(root), str(root / "kernels"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"})


FULL_DISK = """
import io, json, resource, sys
from contextlib import redirect_stderr, redirect_stdout
from inrflow.cli import main

results = []
sys.dont_write_bytecode = True  # Python cuts the compiled modules at the limit, and imports them later
for size, arguments in json.loads(sys.argv[1]):
    # A write beyond fails, as on a full disk. Only the soft limit, by the process itself: no other process is touched.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    results.append((code, err.getvalue()))
print(json.dumps(results))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_full_disk_is_one_clear_line_and_destroys_nothing(tiny_run, elsewhere, quick_settings):
    """All commands in one process, which must also end well: HDF5 writes to files that were left open when it ends."""
    old = elsewhere / "old"
    shutil.copytree(tiny_run.run, old)
    before = {item: item.read_bytes() for item in old.rglob("*") if item.is_file()}
    commands = [
        ("query", f"run={tiny_run.run}", f"observations={tiny_run.test}", f"points={tiny_run.test}", "to=a.csv"),
        ("query", f"run={tiny_run.run}", f"observations={tiny_run.test}", f"points={tiny_run.test}", "to=a.nc"),
        ("generate", "pde=heat", "grid=32", "trajectories=20", "output=a.h5"),
        ("convert", str(tiny_run.train), "a.h5"),
        ("plot", f"run={tiny_run.run}", "output=old", "animation=false"),
        ("evaluate", f"run={tiny_run.run}", f"data.test={tiny_run.test}", "output=old"),
        ("train", f"data.train={tiny_run.train}", "output=new", "recipe=reduced_order", *quick_settings),
        ("train", f"data.train={tiny_run.train}", "output=none", *quick_settings),
    ]
    sizes = [4096] * 5 + [512, 4096, 16]  # training fails at its first checkpoint, or with less at its first file
    child = process(code=FULL_DISK, arguments=[json.dumps(list(zip(sizes, commands, strict=True)))])
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0 and not err, err
    for arguments, (code, said) in zip(commands, json.loads(out), strict=True):
        lines = said.strip().splitlines()
        assert code == 2 and lines[-1].startswith(f"inrflow {arguments[0]}: "), (arguments, code, said)
        assert "no space left on the disk" in lines[-1] and (len(lines) == 1 or arguments[0] == "train"), said
    assert {item: item.read_bytes() for item in old.rglob("*") if item.is_file()} == before
    files = [item for item in elsewhere.rglob("*") if item.is_file() and old not in item.parents]
    left = {str(item.relative_to(elsewhere)) for item in files}
    assert left <= {"new/config.yaml", "new/metrics.jsonl", "new/candidates.json", "new/decisions.json"}, left


def test_a_stopped_training_says_how_to_go_on(tiny_data, elsewhere, inrflow_command, quick_settings):
    settings = [item for item in quick_settings if "minutes" not in item]
    (child,) = job(1, partial(main, ["train", f"data.train={tiny_data[0]}", "output=run", "training.minutes=3",
                                     *settings]))
    deadline = time.monotonic() + 100
    metrics = elsewhere / "run" / "metrics.jsonl"
    while time.monotonic() < deadline and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGTERM)
    _, err = child.communicate(timeout=100)
    assert child.returncode == 130 and "resume=run" in err and "Traceback" not in err, err
    assert "unfinished" in inrflow_command("inspect", "run").out
    assert one_line(inrflow_command("evaluate", "run=run", f"data.test={tiny_data[1]}"), "resume=run")


WRONG_CALLS = """
import io, json, sys
from contextlib import redirect_stderr
from inrflow.cli import main

told = []
for arguments in json.loads(sys.argv[1]):
    with redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    told.append((code, err.getvalue()))
print(json.dumps([told, sorted({"torch", "scipy", "h5py", "matplotlib"} & set(sys.modules))]))
"""


def test_wrong_calls_are_told_before_anything_heavy_is_imported(elsewhere):
    calls = [("trian",), ("train", "seeds=1"), ("train", "data.points=2"), ("evaluate",), ("evaluate", "run=."),
             ("plot", "run=nowhere"), ("query", "run=."), ("adapt", "run=."), ("convert", "a.csv"), ("inspect",),
             ("inspect", "nowhere"), ("generate", "trajectory=3"), ("generate", "pde=nope"),
             ("train", "-m", "seed=0,1", "data.train=nowhere.h5"), ("train", "-m", "data.train=nowhere.h5,x.h5"),
             ("train", "--multirun", "seed=0,1", "training.minutes=1,-1")]
    child = process([json.dumps(calls)], WRONG_CALLS)
    out, err = child.communicate(timeout=100)
    told, imported = json.loads(out)
    assert not err and not imported
    for call, (code, said) in zip(calls, told, strict=True):
        assert code == 2 and len(said.splitlines()) == 1, (call, code, said)


def test_no_garbage_is_looked_for_while_a_command_is_imported(monkeypatch):
    gc.enable()  # threads of other packages (dask) may have left it off
    seen = []
    monkeypatch.setattr("importlib.import_module",
                        lambda name: seen.append(gc.isenabled()) or SimpleNamespace(run=name))
    assert _command("train") == "inrflow.commands.train" and seen == [False] and gc.isenabled()


def test_ctrl_c_is_told_in_a_line_and_ends_with_130(monkeypatch, capsys):
    from inrflow import cli

    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_command", lambda name: interrupted)
    assert cli.main(["inspect", "."]) == 130
    assert capsys.readouterr().err == "inrflow inspect: stopped\n"


def test_ctrl_c_before_the_command_begins_is_told_in_a_line(monkeypatch, capsys):
    from inrflow import cli

    def interrupted(run):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_told_once", interrupted)
    assert cli.main(["query", "run=runs/a"]) == 130
    assert capsys.readouterr().err == "inrflow query: stopped\n"


def test_warnings_of_a_run_are_read_without_importing_its_model(tmp_path):
    code = ("import sys; from inrflow.cli import _told_once; _told_once(sys.argv[1]); "
            "sys.exit(bool({'torch', 'inrflow.commands.run_directory'} & set(sys.modules)))")
    (tmp_path / "warnings.json").write_text('{"warnings": []}')
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=100).returncode == 0


@pytest.mark.parametrize("error", [
    MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 GB"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object")])
def test_exhausted_memory_is_one_line_and_other_errors_are_raised(error, monkeypatch, capsys):
    from inrflow import cli

    def fails(arguments):
        raise error

    monkeypatch.setattr(cli, "_command", lambda name: fails)
    assert cli.main(["inspect", "."]) == 1 and "not enough memory" in capsys.readouterr().err
    error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["inspect", "."])


def test_messages_cannot_steer_the_terminal(elsewhere, inrflow_command):
    outcome = inrflow_command("inspect", "no\x1b[2Jwhere")
    assert outcome.code == 2 and "\x1b" not in outcome.err and "\\x1b[2J" in outcome.err


def test_calls_with_a_slip_are_told_what_was_meant(elsewhere, inrflow_command):
    (elsewhere / "a.csv").write_text("t,x,u\n0,0,1\n")
    for arguments, hint in ((["inspekt", "a.csv"], "did you mean inspect?"),
                            (["train", "a.csv"], "a file of data is data.train=a.csv"),
                            (["convert", "a.csv"], "a.csv is given; expected SOURCE TARGET")):
        outcome = inrflow_command(*arguments)
        assert outcome.code == 2 and hint in outcome.err and outcome.err.count("\n") == 1


def test_no_warning_is_printed_twice(capsys):
    show = _told_once()
    for message, category in (("one", UserWarning), ("two\nlines", UserWarning), ("one", UserWarning),
                              ("inner", DeprecationWarning)):
        show(message, category, "file.py", 1)
    told = capsys.readouterr().err
    assert told.count("inrflow: warning: ") == 2 and "one" in told and "two" in told and "inner" not in told
    show("one", UserWarning, "other.py", 7)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_may_be_cut_off(arguments):
    closed, pipe = os.pipe()
    os.close(closed)
    with os.fdopen(pipe, "w") as cut:
        done = subprocess.run([sys.executable, "-m", "inrflow", *arguments], stdout=cut, stderr=subprocess.PIPE,
                              text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_on_a_full_disk_is_one_clear_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "inrflow", "--help"], stdout=full, stderr=subprocess.PIPE,
                              text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "no space left on the disk" in done.stderr
