"""`inrflow adapt`: a run directory for a new environment, from a trained run and a few trajectories of it."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from inrflow.adaptation.context import (
    STRENGTHS,
    Adaptation,
    adapt_context,
    batches_of,
    mean_context,
    nearest_environment,
)
from inrflow.adaptation.further import Step, adapt_further, enough_for_coefficients
from inrflow.adaptation.scratch import train_from_scratch
from inrflow.commands.run_directory import (
    ADAPT_FILE,
    REFERENCES_FILE,
    RunDirectory,
    convert_data_files,
    copy_references,
    load_run,
    print_domain_change,
    report_evaluation,
)
from inrflow.config.resolve import resolve
from inrflow.config.schema import AdaptConfig, Config
from inrflow.data.batch import TrajectoryBatch
from inrflow.data.formats.registry import expanded
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.plausible import leave_out_faults
from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import choose_device
from inrflow.errors import UserError, first_line
from inrflow.evaluation.evaluate import Observe, evaluate, require_channels
from inrflow.evaluation.new_domain import Place, moved
from inrflow.evaluation.place import require_place
from inrflow.evaluation.references.base import fit_references
from inrflow.model.state_prior import ContextPrior
from inrflow.model.store import is_family
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.atomic_files import write_json

_COPIES = 4  # symmetry copies for refits of decoder and field; for contexts they carry no information
_MOSTLY = 10.0  # ratio of the variance of the map to parameters to that of a context, above which it dominates


def run(arguments: list[str]) -> int:
    """Adapt a run, compare forecasts, save."""
    config: AdaptConfig = resolve("adapt", AdaptConfig, arguments)
    check(config)
    if is_family(str(config.run)):
        from inrflow.commands.several.adapt import run_of_several

        return run_of_several(config, adapt)
    surrogate = load_run(str(config.run), config.device)
    place = RunDirectory.new(config.output, "adapt")
    with place.held():
        return adapt(config, surrogate, place)


def adapt(config: AdaptConfig, surrogate: Surrogate, place: RunDirectory) -> int:
    """Adapt a surrogate to the new system, compare, save."""
    directory = place.path
    console = Console(stderr=True, markup=False)
    convert_data_files(config.data, directory, console, RunDirectory(Path(str(config.run))).read_settings(),
                       surrogate.description.time_units)
    with TrajectoryFile(str(config.data.train)) as file:
        source = open_source(surrogate, file, config)
        count = min(config.data.trajectories or len(source), len(source))
        copies = config.adapt.copies or (1 if config.adapt.strength in ("auto", "context") else _COPIES)
        if config.adapt.strength == "none":
            batch = source.batch(np.arange(count), normalised=False)
            write_moved_law(surrogate, file, batch, config, place, console)
            return 0
        require_place(surrogate, file)
        if surrogate.training.get("faults") != "kept":
            leave_out_faults(source, np.arange(count))
        batches = batches_of(surrogate, source, np.arange(count), copies, config.seed)
        steps: list[Step] = []
        strength = config.adapt.strength
        if strength == "auto":
            strength = "all" if enough_for_coefficients(surrogate, batches[0]) else "context"
        if strength == "context":
            adaptation = adapt_context(surrogate, batches)
        else:
            adaptation, steps = adapt_further(surrogate, batches, strength == "all")
        told = tell(surrogate, adaptation, steps, strength, (count, source.times.shape[1]), console)
        write_model(adaptation.surrogate, config, place)
        scratch = None
        if config.data.test is not None and config.adapt.scratch_minutes:
            trained = configuration_of(config)
            trained.device = config.device
            try:
                scratch = train_from_scratch(trained, source, np.arange(count), config.adapt.scratch_minutes)
            except UserError as reason:  # the adapted run does not depend on it
                console.print(f"no model was trained from scratch for comparison: {first_line(reason)}",
                              highlight=False)
    if config.data.test is not None:
        told["errors"] = compare(surrogate, adaptation, scratch, config, console)
    write_json(directory / "adaptation.json", told)
    if config.data.test is not None:
        test, seen = Path(config.data.test), observed(config, surrogate)
        report_evaluation(adaptation.surrogate, test, seen, directory, console, place.references())
    write_configuration(config, place)
    console.print(f"the adapted run is in {directory}", highlight=False)
    return 0


def write_moved_law(
    surrogate: Surrogate, file: TrajectoryFile, batch: TrajectoryBatch, config: AdaptConfig, place: RunDirectory,
    console: Console,
) -> None:
    """Move a law to the domain of a file, calibrate it on the trajectories of a batch, and write the run."""
    began = time.perf_counter()
    there = moved(surrogate, Place.of(file), batch, config.seed)
    print_domain_change(surrogate, there, console, "nothing is fitted")
    write_model(there, config, place)
    references = fit_references(batch, None, file.description)
    references.save(place.path / REFERENCES_FILE)
    told = {"strength": "none", "trajectories": len(batch), "frames": batch.u.shape[1], "adapted_numbers": 0,
            "seconds": time.perf_counter() - began}
    write_json(place.path / "adaptation.json", told)
    if config.data.test is not None:
        report_evaluation(there, Path(config.data.test), observed(config, there), place.path, console, references)
    write_configuration(config, place)
    console.print(f"the moved run is in {place.path}", highlight=False)


def check(config: AdaptConfig) -> None:
    """Check settings beyond the limits of single values. Raises UserError."""
    data, settings = config.data, config.adapt
    if data.test is not None and not any(path.exists() for path in expanded(data.test)):
        raise UserError(f"data.test={data.test} does not exist; give a file, or leave it out")
    if settings.strength not in STRENGTHS:
        raise UserError(f"adapt.strength={settings.strength!r}; choose from {', '.join(STRENGTHS)}")
    choose_device(config.device)


def open_source(surrogate: Surrogate, file: TrajectoryFile, config: AdaptConfig) -> TrajectorySource:
    """Observed part of the file of the new system. Raises UserError if it does not fit the surrogate."""
    require_channels(surrogate, file, "a file of the same kind of system")
    return TrajectorySource(file, config.data.frames, config.data.points, config.data.same_points, config.seed)


def observed(config: AdaptConfig, surrogate: Surrogate) -> Observe:
    """Observations given to forecasts of test trajectories, by default the frames that the surrogate needs; the same
    for all models that are compared with it."""
    seen = config.observe
    return Observe(seen.frames or surrogate.window, seen.points, seen.noise, seen.context)


def tell(
    surrogate: Surrogate, adaptation: Adaptation, steps: list[Step], strength: str, seen: tuple[int, int],
    console: Console,
) -> dict[str, Any]:
    """Report of an adaptation, which is also printed. `seen`: numbers of trajectories and frames."""
    estimate, contexts = adaptation.estimate, surrogate.contexts
    trajectories, frames = seen
    told: dict[str, Any] = {
        "strength": strength,
        "trajectories": trajectories,
        "frames": frames,
        "adapted_numbers": adaptation.numbers,
        "seconds": adaptation.seconds,
    }
    console.print(
        f"adapted {adaptation.numbers} number{'s' * (adaptation.numbers != 1)} to {trajectories} "
        f"trajector{'ies' if trajectories != 1 else 'y'} of {frames} frames in {adaptation.seconds:.3f} s",
        highlight=False,
    )
    if steps:
        told["steps"] = [{key: one if one != math.inf else None for key, one in vars(step).items()} for step in steps]
    for step in steps:
        kept = "refitted" if step.pull is not None else "unchanged"
        console.print(
            f"{step.part}: {kept} (error of held-out frames {step.before:.2e} before, {step.after:.2e} after)",
            highlight=False,
        )
    if estimate is None or contexts is None:
        return told
    told |= {
        "context": estimate.mean.tolist(),
        "context_covariance": estimate.covariance.tolist(),
        "outside_training": surrogate.warn_context(estimate.mean, estimate.covariance, estimate.misfit),
        "nearest_environment": contexts.nearest(estimate.mean),
    }
    if contexts.map is not None:
        mean, covariance = contexts.map.parameters(estimate.mean, estimate.covariance)
        spread = covariance.diagonal().clamp(min=0).sqrt()
        told["parameters"] = {
            name: {"mean": float(m), "std": float(s)} for name, m, s in zip(contexts.names, mean, spread, strict=True)
        }
        few = float(contexts.map.error.trace()) > _MOSTLY * float(estimate.covariance.trace())
        why = f", mostly since only {len(contexts.values)} training systems show its effect" if few else ""
        for name, m, s in zip(contexts.names, mean.tolist(), spread.tolist(), strict=True):
            console.print(f"{name} = {m:.6g} (standard deviation {s:.2g}{why})", highlight=False, soft_wrap=True)
    return told


def compare(
    surrogate: Surrogate, adaptation: Adaptation, scratch: Surrogate | None, config: AdaptConfig, console: Console
) -> dict[str, dict[str, float | None]]:
    """MSE of forecasts of the test file: with the mean training context (before), with the nearest environment's,
    adapted, and of a model trained from `scratch` on the same frames."""
    assert config.data.test is not None
    seen = observed(config, surrogate)

    def errors(model: Surrogate, context: ContextPrior | None) -> dict[str, float | None]:
        with TrajectoryFile(config.data.test, check=False) as file:  # type: ignore[arg-type]
            return evaluate(model, file, seen, with_std=False, context=context).report["mse"]

    rows = {"mean context (before)": errors(surrogate, mean_context(surrogate) if surrogate.context_size else None)}
    if adaptation.estimate is not None:
        rows["nearest training environment"] = errors(surrogate, nearest_environment(surrogate, adaptation.estimate)[1])
    rows["adapted"] = errors(adaptation.surrogate, None)
    if scratch is not None:
        scratch.horizon = surrogate.horizon  # the same in-t and out-t for all
        try:
            rows["from scratch, the same frames"] = errors(scratch, None)
        except UserError as reason:  # frames of few places may outline another domain
            console.print(f"the model trained from scratch makes no forecasts: {first_line(reason)}",
                          highlight=False)
    table = Table(title="MSE of forecasts of the test file")
    for title in ("", "in-t", "out-t"):
        table.add_column(title, justify="right" if title else "left")
    for name, row in rows.items():
        table.add_row(name, *("-" if row.get(k) is None else f"{row[k]:.2e}" for k in ("in_t", "out_t")))
    console.print(table)
    return rows


def configuration_of(config: AdaptConfig) -> Config:
    """Configuration of the run that is adapted."""
    run = RunDirectory(Path(str(config.run)))
    return run.config() if run.begun else Config()


def write_model(surrogate: Surrogate, config: AdaptConfig, place: RunDirectory) -> None:
    """Save the adapted model, and the reference forecasts of the original run."""
    surrogate.training["test"] = os.path.abspath(config.data.test) if config.data.test else None
    surrogate.save(place.path, card=False)
    trained = RunDirectory(Path(str(config.run)))
    copy_references(trained.references_file(surrogate.description.name), place.path / REFERENCES_FILE)


def write_configuration(config: AdaptConfig, place: RunDirectory) -> None:
    """Write the configuration of the original run with the new data. This comes last: it makes the folder a run for
    every other command, and `adapt` no longer starts there."""
    trained, data = configuration_of(config), config.data
    trained.data.train = os.path.abspath(str(data.train))
    trained.data.test = os.path.abspath(data.test) if data.test else None
    trained.data.frames, trained.data.points, trained.data.same_points = data.frames, data.points, data.same_points
    place.write_config(config, ADAPT_FILE)
    place.write_config(trained)
