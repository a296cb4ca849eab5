"""Training: recipes propose candidates, the judge compares them, and the best one is completed. See `train`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.console import Console

from inrflow.data.batch import TimeScale
from inrflow.errors import UserError, first_line
from inrflow.evaluation.calibration import pooled
from inrflow.model.surrogate import Surrogate
from inrflow.numerics.effort import Limit, OutOfTime, effort
from inrflow.runtime.atomic_files import locked_folder
from inrflow.runtime.temporary import temporary_folder
from inrflow.training.candidate import Candidate, assemble, complete
from inrflow.training.judge import Judge
from inrflow.training.margins import POOR, ROUNDING, WHITE
from inrflow.training.parts.residual_field import choose_residual_field
from inrflow.training.problem import Problem
from inrflow.training.recipes.auto_decoding import AutoDecodingRecipe
from inrflow.training.recipes.joint import JointRecipe
from inrflow.training.recipes.law import LawRecipe
from inrflow.training.recipes.neural import NeuralRecipe
from inrflow.training.recipes.reduced_order import ReducedOrderRecipe
from inrflow.training.recipes.series import SeriesRecipe
from inrflow.training.recorder import Budget, Clock, Recorder, Tried
from inrflow.training.run import Recipe, Run

RECIPES: list[Recipe] = [
    LawRecipe(), SeriesRecipe(), ReducedOrderRecipe(), NeuralRecipe(), AutoDecodingRecipe(), JointRecipe(),
]
_FRAMES, _OF_ONE = 0.15, 0.2  # share of the budget for frames of rows; their largest error for one trajectory
_RESIDUAL_FIELD = 0.4  # least share of the budget after which the search for one is abandoned
ALIASES = {"coral": "auto_decoding", "local_equation": "law", "translation_equivariant": "law"}


def register_recipe(recipe: Recipe) -> Recipe:
    """Add a recipe as the last one that `recipe=auto` tries; it can also be selected by its name.

    Raises ValueError if the name is taken.
    """
    if any(recipe.name in ("auto", *ALIASES, other.name) for other in RECIPES):
        raise ValueError(f"the recipe {recipe.name!r} is registered already; choose another name")
    RECIPES.append(recipe)
    return recipe


def recipes_named(name: str) -> list[Recipe]:
    """All recipes for `auto`, else the one with this name. Raises UserError for an unknown name."""
    chosen = [recipe for recipe in RECIPES if name in ("auto", recipe.name) or recipe.name == ALIASES.get(name)]
    if not chosen:
        names = ", ".join(["auto", *(recipe.name for recipe in RECIPES), *ALIASES])
        raise UserError(f"recipe={name} is not known; choose from {names}")
    return chosen


def fit(
    problem: Problem, recipes: Sequence[Recipe] | None = None, directory: str | Path | None = None, quiet: bool = False
) -> Surrogate:
    """The surrogate of the best candidate of all applicable recipes.

    Args:
        problem: see `Problem.open`.
        recipes: in the order of their trials, from the special to the general; by default those of the configuration.
        directory: of candidates.json, metrics.jsonl and checkpoints, from which a stopped run resumes; None: temporary.
        quiet: print nothing.
    Raises:
        UserError: if no recipe applies or none finds a model, and if `problem` is not a Problem.
    """
    if not isinstance(problem, Problem):
        raise UserError(f"fit takes a Problem, not {type(problem).__name__}; inrflow.train(FILE) takes files")
    console = Console(stderr=True, markup=False, quiet=quiet)
    place = temporary_folder() if directory is None else locked_folder(directory)
    with place as folder, Recorder(Path(folder), console, problem.config) as log:
        return train(start_run(problem, log), recipes)


def start_run(problem: Problem, log: Recorder, clock: Clock = time.perf_counter) -> Run:
    """A run with the configured budget, and with the decisions of the configuration and of a stopped run."""
    training = problem.config.training
    decisions = {**log.read_decisions(), **{k: v for k, v in asdict(training.steps).items() if v is not None}}
    if decisions:
        log.save_decisions(decisions)
    least = problem.source.normalisation.least
    amounts = [] if least is None else [problem.description.channels[index] for index in (least == 0).nonzero()]
    if amounts:
        log.say(f"{', '.join(amounts)}: never negative in the data and often near 0, so quantiles are cut off at 0")
    budget = Budget(training.minutes, decisions, clock, log.save_decisions)
    return Run(problem, Judge(problem), budget, log, problem.config)


def train(run: Run, recipes: Sequence[Recipe] | None = None) -> Surrogate:
    """The surrogate of the best candidate of all applicable recipes.

    Args:
        run: problem, judge, budget and log.
        recipes: in the order in which they are tried; by default those of the configuration.
    Raises:
        UserError: if no recipe applies or none finds a model.
        Interrupted: after saving, if the log is stopping.
    """
    recipes = recipes_named(run.config.recipe) if recipes is None else recipes
    run = _with_frames(run) if run.problem.source.moves else run
    best: Candidate | None = None
    for recipe in sorted(recipes, key=lambda recipe: bool(getattr(recipe, "is_late", lambda _: False)(run.problem))):
        late = run.budget.over and best is not None and not getattr(recipe, "is_quick", lambda _: False)(run.problem)
        reason = run.judge.enough(best) or recipe.applies(run.problem, best) or (late and "the time budget is spent")
        if reason:
            run.log.skip(recipe.name, reason)
            continue
        for candidate in _proposed(recipe, run):
            best = _better(candidate, best, run)
    chosen = _taken(best, run)
    surrogate = _with_residual_field(complete(chosen, run.budget, run.log), chosen, run)
    run.log.save_candidates()  # with later decisions
    return surrogate


def _with_frames(run: Run) -> Run:
    """The run with frames at fixed places, if splines of its rows or harmonics of its frames can provide them."""
    from inrflow.encoding.row_frames import frames_at_places  # finite elements take a second to import

    problem, part = run.problem, run.budget.part(_FRAMES)
    found = frames_at_places(problem.source, problem.train, problem.description, run.config.seed, part,
                             run.budget.seconds(_FRAMES), POOR if len(problem.validation) else _OF_ONE, run.log.say)
    if found is None:
        return run
    source, error, domain = found
    whole = replace(problem, source=source, scale=TimeScale.of(source.times), noise=torch.as_tensor(error),
                    domain=domain)
    return replace(run.on(whole), judge=Judge(whole))


def _better(new: Candidate, best: Candidate | None, run: Run) -> Candidate | None:
    """The better of a new candidate and the best one so far; the row of the other records why it is not chosen."""
    row = new.row or run.log.tried(Tried(
        new.recipe, new.name, new.code_size, new.score.error, new.score.floor, new.score.unknowns, new.memory,
        new.context_size))
    new, before = replace(new, row=row), None if best is None else best.row
    if not math.isfinite(new.score.error):
        row.why = "forecasts of held-out data diverge"
    elif not run.judge.better(new, best, run.log):
        row.why = f"not clearly better than {_words(before, row)}"
    else:
        if before is not None:
            before.why = f"smaller held-out error of {_words(row, before)}"
        return new
    return best


def _taken(best: Candidate | None, run: Run) -> Candidate:
    """The best candidate, recorded as the one that becomes the surrogate. Raises UserError if there is none."""
    log = run.log
    if best is None or best.row is None:
        found = "every model diverged" if log.candidates else "none was found in the time"
        why = "; ".join(f"{row['recipe']}: {row['why']}" for row in log.not_applied) or found
        raise UserError(f"no model was found for {run.problem.file.path} ({why}); give more trajectories, more "
                        "minutes, or recipe=auto")
    best.row.taken, best.row.why = True, ""
    log.save_candidates()
    log.say(f"model: {best.recipe}, {best.name}, {best.code_size} codes, validation error {best.score.error:.2e} "
            "of the variance")
    return best


def _with_residual_field(surrogate: Surrogate, best: Candidate, run: Run) -> Surrogate:
    """The surrogate with a residual field added to its codes if that improves forecasts of held-out data; not tried if
    codes alone explain the observations."""
    wanted = run.config.training.residual_field
    alone = not len(run.problem.validation) and run.problem.unexplained > WHITE  # frames replace observations
    rest = alone or (not best.explained and best.score.error > ROUNDING)
    if not (wanted == "on" or (wanted == "auto" and rest)):
        return surrogate
    judged = assemble(best)  # not fitted to the held-out data
    judged.prior = pooled(judged.prior, [surrogate.prior])
    budget = run.budget
    until = budget.clock() + budget.seconds(1.0, _RESIDUAL_FIELD)
    try:
        with effort.limited(Limit(until=until, clock=budget.clock)):
            return choose_residual_field(surrogate, judged, run)
    except OutOfTime:
        run.log.say("residual field: search stopped, for lack of time (standard deviations of this model are slow)")
    except (ArithmeticError, ValueError, RuntimeError, UserError) as error:  # LinAlgError is one of these
        run.log.say(f"residual field: not used, the search failed: {first_line(error)}")
    return surrogate


def _proposed(recipe: Recipe, run: Run) -> Iterator[Candidate]:
    """The candidates of a recipe; one that fails numerically is skipped, with a message."""
    try:
        yield from recipe.propose(run)
    except (ArithmeticError, ValueError, RuntimeError) as error:  # LinAlgError is a ValueError
        if isinstance(error, UserError):
            raise
        run.log.skip(recipe.name, f"failed: {first_line(error)}")
        run.log.say(f"recipe {recipe.name} failed and is skipped: {first_line(error)}")


def _words(row: Tried | None, other: Tried) -> str:
    """Description of a candidate relative to another one."""
    return "" if row is None else row.candidate if row.recipe == other.recipe else f"{row.recipe} in the same forecasts"
