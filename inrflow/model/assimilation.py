"""Assimilation: posterior states of trajectories given observations in a window of time.

An extended Kalman filter and Rauch-Tung-Striebel smoother, one Gauss-Newton step on the weakly constrained window
problem: each frame is encoded by the same regularised solve as in training, with the forecast from earlier frames as
its prior. Delayed codes and contexts, which are not observed, follow from their covariance with the codes; the flow is
linearised at a nominal context.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import BasisAt, Decoder
from inrflow.dynamics.flow import Dynamics
from inrflow.encoding.delayed_values import AffineMotion
from inrflow.encoding.encode import Encoder, encode_with_covariance
from inrflow.encoding.evidence import NoiseEvidence
from inrflow.encoding.gauss_newton import gauss_newton
from inrflow.encoding.posterior import GaussianPrior, condition, condition_each, given, squared_innovation
from inrflow.encoding.prior.truncation import noise_of
from inrflow.model.ensemble import assimilate_ensemble
from inrflow.model.state_prior import ContextPrior, StateEstimate, StatePrior, lift, with_context
from inrflow.model.variational import near_closest_trajectories, without_gross_errors

_STEADY = 1e-8  # of the largest variance: tolerance of converged covariances; least noise for this
_HIDDEN = 3  # further passes where parts of the state are hidden
_UNLIKE = 2.0  # variance of added noise, normalised, from which on the field is unlike the training data
_SURPRISING, _QUIET = 4.0, 0.5  # variance factors above which noise is estimated, and below which it is lower


def assimilate(
    decoder: Decoder,
    dynamics: Dynamics,
    prior: StatePrior,
    window: TrajectoryBatch,
    covariance: bool = True,
    smooth: bool = True,
    encoder: Encoder | None = None,
    context: ContextPrior | None = None,
    around: Tensor | None = None,
    earlier: StateEstimate | None = None,
) -> StateEstimate:
    """States of a window of frames (S, K); `window.t` in internal units, values normalised.

    The mean of frames without any observation is the forecast from those before. `context`: in place of the one in
    `prior`. `around`: states (S, K, n) at which the motion between delayed values and the times of their frames is
    linearised, and the flow where states have memory; by default the forecasts, and for first frames their encoding.
    `earlier`: an estimate to be continued; its last frame is the first of the window, whose values are not used again.
    """
    size, contexts, basis = decoder.code_size, dynamics.field.context_size, BasisAt(decoder)
    frames = window.u.shape[1]
    first = window.first_frames(1)
    known_codes = dynamics.field.known_codes(window.t[:, 0].nan_to_num())
    track = covariance or frames > 1 or known_codes is not None
    context = (context or prior.context(contexts)) if contexts else None
    nominal, motion = None, None
    if earlier is None:
        before = prior.mean.expand(len(window.u), -1) if around is None else around[:, 0]
        for _ in range(2 if around is None and window.delay is not None and not dynamics.field.is_linear else 1):
            motion = _motion(dynamics, window, before, size)
            code, spread = encode_with_covariance(decoder, first, prior.codes(size), track, encoder, motion)
            mean, cov = lift(code[:, 0], spread[:, 0] if spread is not None else None, prior, size, contexts)
            if context is not None:
                mean, cov = with_context(mean, cov, context)
            if known_codes is not None and cov is not None:
                mean, cov = given(mean, cov, known_codes)
            before = mean
    else:
        assert earlier.covariance is not None
        mean, cov = earlier.mean[:, -1], earlier.covariance[-1]
    if context is not None and around is None:
        nominal = (context.mean if context.nominal is None else context.nominal).expand(len(mean), contexts)
    means = [mean]
    covariances: list[Tensor | None] = [cov]
    known = decoder.affine and (encoder is None or encoder.method == "solve")
    quadratic, count = torch.zeros(2, len(mean), dtype=torch.float64)
    if earlier is not None:
        quadratic, count = earlier.quadratic, earlier.count
    elif known:
        usual = prior.mean.expand_as(mean), prior.covariance[None]
        if known_codes is not None:  # which are no evidence
            usual = given(*usual, known_codes)
        quadratic, count = _innovation(basis, first, usual[0], mean, usual[1], prior.noise, motion)
    forecasts: list[tuple[Tensor, Tensor]] = []  # from the second frame on; likewise flows
    flows: list[Tensor] = []
    gains: list[Tensor] = []
    settled = False
    for k in range(1, frames):
        begin, end = window.t[:, k - 1], window.t[:, k]
        gone = torch.isnan(end)
        begin, end = begin.nan_to_num(), torch.where(gone, begin.nan_to_num(), end)
        start = means[-1] if nominal is None else torch.cat([means[-1][:, :-contexts], nominal], 1)
        away = None
        if around is not None and (start.shape[1] > size or window.delay is None):
            start, away = around[:, k - 1], start - around[:, k - 1]
        forecast = dynamics.flow(start, torch.stack([begin, end], 1), check=False)[:, 1]
        lost = ~torch.isfinite(forecast).all(1)  # few observations may give states far from all training
        if bool(lost.any()):
            states = forecast.shape[1] - contexts
            mean = torch.cat([prior.mean[:states].to(start).expand(len(start), -1), start[:, states:]], 1)
            forecast = torch.where(lost[:, None], mean, forecast)
        latest = covariances[-1]
        assert latest is not None
        steady = settled and _as_before(window, k)
        if steady:  # covariances, flow and gain are converged
            expected, flow = forecasts[-1][1], flows[-1]
        else:
            uncertain = context is None or not context.known
            expected, flow = dynamics.propagate(latest, start, forecast, begin, end, uncertain)
        if bool(lost.any()):
            expected, flow = _forgotten(expected, flow, latest, prior, lost, contexts)
        if nominal is not None:
            forecast = forecast + (flow[:, :, -contexts:] @ (means[-1][:, -contexts:] - nominal)[..., None])[..., 0]
        if away is not None:
            forecast = forecast + (flow @ away[..., None])[..., 0]
        frame = window.frames(slice(k, k + 1))
        if not dynamics.field.is_linear:  # else the motion is the same for all codes and times
            motion = _motion(dynamics, window, forecast if around is None else around[:, k], size)
        if steady:
            mean, cov = _steady_update(basis, frame, forecast, latest, prior), latest
        else:
            mean, cov = _update(basis, frame, forecast, expected, prior, motion)
        settled = (dynamics.field.is_linear and decoder.affine and len(cov) == len(latest) == 1 and _alike(cov, latest)
                   and float(prior.noise.min()) > _STEADY * float(cov.diagonal(dim1=1, dim2=2).max()))
        if known:
            further = _innovation(basis, frame, forecast, mean, expected, prior.noise, motion)
            quadratic, count = quadratic + further[0], count + further[1]
        means.append(mean)
        covariances.append(cov)
        forecasts.append((forecast, expected))
        flows.append(flow)
    if smooth and frames > 1:
        gained: tuple[Tensor, Tensor, Tensor, Tensor | None] | None = None
        for k in range(frames - 2, -1, -1):
            forecast, expected = forecasts[k]
            cov, later, flow = covariances[k], covariances[k + 1], flows[k]
            assert cov is not None and later is not None
            if gained is None or gained[0] is not cov or gained[1] is not expected:
                scale = 1e-12 * expected.diagonal(dim1=1, dim2=2).amax(1)[:, None, None]
                gain = torch.linalg.solve(expected + scale * torch.eye(expected.shape[-1]), flow @ cov).transpose(1, 2)
                gained = cov, expected, gain, None
            gains.append(gained[2])
            step = means[k + 1] - forecast
            means[k] = means[k] + (gained[2] @ step[..., None])[..., 0]
            if gained[3] is None or not _alike(later, gained[3]):
                covariances[k] = cov + gained[2] @ (later - expected) @ gained[2].transpose(1, 2)
                gained = (*gained[:3], later)
            else:
                covariances[k] = later
    quieter = quadratic < _QUIET * count
    if dynamics.integrator.method == "etd":  # errors of a law do not shrink with residuals of smooth first frames
        quadratic = torch.maximum(quadratic, count)
    kept = [c for c in covariances if c is not None] if covariance else None
    found = StateEstimate(window.t, torch.stack(means, 1), kept, quadratic, count, gains=gains[::-1] if kept else None,
                          quieter=quieter)
    return found if earlier is None else earlier.joined(found)


def continued(
    decoder: Decoder, dynamics: Dynamics, prior: StatePrior, window: TrajectoryBatch, encoder: Encoder,
    estimate: StateEstimate,
) -> StateEstimate | None:
    """An estimate continued with the frames of a later window, as in `assimilate`: the Kalman filter from its last
    state on, and the smoother back from there.

    None where the result would differ from an assimilation of all observations: for values with times of their own,
    contexts, ensembles, and observations that call for more noise.
    """
    if estimate.gains is None or dynamics.field.context_size or window.delay is not None:
        return None
    x = window.x if window.x.shape[1] == 1 else torch.cat([window.x[:, :1], window.x], 1)
    u = torch.cat([torch.full_like(window.u[:, :1], torch.nan), window.u], 1)
    whole = TrajectoryBatch(torch.cat([estimate.last[:, None], window.t], 1), x, u)
    found = assimilate(decoder, dynamics, prior, whole, encoder=encoder, earlier=estimate)
    return found if bool((found.factor <= _SURPRISING).all()) else None


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two covariances (1, n, n) agree to rounding."""
    if one is other:
        return True
    size = float(one.detach().diagonal(dim1=1, dim2=2).amax())
    return one.shape == other.shape and float((one - other).detach().abs().max()) <= _STEADY * size


def _as_before(window: TrajectoryBatch, k: int) -> bool:
    """Whether frame k has the time step and the observed values of the frame before, for all trajectories."""
    if k < 2:
        return False
    gaps = torch.diff(window.t[:, k - 2 : k + 1], dim=1)
    seen = torch.isfinite(window.u[:, k - 1 : k + 1])
    regular = torch.isfinite(gaps).all() and (gaps - gaps[0, 0]).abs().max() <= 1e-6 * gaps[0, 0].abs()
    return bool(regular) and len(window.x) == window.x.shape[1] == 1 and bool((seen == seen[:1, :1]).all())


def _steady_update(basis_at: BasisAt, frame: TrajectoryBatch, mean: Tensor, cov: Tensor, prior: StatePrior) -> Tensor:
    """Forecasts (S, n) conditioned on one frame, with the converged posterior covariance (1, n, n)."""
    offset, basis = _with_memory(*basis_at(frame.x[0, 0]), mean.shape[1] - basis_at.decoder.code_size)
    missed = frame.u[:, 0].double() - offset - torch.einsum("ncz,sz->snc", basis, mean)
    noise = noise_of(prior.noise, prior.truncation, frame.x[0, 0], torch.isfinite(frame.u[0, 0]))
    return mean + torch.einsum("ncz,snc->sz", basis, (missed / noise).nan_to_num(0.0)) @ cov[0]


def _forgotten(
    expected: Tensor, flow: Tensor, before: Tensor, prior: StatePrior, lost: Tensor, contexts: int
) -> tuple[Tensor, Tensor]:
    """Covariances and flows (S, n, n), for `lost` trajectories (S,) reset to the prior except for contexts."""
    rows, size = len(lost), expected.shape[-1]
    states = size - contexts
    anew = torch.zeros(rows, size, size, dtype=expected.dtype)
    anew[:, :states, :states] = prior.covariance[:states, :states]
    anew[:, states:, states:] = before[:, states:, states:]
    still = torch.zeros(size, size, dtype=flow.dtype)
    still[states:, states:] = torch.eye(contexts, dtype=flow.dtype)
    where = lost[:, None, None]
    return torch.where(where, anew, expected.expand(rows, -1, -1)), torch.where(where, still, flow.expand(rows, -1, -1))


def assimilate_noisy(
    decoder: Decoder, dynamics: Dynamics, prior: StatePrior, window: TrajectoryBatch, covariance: bool = True,
    encoder: Encoder | None = None, context: ContextPrior | None = None, screened: bool = False,
) -> StateEstimate:
    """`assimilate`, with white observation noise estimated from the window where it exceeds that of training, or
    without that of training where the window has clearly less; if `screened`, without gross errors.

    Where values are delayed, or parts of the state hidden, and the dynamics are not linear, further passes linearise
    around the states of the previous one (iterated smoother, Bell 1994). Trajectories whose innovations are far larger
    than expected are assimilated again, each with the white noise of largest evidence. Covariances and `factor` do not
    include this noise, which is not part of the field. Thousands of independent codes are represented by an ensemble
    instead of covariances.
    """
    if prior.white is not None:
        plain = replace(prior, white=None)
        estimate = assimilate_noisy(decoder, dynamics, plain, window, covariance, encoder, context, screened)
        if estimate.quieter is None or not len(rows := estimate.quieter.nonzero()[:, 0]):
            return estimate
        known, some = None if context is None else context.select(rows), window.select(rows)
        other = assimilate_noisy(decoder, dynamics, prior.quiet, some, covariance, encoder, known, screened)
        return replace(estimate.replaced(rows, other), quieter=estimate.quieter)
    if prior.covariance.dim() == 1:
        return assimilate_ensemble(decoder, dynamics, prior, window, covariance, context, _SURPRISING, _QUIET, screened)
    estimate = assimilate(decoder, dynamics, prior, window, covariance, encoder=encoder, context=context)
    around = estimate.mean
    hidden = dynamics.field.state_size > decoder.code_size + dynamics.field.context_size and window.u.shape[1] > 1
    passes = 0 if dynamics.field.is_linear else 1 if window.delay is not None else _HIDDEN if hidden else 0
    for _ in range(passes):
        around = estimate.mean
        estimate = assimilate(decoder, dynamics, prior, window, covariance, True, encoder, context, around)
    if bool((estimate.factor > _SURPRISING).any()):
        smoother = partial(assimilate, decoder, dynamics, covariance=covariance, encoder=encoder)
        if screened:
            window, estimate = without_gross_errors(smoother, decoder, prior, window, context, estimate, _SURPRISING)
        estimate, around, flown = near_closest_trajectories(
            smoother, decoder, dynamics, prior, window, context, estimate, _SURPRISING)
    surprising = (estimate.factor > _SURPRISING).nonzero()[:, 0]
    if not len(surprising):
        return estimate
    chosen = window.select(surprising)
    evidence = NoiseEvidence(replace(prior, noise=prior.roughest_noise).codes(decoder.code_size), len(chosen))
    states = estimate.mean[surprising]
    frames, alike = chosen.u.shape[1], dynamics.field.is_linear
    motions = [_motion(dynamics, chosen, states[:, k], decoder.code_size) for k in range(1 if alike else frames)]
    motions = motions * frames if alike else motions
    for rows, frame, offset, basis in _affine_frames(BasisAt(decoder), chosen, motions):
        evidence.add(rows, offset, basis, frame)
    added = torch.zeros(len(window), dtype=torch.float64)
    added[surprising] = evidence.best()
    if (added >= _UNLIKE).any():
        warnings.warn("observed values are many standard deviations away from any field like the training data: "
                      "check what they measure (level, place, faults), and do not trust the forecast", stacklevel=6)
    for level, near in torch.stack([added, flown.double()], 1)[added > 0].unique(dim=0):
        rows = ((added == level) & (flown == near.bool())).nonzero()[:, 0]
        noisy = replace(prior, noise=prior.noise + level)
        known = None if context is None else context.select(rows)
        other = assimilate(
            decoder, dynamics, noisy, window.select(rows), covariance, encoder=encoder, context=known,
            around=around[rows] if near or passes else None,
        )
        estimate = estimate.replaced(rows, other)
    return replace(estimate, louder=added > 0)


def _motion(dynamics: Dynamics, window: TrajectoryBatch, states: Tensor, size: int) -> AffineMotion | None:
    """The linearised motion of codes around states (S, n), for windows of delayed values; None for others."""
    if window.delay is None:
        return None
    return dynamics.motion(states[0] if dynamics.field.is_linear else states, size)


def _affine_frames(
    basis_at: BasisAt, window: TrajectoryBatch, motions: Sequence[AffineMotion | None]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Frames grouped by shared points: trajectories (F,), values u (F, N, C), offset (N, C) and basis (N, C, Z),
    float64. Delayed values share no points; `motions`, one for each frame, propagate their basis."""
    trajectories, frames = window.u.shape[:2]
    index = torch.arange(trajectories)
    for k in range(frames):
        points = window.x[:, k if window.x.shape[1] > 1 else 0]
        for g in range(len(points)):
            rows = index if len(points) == 1 and window.delay is None else index[g : g + 1]
            offset, basis = basis_at(points[g])
            motion = motions[k]
            if window.delay is not None and motion is not None:
                with torch.no_grad():
                    offset, basis = _carried(motion, g, offset, basis, window.delay[g, k])
            yield rows, window.u[rows, k], offset.double(), basis.double()


def _carried(
    motion: AffineMotion, trajectory: int, offset: Tensor, basis: Tensor, delay: Tensor
) -> tuple[Tensor, Tensor]:
    """Offset (N, C) and basis (N, C, Z) of one trajectory's values, observed `delay` (N,) after the frame."""
    carried = motion.of_groups(slice(trajectory, trajectory + 1)).carried(offset[None], basis[None], delay[None])
    return carried[0][0], carried[1][0]


def _innovation(
    basis_at: BasisAt, frame: TrajectoryBatch, before: Tensor, after: Tensor, covariance: Tensor, noise: Tensor,
    motion: AffineMotion | None = None,
) -> tuple[Tensor, Tensor]:
    """Squared innovation (S,) and number of values (S,) of a frame with states `before`, of covariance (S or 1, n, n),
    and `after` the update."""
    size = basis_at.decoder.code_size
    codes, step, own = after[:, :size], (after - before)[:, :size], covariance[:, :size, :size]
    quadratic, count = torch.zeros_like(after[:, 0]), torch.zeros_like(after[:, 0])
    for rows, u, offset, basis in _affine_frames(basis_at, frame, [motion]):
        values = offset + torch.einsum("ncz,sz->snc", basis, codes[rows])
        quadratic[rows], number = squared_innovation(values, u, noise, step[rows], own if len(own) == 1 else own[rows])
        count[rows] = number.double()
    return quadratic, count


def _update(
    basis_at: BasisAt, frame: TrajectoryBatch, mean: Tensor, cov: Tensor, prior: StatePrior,
    motion: AffineMotion | None = None,
) -> tuple[Tensor, Tensor]:
    """Condition forecasts (S, n) with covariance (S or 1, n, n) on one frame; `motion` propagates delayed values."""
    decoder, n = basis_at.decoder, mean.shape[1]
    size, dtype = decoder.code_size, next(decoder.parameters()).dtype
    points, u = frame.x[:, 0], frame.u[:, 0]
    seen = torch.isfinite(u).flatten(1)
    zero = torch.zeros(n, dtype=mean.dtype)
    with torch.set_grad_enabled(torch.is_grad_enabled() and u.requires_grad):
        shared = decoder.affine and frame.delay is None and len(points) == 1
        alike = shared and len(cov) == 1 and bool((seen == seen[:1]).all())
        if alike and not bool(seen.any()):
            return mean, cov
        if alike or (shared and bool(seen.all()) and seen.shape[1] > n):
            noise = noise_of(prior.noise, prior.truncation, points[0], torch.isfinite(u[0]))
            offset, basis, u, noise = basis_at.fewer(points[0], u, noise)
            offset, basis = _with_memory(offset, basis, n - size)
            target = u.double() - offset - torch.einsum("ncz,sz->snc", basis, mean)
            if not alike:
                step, each = condition_each(basis, target, cov, noise)
                return mean + step, each
            step, spread = condition(torch.zeros_like(offset), basis, target, GaussianPrior(zero, cov[0], noise), True)
            assert spread is not None
            return mean + step, spread[None]
        means, spreads = [], []
        for s in range(len(mean)):
            x = points[s if len(points) > 1 else 0]
            noise = noise_of(prior.noise, prior.truncation, x, torch.isfinite(u[s]))
            one = cov[s if len(cov) > 1 else 0]
            if not bool(seen[s].any()):
                means.append(mean[s])
                spreads.append(one)
                continue
            if decoder.affine:
                offset, basis = basis_at(x)
                if frame.delay is not None and motion is not None:
                    offset, basis = _carried(motion, s, offset, basis, frame.delay[s, 0])
            else:  # linearised at the posterior mode, with the offset of the tangent
                at = GaussianPrior(mean[s, :size], one[:size, :size], noise)
                best, _ = gauss_newton(decoder, x, u[s : s + 1], at)
                value, jacobian = decoder.linearise(x.to(dtype), best.to(dtype))
                basis = jacobian[0]
                offset = value[0] - torch.einsum("ncz,z->nc", basis, best[0].to(dtype))
            offset, basis = _with_memory(offset, basis, n - size)
            target = u[s : s + 1].double() - offset - torch.einsum("ncz,z->nc", basis, mean[s])
            step, spread = condition(torch.zeros_like(offset), basis, target, GaussianPrior(zero, one, noise), True)
            assert spread is not None
            means.append(mean[s] + step[0])
            spreads.append(spread)
    return torch.stack(means), torch.stack(spreads)


def _with_memory(offset: Tensor, basis: Tensor, memory: int) -> tuple[Tensor, Tensor]:
    """A decoder's basis extended by zeros to unobserved dimensions of the state; float64."""
    basis = basis.double()
    return offset.double(), torch.cat([basis, basis.new_zeros(*basis.shape[:-1], memory)], -1)
