"""Every number of a configuration has limits, and what is beyond them is told before anything is done."""

from dataclasses import fields, is_dataclass

import pytest

from inrflow.config import schema as config
from inrflow.config.resolve import check_limits, resolve
from inrflow.errors import UserError


def unlimited(settings, prefix=""):
    """Keys of numbers without limits."""
    for item in fields(settings):
        value = getattr(settings, item.name)
        if is_dataclass(value):
            yield from unlimited(value, f"{prefix}{item.name}.")
        elif str(item.type).removesuffix(" | None") in ("int", "float") and not str(item.metadata["limits"]):
            yield prefix + item.name


@pytest.mark.parametrize("schema", [config.Config, config.EvaluateConfig, config.AdaptConfig, config.QueryConfig,
                                    config.PlotConfig, config.ConvertConfig])
def test_no_number_is_without_limits(schema):
    assert list(unlimited(schema())) == []


@pytest.mark.parametrize(("override", "told"), [
    ("data.points=2", "data.points=2; give a number above 0 and of at most 1"),
    ("data.points=nan", "data.points=nan"),
    ("training.minutes=inf", "training.minutes=inf; give a number above 0"),
    ("training.steps.decoder=-1", "training.steps.decoder=-1; give a number of at least 0"),
    ("data.validation=1", "of at least 0 and below 1"),
    ("training.optimiser=sgd", "training.optimiser=sgd; give soap, adamw or adam"),
    ("output=", "output= is empty"),
])
def test_values_beyond_the_limits_are_told_with_what_is_possible(override, told):
    with pytest.raises(UserError) as caught:
        resolve("train", config.Config, [override])
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_shipped_is_within_the_limits():
    for experiment in ("dino", "coral", "neural", "shift_scale"):
        check_limits(resolve("train", config.Config, [f"experiment={experiment}"]))
