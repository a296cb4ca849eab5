"""Parts of a training end with its time, by effort or by the injected clock, and keep what they have found."""

import pytest

from inrflow.numerics.effort import Limit, OutOfTime, effort
from inrflow.training.recorder import Budget


class Clock:
    """Seconds that only pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    effort.restart()  # what earlier tests took hides what is added
    return Clock()


def counted(seconds: float, found: list) -> None:
    """Ten pieces of work, each of so many seconds of effort."""
    for piece in range(10):
        effort.add(products=1e10 * seconds)
        found.append(piece)


def test_a_part_is_abandoned_where_its_share_of_the_effort_is_spent_whatever_the_clock_says(clock):
    budget, found, told = Budget(1.0, clock=clock), [], []
    with budget.part(0.5, lambda: told.append("over")):
        counted(7.0, found)
        found.append("never")
    assert found == [0, 1, 2, 3] and told == ["over"] and not budget.over
    with budget.part(0.5, lambda: told.append("again")):
        counted(2.0, found)
    assert found[4:] == list(range(10)) and told == ["over"]  # what was spent before does not count


def test_the_clock_ends_a_part_whose_effort_is_not_spent(clock):
    budget, found = Budget(1.0, clock=clock), []
    clock.now = 30.0
    with budget.part(1.0):
        for second in range(100):
            clock.now += 1.0
            effort.check()
            found.append(second)
    assert budget.over and 60 <= clock.now <= 1.2 * 60 + 20
    with budget.part(1.0):
        effort.check()
        found.append("never")
    assert found[-1] != "never"


def test_a_part_with_a_least_share_has_it_after_the_budget_is_spent(clock):
    budget, found = Budget(1.0, clock=clock), []
    clock.now = 1e3
    with budget.part(least=0.1):
        for second in range(100):
            clock.now += 1.0
            effort.check()
            found.append(second)
    assert found == list(range(6))


def test_an_inner_part_ends_before_the_outer_one_which_goes_on(clock):
    budget, found = Budget(1.0, clock=clock), []
    with budget.part(0.9):
        with budget.part(0.2):
            counted(5.0, found)
        found.append("outer")
        counted(20.0, found)
        found.append("never")
    assert found == [0, 1, "outer", 0]


def test_work_outside_of_parts_has_no_limit_and_errors_of_parts_are_raised(clock):
    budget = Budget(1e-9, clock=clock)
    clock.now = 1e6
    effort.add(products=1e15)
    with pytest.raises(ZeroDivisionError), budget.part(1.0):
        raise ZeroDivisionError
    with pytest.raises(OutOfTime), effort.limited(Limit(-1.0)):
        effort.check()
    effort.check()
