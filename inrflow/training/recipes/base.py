"""The protocol of recipes: ways to candidates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from inrflow.config.schema import Config
from inrflow.decoders.base import AffineDecoder, decoder_class, decoder_names
from inrflow.errors import UserError
from inrflow.training.candidate import Candidate
from inrflow.training.problem import Problem
from inrflow.training.run import Run

METHODS = ("adam", "gauss_newton", "gradient_steps")  # of encoding by descent


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


def asks_for_other_dynamics(config: Config) -> str | None:
    """The first setting that asks for other dynamics than a law, in words; None where there is none."""
    dynamics = config.dynamics
    settings = {"dynamics.equation": not dynamics.equation, "dynamics.linear": not dynamics.linear,
                "dynamics.memory": dynamics.memory}
    return next((f"{key} asks for other dynamics" for key, asked in settings.items() if asked), None)


def without_symmetries(run: Run) -> Run:
    """The run without symmetries, which codes of single training frames cannot use."""
    if len(run.problem.symmetries):
        run.log.say("symmetries are not used: these codes belong to single training frames")
    return run.on(run.problem.with_symmetries(run.problem.symmetries.only([])))


def check_recipe(config: Config) -> None:
    """Raise UserError for a decoder and an encoding that cannot work together."""
    settings, method = config.decoder, config.encoding.method
    if settings.name not in decoder_names():
        raise UserError(f"decoder.name={settings.name!r}; choose from {', '.join(decoder_names())}, or import the "
                        "module that registers it")
    if not settings.modulation or set(settings.modulation) - {"shift", "scale", "output"}:
        raise UserError(f"decoder.modulation={list(settings.modulation)}; give a subset of [shift, scale, output]")
    if method not in ("closed_form", *METHODS):
        raise UserError(f"encoding.method={method!r}; choose from closed_form, {', '.join(METHODS)}")
    if method == "closed_form" and not has_solved_codes(config):
        raise UserError(
            "encoding.method=closed_form needs a siren with output modulation or another decoder with a linear output "
            f"layer, found decoder {settings.name} with modulation {list(settings.modulation)}; give "
            "encoding.method=gauss_newton, adam or gradient_steps"
        )
    if config.training.joint and (method != "adam" or config.dynamics.linear or not config.dynamics.depth):
        raise UserError(
            f"training.joint=true moves codes by Adam and trains a network alone as field, found encoding.method="
            f"{method}, dynamics.linear={str(config.dynamics.linear).lower()}, dynamics.depth={config.dynamics.depth}; "
            "give adam, false and 1 or more"
        )
