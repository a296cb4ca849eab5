"""Description: what is declared of a data set fits together, and survives JSON."""

import json

import pytest
from small_data import WAVE, with_symmetries

from inrflow.data.description import Description, Symmetries
from inrflow.errors import UserError


def test_json_gives_the_same_back():
    for description in (WAVE, with_symmetries(),
                        Description("globe", ("sst",), ("x", "y", "z"), geometry="sphere", time_period=8766.0,
                                    parameter_names=("speed",))):
        assert Description.from_dict(json.loads(json.dumps(description.to_dict()))) == description


def test_symmetries_default_to_none_of_the_right_shape():
    assert len(WAVE.symmetries) == 0 and (WAVE.symmetries.d, WAVE.symmetries.channels) == (2, 2)


@pytest.mark.parametrize("changes, words", [
    ({"channels": ()}, "at least"),
    ({"channels": ("u", "u")}, "different"),
    ({"channels": ("x", "u")}, "different"),
    ({"channels": ("t", "u")}, "rename"),
    ({"units": ("m",)}, "units"),
    ({"period": (1.0,)}, "period"),
    ({"period": (-1.0, 0.0)}, "period"),
    ({"period": (float("nan"), 0.0)}, "period"),
    ({"geometry": "torus"}, "torus"),
    ({"geometry": "sphere"}, "3"),
    ({"time_period": 0.0}, "time_period"),
    ({"symmetries": Symmetries.by_name("reflection", Description("a", ("u",), ("x",)))}, "symmetries"),
])
def test_parts_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        Description(**{"name": "wave", "channels": ("u", "v"), "coordinates": ("x", "y"), **changes})
