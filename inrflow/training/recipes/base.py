"""The protocol of recipes: ways to candidates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from inrflow.training.candidate import Candidate
from inrflow.training.problem import Problem
from inrflow.training.run import Run


@runtime_checkable
class Recipe(Protocol):
    """A way to candidates.

    `applies` returns None, or one line that says why the recipe is not tried, given the best candidate so far.
    `propose` yields candidates; an earlier one of the same recipe is replaced by a clearly better later one.
    """

    name: str

    def applies(self, problem: Problem, best: Candidate | None) -> str | None: ...

    def propose(self, run: Run) -> Iterator[Candidate]: ...
