"""Hyper-parameters of a residual field by composite marginal likelihood.

The likelihood of values given near values among a random part of the places (what hidden places are asked for), and of
values given earlier ones (what forecasts are): each factor is a small Gaussian, so that the cost does not grow with
the data (composite likelihood: Varin, Reid and Firth, 2011; Vecchia, 1988). The form of the covariance is chosen by
the same likelihood of values at places that were not fitted to: values of one place at many times are no independent
evidence of how places are correlated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.neighbours import Sites, local_weights

_SHARES = (0.8, 0.5, 0.5, 0.25)  # of the places that predict the others
_TARGETS, _NEIGHBOURS = 400, 16
_ITERATIONS, _OF_TRIALS = 25, 12
_GAIN = 0.01  # nats a value, or share of the squared error, by which a richer form must predict better
_FEWEST = 8  # places of which some can be spared


@dataclass
class Samples:
    """Values of one channel.

    Attributes:
        t: (R,) times, those of different trajectories far apart. y: (R, p). place: (R,) identities. value: (R,).
    """

    t: np.ndarray
    y: np.ndarray
    place: np.ndarray
    value: np.ndarray


@dataclass
class Conditionals:
    """Values with the neighbours that they are predicted from: (Q,), (Q, p), (Q,); (Q, m), (Q, m, p), (Q, m); and the
    place (Q,) of each."""

    t: Tensor
    y: Tensor
    value: Tensor
    near_t: Tensor
    near_y: Tensor
    near_value: Tensor
    missing: Tensor
    place: Tensor

    def __call__(self, covariance: Covariance) -> Tensor:
        """Log density (Q,) of the values given their neighbours."""
        square, variance = self.missed(covariance)
        return -0.5 * (square / variance + variance.log() + np.log(2 * np.pi))

    def missed(self, covariance: Covariance) -> tuple[Tensor, Tensor]:
        """Squared errors (Q,) of the values as predicted from their neighbours, and the variances of these errors."""
        weights, variance = local_weights(covariance, self.t, self.y, self.near_t, self.near_y, self.missing)
        return (self.value - (weights * self.near_value).sum(1)).square(), variance + covariance.nugget

    def part(self, index: Tensor) -> Conditionals:
        """Some of them."""
        return Conditionals(*(value[index] for value in vars(self).values()))

    def loss(self, covariance: Covariance, squares: bool) -> Tensor:
        """Minus the mean log density, or the logarithm of the mean squared error."""
        return self.missed(covariance)[0].mean().log() if squares else -self(covariance).mean()

    def gain(self, new: Covariance, old: Covariance, squares: bool = False) -> float:
        """What the loss of another covariance is above that of a new one."""
        with torch.no_grad():
            return float(self.loss(old, squares) - self.loss(new, squares))


def conditionals(samples: Samples, covariance: Covariance, random: np.random.Generator) -> Conditionals:
    """Random values with their neighbours among other places, or among earlier times."""
    places = np.unique(samples.place)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    each = _TARGETS // (len(_SHARES) + 1)
    if len(places) >= _FEWEST:
        for share in _SHARES:
            kept = random.permutation(places)[: max(4, round(share * len(places)))]
            inside = np.isin(samples.place, kept)
            sources, targets = np.flatnonzero(inside), np.flatnonzero(~inside)
            targets = random.permutation(targets)[:each]
            near = Sites(samples.t[sources], samples.y[sources], covariance).near(
                samples.t[targets], samples.y[targets], _NEIGHBOURS)
            parts.append((targets, np.where(near < 0, -1, sources[near])))
    span = len(np.unique(samples.t))
    if span > 4:
        targets = random.permutation(len(samples.t))[: each if parts else 4 * each]
        step = float(np.median(np.diff(np.unique(samples.t))))
        lead = step * np.exp(random.uniform(np.log(0.9), np.log(max(1.0, span / 10)), len(targets)))
        near = Sites(samples.t, samples.y, covariance).near(
            samples.t[targets], samples.y[targets], _NEIGHBOURS, samples.t[targets] - lead)
        parts.append((targets, near))
    targets, near = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = random.permutation(len(targets))
    targets, near = targets[order], near[order]
    t, y, value = (torch.as_tensor(v) for v in (samples.t, samples.y, samples.value))
    missing = torch.as_tensor(near < 0)
    place = torch.as_tensor(np.unique(samples.place, return_inverse=True)[1].reshape(-1))
    return Conditionals(t[targets], y[targets], value[targets], t[near], y[near], value[near], missing, place[targets])


def fit_covariance(
    samples: Samples, groups: tuple[int, ...], moving: tuple[bool, ...], seed: int = 0, near: Covariance | None = None,
    richer: bool = True, squares: bool = False,
) -> Covariance:
    """The covariance of one channel: of the simplest form, then of `richer` ones where they predict clearly better;
    with the form of `near` where that is given.

    `squares`: of least squared error of the predictions instead (cross-validation), for values that are far from
    normal, with variances that are those of these errors on average.
    """
    random = np.random.default_rng([seed, 17])
    best = start(samples, Form((1.5,), 0.5, (0,) * len(groups), moving)) if near is None else near
    half = torch.as_tensor(random.permutation(len(np.unique(samples.place))) % 2 == 0)
    limits = bounds(samples)
    for _ in range(2):  # near is near in units of what was fitted
        data = conditionals(samples, best, random)
        learn, judge = data.part(half[data.place]), data.part(~half[data.place])
        best = fitted(best, learn if near is None else data, limits, squares)
    if near is not None and not squares:
        return best
    for change in CHANGES if richer and near is None else ():
        with torch.no_grad():
            starts = sorted(change(best, groups), key=lambda other: float(learn.loss(other, squares)))
        for other in starts[:1]:
            new = fitted(other, learn, limits, squares, _OF_TRIALS)
            if judge.gain(new, best, squares) > _GAIN:
                best = new
    best = fitted(best, data, limits, squares)
    if squares:
        with torch.no_grad():
            square, variance = data.missed(best)
            best = best.scaled(float((square / variance).mean()))
    return best


def fitted(
    covariance: Covariance, data: Conditionals, limits: Callable[[Form], np.ndarray], squares: bool = False,
    iterations: int = _ITERATIONS,
) -> Covariance:
    """The covariance with the parameters of largest likelihood, or of least squares, by L-BFGS within limits."""

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.tensor(parameters, requires_grad=True)
        value = data.loss(covariance.at(theta), squares)
        value.backward()
        assert theta.grad is not None
        return float(value.detach()), theta.grad.numpy()

    box = limits(covariance.form)
    begin = np.clip(covariance.parameters.numpy(), *box)
    try:
        found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=box.T,
                         options={"maxiter": iterations})
    except torch.linalg.LinAlgError:
        return covariance
    return covariance.at(torch.as_tensor(found.x))


def start(samples: Samples, form: Form) -> Covariance:
    """First values: half of the variance in space, lengths of a quarter of the extent, a tenth nugget."""
    variance = float(samples.value.var()) + 1e-12
    extent, step, _ = _scales(samples)
    return Covariance.of(form, [0.3 * variance, 0.6 * variance], [10 * step, 10 * step], 0.1 * variance,
                         [[0.25 * extent] * form.lengths])


def bounds(samples: Samples) -> Callable[[Form], np.ndarray]:
    """Limits (2, size) of the parameters of a form."""
    variance = float(samples.value.var()) + 1e-12
    extent, step, span = _scales(samples)

    def limits(form: Form) -> np.ndarray:
        q = len(form.smoothness)
        rows = [(np.log(1e-4 * variance), np.log(10 * variance))] * (q + 1)
        rows += [(np.log(0.1 * step), np.log(3 * span))] * (q + 1)
        rows += [(np.log(1e-6 * variance), np.log(2 * variance))]
        rows += [(np.log(0.01 * extent), np.log(10 * extent))] * (q * form.lengths)
        rows += [(-extent / step, extent / step)] * (form.size - len(rows))
        return np.array(rows).T

    return limits


def _scales(samples: Samples) -> tuple[float, float, float]:
    """Extent in space, median step and span in time."""
    extent = float(np.ptp(samples.y, 0).max()) or 1.0
    steps = np.diff(np.unique(samples.t))
    if not len(steps):
        return extent, 1.0, 1.0
    step = float(np.median(steps))
    return extent, step, float(np.sum(steps[steps < 100 * step])) or step


# ---- richer forms ----


def _anisotropic(best: Covariance, groups: tuple[int, ...]) -> Iterator[Covariance]:
    if max(groups):
        form = replace(best.form, groups=groups)
        for longer in range(form.lengths):
            lengths = [float(best.lengths[0, 0]) * (2.0 if one == longer else 0.7) for one in range(form.lengths)]
            yield Covariance.of(form, best.variances.tolist(), best.times.tolist(), float(best.nugget), [lengths],
                                _velocity(best))


def _smoother_or_rougher(best: Covariance, groups: tuple[int, ...]) -> Iterator[Covariance]:
    yield from (replace(best, form=replace(best.form, smoothness=(s,))) for s in (0.5, 2.5))


def _longer_memory(best: Covariance, groups: tuple[int, ...]) -> Iterator[Covariance]:
    yield replace(best, form=replace(best.form, memory=1.5))


def _second_scale(best: Covariance, groups: tuple[int, ...]) -> Iterator[Covariance]:
    variances, times, lengths = best.variances.tolist(), best.times.tolist(), best.lengths.tolist()
    for smoothness, factor in ((0.5, 0.3), (1.5, 3.0)):
        form = replace(best.form, smoothness=(*best.form.smoothness, smoothness))
        yield Covariance.of(form, [variances[0], 0.7 * variances[1], 0.3 * variances[1]],
                            [*times, times[1] * factor], float(best.nugget),
                            [*lengths, [factor * length for length in lengths[0]]],
                            _velocity(best))


def _drift(best: Covariance, groups: tuple[int, ...]) -> Iterator[Covariance]:
    if any(best.form.moving):
        form = replace(best.form, drift=True)
        speed = 0.3 * float(best.lengths[0].mean() / best.times[1])
        for index in range(sum(form.moving)):
            for sign in (1.0, -1.0):
                velocity = torch.zeros(sum(form.moving), dtype=torch.float64)
                velocity[index] = sign * speed
                yield Covariance(form, torch.cat([best.parameters, velocity]))


def _velocity(best: Covariance) -> list[float] | None:
    return best.velocity[torch.tensor(best.form.moving)].tolist() if best.form.drift else None


CHANGES = (_anisotropic, _smoother_or_rougher, _longer_memory, _drift, _second_scale)
