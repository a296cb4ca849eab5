"""Training of network vector fields by descent on rollouts through the integrator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.base import build_term
from inrflow.dynamics.fields.forcing import ForcingTerm
from inrflow.dynamics.fields.network import NetworkTerm
from inrflow.dynamics.fields.quadratic import Products
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.states import CodeData, with_memory
from inrflow.encoding.posterior import GaussianPrior
from inrflow.encoding.prior.interpolation_error import InterpolationError
from inrflow.runtime.devices import device_of
from inrflow.training.candidate import Candidate, Score
from inrflow.training.judge import rollout_error
from inrflow.training.loop import OptimiserSettings, Stage, run_stage
from inrflow.training.margins import ROUNDING
from inrflow.training.run import Run

_SHARE, _DATA_SHARE = 0.45, 0.1  # of the time
_RACE = 0.15  # share of the steps in which several starts compete
_GROWING = 1 / 3  # share of the steps over which rollouts grow to their full length


class RolloutTraining:
    """Losses of rollouts on states (S, T, n); float32."""

    def __init__(self, states: CodeData, integrator: Integrator, batch: int, longest: int | None = None) -> None:
        self.codes, self.t, self.observed = states.codes.float(), states.t, states.observed
        self.integrator, self.batch = integrator, batch
        frames = states.codes.shape[1]
        self.longest = min(frames - 1, longest or frames - 1)
        seen = self.codes[self.observed]
        self.variance = (seen - seen.mean(0)).square().sum(1).mean()
        self.starts = self.observed.nonzero()

    def loss(self, module: nn.Module, step: int, steps: int, random: np.random.Generator) -> Tensor:
        """Mean squared error of a batch of rollouts from random frames, share of the variance."""
        length = 1 + round((self.longest - 1) * min(1.0, step / max(1.0, _GROWING * steps)))
        frames = self.codes.shape[1]
        usable = self.starts[self.starts[:, 1] + length < frames]
        if not len(usable):
            usable = self.starts[self.starts[:, 1] + 1 < frames]
        chosen = usable[torch.as_tensor(random.integers(0, len(usable), self.batch))]
        index = (chosen[:, 1:] + torch.arange(length + 1)).clamp(max=frames - 1)
        rows = chosen[:, :1]
        times, seen = self.t[rows, index], self.observed[rows, index]
        target = self.codes[rows, index]
        target, times, seen = (values.to(device_of(module)) for values in (target, times, seen))
        predicted = self.integrator(module, target[:, 0], times, check=False)[:, 1:]
        keep = seen[:, 1:] & torch.isfinite(times[:, 1:])
        error = torch.where(keep[..., None], predicted - target[:, 1:], 0.0)
        return error.square().sum() / keep.sum().clamp(min=1) / self.variance


class DataSpaceTraining:
    """Losses of rollouts decoded at observed points of the training trajectories, normalised units."""

    def __init__(
        self,
        source: TrajectorySource,
        trajectories: np.ndarray,
        states: CodeData,
        decoder: Decoder,
        integrator: Integrator,
        batch: int = 16,
        points: int = 256,
    ) -> None:
        self.source, self.trajectories, self.states = source, trajectories, states
        self.decoder, self.integrator, self.batch, self.points = decoder, integrator, batch, points

    def loss(self, module: nn.Module, step: int, steps: int, random: np.random.Generator) -> Tensor:
        """Mean squared error at random observed points along whole rollouts."""
        which = random.integers(0, len(self.trajectories), min(self.batch, len(self.trajectories)))
        batch = self.source.batch(self.trajectories[which])
        rows = torch.as_tensor(which)
        first = int(self.states.observed[rows].float().argmax(1).max())
        home = device_of(module)
        start, times = self.states.codes[rows, first].float().to(home), self.states.t[rows, first:].to(home)
        predicted = self.integrator(module, start, times, check=False)
        pick = torch.as_tensor(random.permutation(batch.u.shape[2])[: self.points])
        u = batch.u[:, first:, pick].to(home)
        x = batch.x if batch.x.shape[1] == 1 else batch.x[:, first:]
        with torch.no_grad():
            offset, basis = self.decoder.basis(x[:, :, pick].float().to(home))
        codes = predicted[..., : self.decoder.code_size]
        decoded = offset + torch.einsum("stncz,stz->stnc", basis.expand(len(u), u.shape[1], *basis.shape[2:]), codes)
        begun = self.states.observed[rows, first].to(home)  # a start that nobody saw is no start
        keep = torch.isfinite(u) & torch.isfinite(decoded) & begun[:, None, None, None]
        return torch.where(keep, decoded - torch.nan_to_num(u), 0.0).square().sum() / keep.sum().clamp(min=1)


def with_network(
    field: VectorField, width: int, depth: int, keep: bool, seed: int
) -> VectorField:
    """A float32 copy of a field with a network added that starts at zero.

    Args:
        keep: start from the field's values; without it the affine term and the forcing start at zero, and quadratic
            terms, which descent would not improve, are left out; with it they are frozen.
    """
    torch.manual_seed(seed)
    forcing = field.get(ForcingTerm)
    period, harmonics = (0.0, 2) if forcing is None else (forcing.period, forcing.harmonics)
    network = NetworkTerm(field.state_size, width, depth, field.context_size, period, harmonics)
    terms = [build_term(one) for one in field.structure()["terms"]]
    affine = [term for term in terms if term.degree in (0, 1)]
    others = [term for term in terms if term.degree not in (0, 1) and (keep or term.degree != 2)]
    result = VectorField(field.state_size, [*affine, network, *others], field.context_size)
    if keep:
        result.load_state_dict(field.state_dict(), strict=False)
    for term in others:
        term.requires_grad_(term.degree != 2)
    return result


def network_candidate(
    run: Run, recipe: str, decoder: Decoder, prior: GaussianPrior, train: CodeData, validation: CodeData | None,
    interpolation_error: InterpolationError | None = None, field: VectorField | None = None,
) -> Candidate:
    """A candidate whose vector field is trained by descent alone, no closed form before it.

    Args:
        train: codes of training trajectories, originals first, and of copies; validation: of held-out ones.
        field: what is trained; by default a network of the configured depth and width.
    """
    problem, settings, size = run.problem, run.config.dynamics, decoder.code_size
    fitted, judged, first = problem.judging(train, validation)
    states, judged_states = with_memory(fitted, size, None), with_memory(judged, size, None)
    integrator = problem.integrator()
    floor = float(prior.noise.mean())

    def error(one: VectorField) -> float:
        return rollout_error(one, integrator, judged_states, judged, first, size)

    if field is None:
        torch.manual_seed(run.config.seed)
        field = VectorField.of(
            size, linear=False, width=settings.width, depth=max(1, settings.depth),
            forcing_period=problem.forcing_period, forcing_harmonics=settings.forcing_harmonics,
        )
    trained = train_field(run, [field], states, integrator, error, decoder)
    score = network_score(trained, error, floor)
    run.log.say(f"network field: validation error {score.error:.2e} of the variance")
    return Candidate(
        problem, recipe, "trained network", decoder, prior, trained, integrator, states, judged_states, first, score,
        interpolation_error=interpolation_error,
    )


def with_residual(run: Run, candidate: Candidate, error: Callable[[VectorField], float]) -> Candidate | None:
    """A closed-form candidate with a trained network beside its field; None where it leaves nothing to train.

    `error` gives the validation error of other fields.
    """
    settings, field, score = run.config.dynamics, candidate.field, candidate.score
    if not settings.depth or (run.budget.over and run.budget.known("rollout") is None):
        return None
    if score.error < max(score.floor, ROUNDING) or run.budget.known("rollout") == 0:
        run.budget.record("rollout", 0)
        run.log.say("closed-form dynamics leave nothing to train")
        return None
    starts = {"auto": (True, False), "least_squares": (True,), "zero": (False,)}
    wanted = starts[settings.start]
    if field.get(Products) is not None and True in wanted:  # quadratic dynamics are not met by a network from zero
        wanted = (True,)
    fields = [with_network(field, settings.width, settings.depth, keep, run.config.seed) for keep in wanted]
    trained = train_field(run, fields, candidate.states, candidate.integrator, error, candidate.decoder)
    return replace(
        candidate, name=candidate.name.replace("closed form", "closed form and trained residual"), field=trained,
        refit=None, refit_decoder=None, row=None, score=network_score(trained, error, score.floor),
    )


def network_score(field: VectorField, error: Callable[[VectorField], float], floor: float) -> Score:
    """The score of a field with a network."""
    return Score(error(field), floor, sum(p.numel() for p in field.parameters()))


def train_field(
    run: Run, fields: list[VectorField], states: CodeData, integrator: Integrator, error: Callable[..., float],
    decoder: Decoder,
) -> VectorField:
    """The best of some fields, trained on rollouts of training states, then in the data where codes are uncertain.

    Several fields compete over the first steps. Ends in the state of least validation error, float64.
    """
    config = run.config.training
    rollouts = RolloutTraining(states, integrator, config.batch)
    optimiser = OptimiserSettings(config.optimiser, config.rollout_rate, config.weight_decay)

    def stage(name: str, title: str, field: VectorField) -> Stage:
        return Stage(name, field.to(run.problem.device), rollouts.loss, error, optimiser=optimiser,
                     seed=run.config.seed, patience=0.4, title=title)

    main = stage("rollout", "network field", fields[0])
    steps = run.budget.steps("rollout", main, _SHARE, 20_000)
    first = int(_RACE * steps)
    if len(fields) > 1:
        starts = [("race_least_squares", "from closed form"), ("race_zero", "from zero")]
        races = [stage(name, f"network field {title}", one) for (name, title), one in zip(starts, fields, strict=True)]
        errors = [run_stage(race, max(20, first), run.log) for race in races]
        best = int(np.argmin(errors))
        run.log.say(f"network field: started {starts[best][1]} (validation error {errors[best]:.2e} against "
                    f"{errors[1 - best]:.2e})")
        main = replace(main, module=races[best].module)
    error_after = run_stage(main, max(20, steps - first * len(fields)), run.log)
    field = main.module
    assert isinstance(field, VectorField)
    if decoder.affine and not _codes_determined(run, decoder):
        original = run.problem.originals(states)
        data = DataSpaceTraining(run.problem.source, run.problem.train, original, decoder, integrator)
        last = Stage(
            "data", field, data.loss, error, optimiser=replace(optimiser, rate=optimiser.rate / 5),
            seed=run.config.seed, title="network field in the data",
        )
        steps = run.budget.steps("data", last, _DATA_SHARE, 5000)
        error_after = run_stage(last, steps, run.log)
    run.log.log("rollout_final", steps, validation=error_after)
    return field.cpu().double()


def _codes_determined(run: Run, decoder: Decoder) -> bool:
    """Whether frames have values enough that codes stand for the data."""
    source = run.problem.source
    values = source.batch(run.problem.train[:1]).u
    observed = float(torch.isfinite(values).flatten(2).sum(-1).float().mean())
    return observed >= 2 * decoder.code_size or source.time_bins is not None
