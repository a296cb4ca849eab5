"""The search for the best default: its alternatives are settings that exist, and its verdict is read off the rows."""


import pytest

from benchmarks.forecasts import default_search
from inrflow.config.resolve import resolve
from inrflow.config.schema import Config


@pytest.mark.parametrize("alternative", default_search.ALTERNATIVES, ids=lambda alternative: alternative.name)
def test_every_alternative_departs_from_the_default_by_settings_that_exist(alternative):
    plain = resolve("train", Config, [])
    changed = resolve("train", Config, alternative.settings(chosen=30))
    assert (changed == plain) == (alternative.name == default_search.DEFAULT)


def test_code_sizes_follow_the_one_that_the_default_chose():
    twice = next(a for a in default_search.ALTERNATIVES if a.codes == 2)
    assert twice.settings(30) == ["decoder.code_size=60", "decoder.largest_code_size=400"]
    assert twice.settings(300)[1] == "decoder.largest_code_size=600"


def test_the_verdict_sets_the_default_beside_the_best_and_what_validation_would_take():
    def row(alternative, test, validation):
        return {"data": "wave", "alternative": alternative, "test": test, "validation": validation}

    rows = [row("default", 1.5, 2.0), row("lucky", 1.0, 3.0), row("chosen", 1.2, 1.0), row("diverged", None, 0.5)]
    line = default_search.verdicts([*rows, {"data": "wave", "alternative": "failed", "error": "why"}]).splitlines()[-1]
    assert line == "| wave | lucky | 1 | 1.5 | 1.5 | no | chosen | 1.2 | 3 |"
