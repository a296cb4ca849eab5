"""How many numbers the contexts of a file's systems may have."""

from types import SimpleNamespace

import numpy as np
import pytest

from inrflow.data.formats.trajectory_file import Environments
from inrflow.training.parts.environments import ContextGroups


@pytest.mark.parametrize(("known", "wanted", "systems", "sizes"), [
    (None, None, 6, (1, 2)), (None, None, 2, (1,)), (1, None, 6, (1, 2)), (1, None, 3, (1,)), (2, None, 6, (2, 3)),
    (2, None, 4, (2,)), (3, None, 3, (2,)), (1, 3, 6, (3,)), (None, 3, 3, (2,))])
def test_one_number_more_than_parameters_where_systems_tell_so_many_apart(known, wanted, systems, sizes):
    parameters = None if known is None else np.random.default_rng(0).random((systems, known))
    environments = Environments("environment", np.arange(systems), np.arange(systems), parameters)
    problem = SimpleNamespace(environments=environments, train=np.arange(systems),
                              config=SimpleNamespace(dynamics=SimpleNamespace(context_size=wanted)))
    assert ContextGroups(problem).sizes() == sizes
