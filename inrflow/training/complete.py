"""The ending of every run: the chosen candidate refitted to all trajectories, with its prior and calibrated spread."""

from __future__ import annotations

import numpy as np
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.dynamics.states import CodeData
from inrflow.evaluation.calibration import affordable, calibrate
from inrflow.model.state_prior import StatePrior, state_prior
from inrflow.model.surrogate import Surrogate
from inrflow.numerics.effort import effort
from inrflow.training.candidate import Candidate, Refitted
from inrflow.training.recorder import Budget, Recorder

_SHARE, _LEAST = 0.15, 1.0  # of the time for calibration, and seconds at least
_BRIEF = 0.8  # of the frames, fitted where those after them tell how errors grow beyond
_OTHERS, _MOST = 0.2, 32  # of the time for calibration, for forecasts of further trajectories, and how many at most
_FEW = 1e-3  # unknowns a code, up to which training trajectories are as good as held-out ones
_OF_FIRST = 0.7  # of these, which the first of three kinds of windows may take for the others to follow


def complete(candidate: Candidate, budget: Budget, log: Recorder) -> Surrogate:
    """The surrogate of a candidate: refit, priors, calibration. What the time does not allow is left out.

    The spread is that of forecasts by the candidate itself, to which the held-out trajectories are new; the field that
    is kept is the refitted one.
    """
    refitted: Refitted | None = None
    if candidate.refit is not None:
        with budget.part():
            refitted = candidate.refit()
    states = candidate.states if refitted is None or refitted.states is None else refitted.states
    surrogate = assemble(candidate, states)
    problem, prior, size = candidate.problem, surrogate.prior, candidate.code_size
    prior.farthest = max(prior.reach(data, size) for data in (states, candidate.validation))
    prior.tail = candidate.decoder.tail(states.codes[states.observed][:, :size]).amax(0)
    judging = candidate.judged[: candidate.calibrated]
    past = candidate.first + 1 if len(problem.validation) else problem.fewest_observed
    past = max(past, surrogate.window)
    batch, contexts = problem.held_out(past, candidate.calibrated), candidate.known_contexts(judging)
    if contexts is not None and not len(problem.validation):  # which are known of whole trajectories, not of windows
        batch, past = problem.source.batch(judging, normalised=False), candidate.first + 1
    seconds = _SHARE * budget.total + _LEAST
    flown = budget.decide("flight", lambda: _milliseconds(surrogate)) / 1e3
    batch, contexts, points = affordable(batch, past, surrogate, seconds, contexts, flown)
    began = budget.elapsed

    def further() -> bool:
        return bool(budget.decide("calibration", lambda: int(budget.elapsed - began < _OF_FIRST * seconds)))

    others = _others(candidate, batch, _OTHERS * seconds / flown if flown else np.inf) if contexts is None else None
    frames, fewer = batch.u.shape[1], max(past + 1, int(_BRIEF * batch.u.shape[1]))
    if candidate.briefly is None or frames < candidate.states.codes.shape[1]:
        fewer = frames
    elif fewer < frames:  # what many numbers miss of later times shows in these
        surrogate.field = candidate.briefly(fewer).double().eval()
    stretch = (frames - past) / (fewer - past) if fewer < frames else 1.0
    surrogate.prior = calibrate(surrogate, batch, past, contexts, points, candidate.ahead, further, others, stretch)
    surrogate.field = candidate.field
    log.log("calibration", 0, **{f"spread_{i}": float(v) for i, v in enumerate(surrogate.prior.spread[0])})
    if refitted is not None:
        surrogate.field = refitted.field.double().eval()
        surrogate.contexts = refitted.contexts
    if candidate.refit_decoder is not None:
        with budget.part():
            surrogate = candidate.refit_decoder(surrogate)
    return surrogate


def _others(candidate: Candidate, batch: TrajectoryBatch, intervals: float) -> TrajectoryBatch | None:
    """Trajectories beside those of a batch, cut as they are, in so many intervals: held-out ones, and those of training
    where so few numbers were fitted to them that they might have been held out; None without any."""
    problem, names = candidate.problem, candidate.judged[: candidate.calibrated]
    if not len(problem.validation) or problem.noise is not None:
        return None
    kept = names[np.linspace(0, len(names) - 1, len(batch.u)).round().astype(int)]
    few = candidate.score.unknowns < _FEW * candidate.states.codes.numel()
    rows = np.concatenate([np.setdiff1d(problem.validation, kept), problem.train if few else problem.train[:0]])
    rows = rows[: int(min(_MOST, intervals // batch.u.shape[1]))]
    return problem.source.batch(rows, normalised=False).first_frames(batch.u.shape[1]) if len(rows) else None


def _milliseconds(surrogate: Surrogate) -> int:
    """Effort of the flow of one state over one interval: of laws, whose steps may be short."""
    if surrogate.integrator.method != "etd":
        return 0
    began, times = effort(), torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    surrogate.dynamics.flow(surrogate.prior.mean[None], times, check=False)
    return round(1e3 * (effort() - began))


def assemble(candidate: Candidate, states: CodeData | None = None) -> Surrogate:
    """The surrogate of a candidate as it was fitted, not calibrated. `states` give the prior, by default its own."""
    problem, size, contexts = candidate.problem, candidate.code_size, candidate.context_size
    states = candidate.states if states is None else states
    mean, covariance = state_prior(states, candidate.code_prior, size, contexts)
    noise = candidate.code_prior.noise.double()
    prior = StatePrior(
        mean, covariance, noise if problem.noise is None else noise + problem.noise, candidate.process,
        torch.ones(len(problem.description.channels), dtype=torch.float64), candidate.interpolation_error,
        white=candidate.white,
    )
    memory = states.codes.shape[-1] - size - contexts
    return problem.surrogate(
        candidate.decoder, candidate.field, candidate.integrator, prior, candidate.name, memory, candidate.encoder,
        **candidate.metadata,
    )
