"""Effort: counted work and the time that stands in for it."""

import time

from inrflow.numerics.effort import Effort


def test_effort_advances_by_what_is_counted_and_hardly_by_time():
    effort = Effort()
    effort.add(products=1e10, elements=4e8, calls=2e5)
    before = effort()
    sum(range(100_000))
    assert 2.9 < before < 3.1 and effort() == before


def test_effort_follows_the_processor_where_more_time_passes_than_is_counted():
    effort, began = Effort(), time.process_time()
    while time.process_time() - began < 0.05:
        pass
    assert 0.01 < effort() < 0.05
