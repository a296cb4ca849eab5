"""The protocol of recipes: ways to candidates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from inrflow.config.schema import Config
from inrflow.decoders.base import AffineDecoder
from inrflow.decoders.registry import decoder_class
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


def uses_solved_codes(problem: Problem) -> bool:
    """Whether codes are weights of an affine decoder, solved by least squares."""
    return has_solved_codes(problem.config)


def has_solved_codes(config: Config) -> bool:
    """Whether a configuration has an affine decoder with codes in closed form."""
    decoder = config.decoder
    affine = issubclass(decoder_class(decoder.name), AffineDecoder) and list(decoder.modulation) == ["output"]
    return affine and config.encoding.method == "closed_form"
