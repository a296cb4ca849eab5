"""Effort: counted work and the time that stands in for it."""

import time

import pytest

from inrflow.numerics.effort import Effort, Limit, OutOfTime


def test_effort_advances_by_what_is_counted_and_hardly_by_time():
    effort = Effort()
    effort.add(products=1e10, elements=1.2e9, calls=2e5)
    before = effort()
    sum(range(100_000))
    assert 2.9 < before < 3.1 and effort() == before


def test_effort_follows_the_processor_where_more_time_passes_than_is_counted():
    effort, began = Effort(), time.process_time()
    while time.process_time() - began < 0.05:
        pass
    assert 0.01 < effort() < 0.05


def test_computations_end_at_so_much_effort_at_a_time_or_where_they_are_asked_to():
    effort, now = Effort(), [0.0]
    limits = [Limit(2.5), Limit(until=4.0, clock=lambda: now[0]), Limit(asked=lambda: now[0] > 5)]
    ends = []
    for limit in limits:
        with pytest.raises(OutOfTime), effort.limited(limit):
            while True:
                now[0] += 1
                effort.add(seconds=1)
        ends.append(now[0])
        effort.check()  # no limit is left
    assert ends == [3, 5, 6]
