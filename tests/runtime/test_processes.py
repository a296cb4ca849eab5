"""Processes of a job: who they are, and a sweep that two of them share."""

import json
import os
from functools import partial
from pathlib import Path

import pytest
from forked import ended, job

from inrflow.commands.several.sweep import run_sweep
from inrflow.errors import UserError
from inrflow.runtime.processes import Processes


def sweep(folder, fatal):
    """A sweep whose process ends at the run with the seed `fatal`."""
    def run(arguments):
        given = dict(item.split("=", 1) for item in arguments)
        folder = Path(given["output"])
        folder.mkdir(parents=True)
        if given["seed"] == fatal:
            os._exit(7)
        for name in ("model.safetensors", "config.yaml"):
            (folder / name).write_text("")
        report = {"nmse": {"in_t": float(given["seed"]), "out_t": 1.0}, "coverage_90": 0.9,
                  "rank": int(os.environ["RANK"])}
        (folder / "evaluation.json").write_text(json.dumps(report))
        return 0

    try:
        return run_sweep(["--multirun", "seed=0,1,2,3,4", f"output={folder}"], run, lambda config: None)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        return 2


def swept(folder, fatal):
    """Exit codes and outputs of a sweep in two processes."""
    return ended(job(2, partial(sweep, folder, fatal)))[:2]


def test_the_environment_says_which_process_this_is():
    assert Processes.of({}) == Processes(0, 1)
    assert Processes.of({"RANK": "1", "WORLD_SIZE": "3"}) == Processes(1, 3)
    assert Processes.of({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}) == Processes(1, 2)
    assert Processes.of({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}).size == 1  # a batch script, without srun
    with pytest.raises(UserError, match="no process of a job"):
        Processes.of({"RANK": "3", "WORLD_SIZE": "3"})


def test_two_processes_share_a_sweep_and_the_first_writes_its_table(tmp_path):
    codes, outputs = swept(tmp_path / "two", "none")
    assert codes == [0, 0], outputs
    rows = json.loads((tmp_path / "two" / "sweep.json").read_text())["runs"]
    assert [row["in_t"] for row in rows] == [0, 1, 2, 3, 4] and [row["settings"] for row in rows][4] == ["seed=4"]
    ranks = [json.loads((tmp_path / "two" / str(k) / "evaluation.json").read_text())["rank"] for k in range(5)]
    assert ranks == [0, 1, 0, 1, 0]


def test_a_process_that_dies_ends_the_job_with_one_line_and_the_rest_is_kept(tmp_path):
    codes, outputs = swept(tmp_path / "sweep", "3")
    assert codes == [2, 7] and outputs[0].count("\n") == 1 and "another process of this job has ended" in outputs[0]
    assert all((tmp_path / "sweep" / str(k) / "evaluation.json").exists() for k in (0, 1, 2, 4))
