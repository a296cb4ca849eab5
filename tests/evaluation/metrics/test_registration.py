"""A metric of a user's own: one class, registered, is computed, written and shown."""

import json

import pytest

from inrflow.commands.report import error_lines
from inrflow.evaluation.metrics import METRICS, Metric, register_metric
from inrflow.evaluation.metrics.base import report_of


class LargestError(Metric):
    """The largest absolute error in data units."""

    name = "largest_error"
    titles = {"largest_error": "largest error {:.3g}"}
    compared = ("largest_error",)

    def __init__(self, channels):
        super().__init__(channels)
        self.largest = 0.0

    def update(self, block):
        self.largest = max(self.largest, block.error.abs().max().item())

    def value(self):
        return {"largest_error": self.largest}


@pytest.fixture
def registered():
    register_metric(LargestError)
    yield
    del METRICS["largest_error"]


def test_a_registered_metric_is_in_the_report_of_model_and_references_and_on_the_screen(
    registered, tiny_run, tmp_path, inrflow_command
):
    outcome = inrflow_command("evaluate", f"run={tiny_run.run}", f"data.test={tiny_run.test}", f"output={tmp_path}")
    assert outcome.code == 0, outcome.err
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["largest_error"] > report["mse"]["all"] ** 0.5
    assert report["references"]["persistence"]["largest_error"] > 0
    assert f"largest error {report['largest_error']:.3g}" in outcome.out
    assert f"largest error {report['largest_error']:.3g}" in inrflow_command("inspect", tmp_path).out


def test_a_metric_that_is_not_registered_any_more_leaves_old_reports_readable(tiny_run):
    report = json.loads((tiny_run.run / "evaluation.json").read_text())
    assert not any("largest error" in line for line in error_lines(report | {"largest_error": 1.0}))


def test_names_and_keys_of_metrics_are_unique(registered):
    with pytest.raises(ValueError, match="registered already"):
        register_metric(type("Other", (LargestError,), {}))
    with pytest.raises(ValueError, match="repeats the keys largest_error"):
        report_of([LargestError(None), LargestError(None)])


def test_what_is_not_finite_is_written_as_null():
    metric = LargestError(None)
    metric.largest = float("nan")
    assert report_of([metric]) == {"largest_error": None}
