"""The recorder: lines of metrics that any reader of JSON takes, and signals that stop training at the end of a step."""

import io
import json
import os
import signal

import pytest
from rich.console import Console

from inrflow.training.recorder import Interrupted, Recorder


def recorder(folder, output=None):
    return Recorder(folder, Console(file=output or io.StringIO()))


def strict(line):
    def refuse(name):
        raise ValueError(name)

    return json.loads(line, parse_constant=refuse)


def test_metrics_are_appended_as_strict_json(tmp_path):
    with recorder(tmp_path) as first:
        first.log("fit", 1, loss=0.5, note="text", count=3, flag=True, absent=None)
        first.log("fit", 2, loss=float("nan"), validation=float("inf"))
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2  # written as they come
    with recorder(tmp_path) as second:
        second.log("rollout", 1, loss=0.25)
    rows = [strict(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [("fit", 1), ("fit", 2), ("rollout", 1)]
    expected = {"loss": 0.5, "note": "text", "count": 3, "flag": True, "absent": None}
    assert {key: rows[0][key] for key in expected} == expected
    assert rows[1]["loss"] is None and rows[1]["validation"] is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_once_and_the_old_handler_comes_back(tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted), recorder(tmp_path):
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_loop_that_saves_is_asked_to_stop_and_only_a_second_signal_does_not_wait(tmp_path, number):
    output = io.StringIO()
    with recorder(tmp_path, output) as recording:
        with recording.saving():
            assert not recording.stopping
            os.kill(os.getpid(), number)
            assert recording.stopping and "saving" in output.getvalue()
            with pytest.raises(Interrupted):
                os.kill(os.getpid(), number)
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), number)


def test_handlers_and_files_are_restored_after_an_error(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError), recorder(tmp_path) as recording:
        recording.log("fit", 1)
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) is before and recording._metrics.closed


def test_progress_of_one_stage_at_a_time(tmp_path):
    with recorder(tmp_path) as recording:
        recording.advance(3)  # no stage yet
        recording.begin("fit", 10, done=4)
        recording.begin("rollout", 20)
        recording.advance(5, "loss 1e-3")
        (task,) = recording._progress.tasks
        assert task.description == "rollout" and task.completed == 5 and task.total == 20
        recording.end()
        assert not recording._progress.tasks
