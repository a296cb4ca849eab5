"""Refit of modes, codes and linear dynamics to all trajectories, including those of validation.

A few training trajectories span few directions of the space of fields: their modes cannot represent features that only
the validation ones have. Variances and noise remain those of held-out frames, since no others are left to estimate
them."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from inrflow.decoders.base import AffineDecoder
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.decoders.rbf_features import RadialFeatures
from inrflow.dynamics.states import memory_directions, with_memory
from inrflow.encoding.prior.modes import OutputModes
from inrflow.model.state_prior import state_prior
from inrflow.model.surrogate import Surrogate
from inrflow.training.judge import rollout_error
from inrflow.training.margins import REFIT_FAILED, ROUNDING
from inrflow.training.parts.codes import TrainingCodes
from inrflow.training.parts.decoder import decoder_training, fit_modes
from inrflow.training.parts.linear import ChosenDynamics
from inrflow.training.run import Run

_LIMITED = 0.5  # codes a transition, from which transitions limit the number of codes


def refit_to_all(
    run: Run, surrogate: Surrogate, fitted: OutputModes, chosen: ChosenDynamics, first: int, before: float
) -> Surrogate:
    """The surrogate of linear dynamics refitted, with its modes, to all trajectories; unchanged if the refit fails.

    Args:
        fitted: all modes of the training trajectories, before their number was chosen.
        before: error of rollouts of all trajectories from frame `first`, relative to the variance.
    """
    size, few, run = surrogate.code_size, len(run.problem.train), run.on(run.problem.validated_in_time())
    every = len(run.problem.train)
    decoder = copy.deepcopy(surrogate.decoder).double()
    assert isinstance(decoder, AffineDecoder)
    modes = _modes(run, decoder)
    wanted = len(modes.variances)
    if size < len(fitted.variances):  # if transitions limit the number of codes, more of them allow more
        limited = chosen.size > _LIMITED * chosen.train.transitions
        wanted = min(wanted, round(size * every / few) if limited else size)
    shared = min(len(modes.variances), len(fitted.variances))
    modes.variances[:shared] = torch.maximum(modes.variances[:shared], fitted.variances[:shared])
    modes = replace(modes, noise=torch.maximum(modes.noise, fitted.noise)).truncated(wanted)
    decoder.set_output(modes.mean, modes.modes)
    decoder, prior = decoder.float(), modes.prior()
    codes = TrainingCodes(run, decoder, prior).with_copies(run.budget.decisions.get("copies") or 1)
    memory = round(chosen.memory / chosen.size * wanted)
    states = with_memory(codes, wanted, memory_directions(codes, wanted, memory) if memory else None)
    candidate = replace(chosen.fit.candidate, size=wanted, memory=memory)
    field = chosen.search.fit(candidate, data=codes, like=chosen.fit).field
    after = rollout_error(field, surrogate.integrator, states.first(every), codes.first(every), first, wanted)
    kept = not after < max(REFIT_FAILED * before, 1e-3 * ROUNDING)  # rounding errors differ by more
    run.log.log("refit", 0, before=before, after=after, code_size=size if kept else wanted)
    if kept:
        return surrogate
    mean, covariance = state_prior(states, prior, wanted)
    process = process_of_blocks(surrogate.prior.process, size, len(mean), wanted)
    state = replace(surrogate.prior, mean=mean, covariance=covariance, noise=prior.noise, process=process)
    state.farthest = max(state.farthest or 0.0, state.reach(codes, wanted))
    return replace(surrogate, decoder=decoder.eval(), field=field.double().eval(), prior=state,
                   training={**surrogate.training, "memory": memory})


def _modes(run: Run, decoder: AffineDecoder) -> OutputModes:
    """Modes of all trajectories; radial functions of the decoder are replaced by those of all trajectories."""
    frames = decoder_training(run)
    radial = getattr(decoder, "embedding", None)
    if isinstance(decoder, HarmonicDecoder) and isinstance(radial, RadialFeatures):
        anew = frames.patterns(radial.inner, run.config.decoder.largest_code_size)
        decoder.embedding = anew[0] if anew is not None else radial
    return fit_modes(run, frames, decoder)


def process_of_blocks(process: Tensor, size: int, states: int, wanted: int) -> Tensor:
    """Process noise of `states` dimensions in blocks of `wanted` (codes, their rates, ...), from blocks of `size`;
    further dimensions of a block, and further blocks, repeat the last known one."""
    blocks = torch.nn.functional.pad(process[None], (0, -len(process) % size), "replicate").reshape(-1, size)
    index = torch.arange(states)
    return blocks[(index // wanted).clamp(max=len(blocks) - 1), (index % wanted).clamp(max=size - 1)]
