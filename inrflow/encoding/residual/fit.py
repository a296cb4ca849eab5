"""Hyper-parameters of a residual field by composite likelihoods with weak priors.

The loss is the mean of two composite likelihoods. One is of blocks of values, all places (or near ones) at a few times
each, so that the cost does not grow with the data (Varin, Reid and Firth, 2011); the other of the values of each place
predicted from other places, in closed form (Dubrule, 1983; Sundararajan and Keerthi, 2001). The latter is more robust
to a misspecified covariance, for predictions at other places (Bachoc, 2013), but less informative on correlation in
time. As values of one place at many times are not independent evidence of correlations between places, the likelihood
is weighted as that of a few values for each place, with log-normal priors. The form of the covariance is chosen by the
predictions of each place from others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from inrflow.encoding.residual.blocks import (
    FEW,
    Blocks,
    Samples,
    blocks_of,
    blocks_with,
    frames_of,
    step_of,
    variance_of,
)
from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.motion import common_velocity
from inrflow.encoding.residual.neighbours import Sites, outlier_noise
from inrflow.encoding.residual.square_roots import SquareRoots
from inrflow.numerics.effort import OutOfTime, effort
from inrflow.numerics.normal import gaussian_crps

_LOST = 0.1  # largest loss of prediction between places, as a share of a gain between times
_ITERATIONS, _OF_TRIALS = 40, 20
_GAIN, _SURE = 0.01, 2.0  # least gain of a richer form: nats; standard errors
_OFTEN = 2  # values per place from which on it may have a persistent error
_EVIDENCE = 5.0  # effective number of values of a place, against the priors
_TOLD, _LITTLE = 2.0, 0.05  # effective values of a place in weights of forms; least weight of a form
_DOUBT, _WINDOWS = (1.0, 2.0, 4.0, 8.0), 40  # factors on the threshold of doubt; windows of its choice
_ROOTS = 0.98  # largest ratio of error times CRPS of processes of roots to that of values
_OUTLIER = 10.0  # distance from the median, relative to that of the quantiles
_APART, _LEAST_LASTING, _MOST_LASTING = 0.2, 0.01, 0.999  # tolerance in a step; bounds on correlations over a step
_NOTHING = 1e-6  # relative lower bound on variances and lengths


def fit_covariance(
    samples: Samples, groups: tuple[int, ...], moving: tuple[bool, ...], seed: int = 0, near: Covariance | None = None,
    richer: bool = True,
) -> Covariance:
    """Covariance of one channel: two Matern functions with a length along each group of coordinates, which drift where
    block matching gives a velocity. With `richer`, other forms are adopted if they predict places clearly better; for
    few places, forms with and without a trend or a drift are averaged. With `near`, the form of that covariance."""
    whole, samples = samples, _without_outliers(samples)
    if near is None:
        samples.velocity = common_velocity(samples.t, samples.y, samples.value, moving)
    elif near.form.drift:
        samples.velocity = near.velocity[list(moving)].numpy()
    data = blocks_of(samples, np.random.default_rng([seed, 17]))
    often = len(samples.y) >= _OFTEN * len(np.unique(samples.y, axis=0))
    form = Form((1.5, 1.5), 0.5, groups, moving, drift=samples.velocity is not None, site=often)
    first = start(samples, form) if near is None else Covariance(near.form, near.parameters, doubtful=near.doubtful)
    first = first.followed(samples.t, samples.y, samples.value)
    best = fitted(first, samples, data)
    least, unsure = data.left_out_log_loss(best), list[Covariance]()
    few = len(np.unique(samples.place)) <= FEW  # a smoothness is easily fitted, and may be most of the gain
    for change in (CHANGES if richer else CHANGES[:few]) if near is None else ():
        with torch.no_grad():
            starts = sorted(change(best, samples), key=lambda other: float(data.misfit(other)))
        for other in starts[:1]:
            new = fitted(other, samples, data, _OF_TRIALS)
            surprise = data.left_out_log_loss(new)
            better = _clearly(least - surprise)
            if change is _longer_memory and not better and (frames := frames_of(samples, seed)) is not None:
                gain = frames.left_out_log_loss(best) - frames.left_out_log_loss(new)
                better = _clearly(gain) and float((surprise - least).mean()) < _LOST * float(gain.mean())
            if few and change in (_trend, _drift):
                unsure.append(new)
                least = min(least, surprise, key=torch.mean)
            elif better:
                best, least, unsure = new, surprise, []
    if best.form.drift and samples.velocity is None:  # not yet fitted
        best = fitted(best, samples, data)
    best = data.with_noisy_places(_mean_of([best, *unsure], data))
    return _with_doubt(best, whole) if near is None else best


def fit_values_or_roots(
    samples: Samples, groups: tuple[int, ...], moving: tuple[bool, ...], seed: int = 0, richer: bool = True
) -> tuple[Covariance, SquareRoots | None]:
    """Covariance of values, or of their roots where values are skewed and roots, with the simplest form, predict places
    better, by the product of RMSE and CRPS. Roots are not used for fields that drift, which are interpolated between
    frames."""
    roots = SquareRoots.of(_without_outliers(samples).value)
    first = fit_covariance(samples, groups, moving, seed, richer=richer and roots is None)
    if roots is None:
        return first, None
    if not first.form.drift:
        rooted = replace(samples, value=roots(samples.value))
        other = fit_covariance(rooted, groups, moving, seed, richer=False)
        if _missed(other, rooted, seed, roots) < _ROOTS * _missed(first, samples, seed, None):
            return (fit_covariance(rooted, groups, moving, seed) if richer else other), roots
    return (fit_covariance(samples, groups, moving, seed) if richer else first), None


def _missed(covariance: Covariance, samples: Samples, seed: int, roots: SquareRoots | None) -> float:
    """Root mean square error times CRPS of values predicted from other places."""
    data = blocks_of(samples, np.random.default_rng([seed, 17]))
    with torch.no_grad():
        errors, variances = data.places_left_out(covariance)
    truth = data.value[data.place_order]
    mean = truth - errors
    if roots:
        truth, (mean, variances) = roots.values(truth), roots.moments(mean, variances)
    errors = truth - mean
    return float(errors.square().mean().sqrt() * gaussian_crps(errors, variances.sqrt()).mean())


def _mean_of(forms: list[Covariance], data: Blocks) -> Covariance:
    """Mean of covariances weighted by likelihoods of a few values of each place predicted from others, as a choice of
    one form by few places would be by chance."""
    surprises = torch.stack([data.left_out_log_loss(one) for one in forms])
    weights = torch.softmax(-_TOLD * surprises.sum(1), 0)
    weights = weights.where(weights > _LITTLE, 0.0) / weights[weights > _LITTLE].sum()
    first, *rest = weights.argsort(descending=True).tolist()
    return replace(forms[first], others=tuple((float(weights[k]), forms[k]) for k in rest if weights[k] > 0))


def _clearly(gain: Tensor) -> bool:
    """Whether a gain (P,) in log density of places is worth a richer form."""
    return float(gain.mean()) > max(_GAIN, _SURE * float(gain.std()) / len(gain) ** 0.5)


def _with_doubt(covariance: Covariance, samples: Samples) -> Covariance:
    """The covariance with the threshold of doubt that predicts places best: peaks of a skewed field, as of rain, are no
    faults, and inform predictions around them. It is not sought where time is over (`effort`)."""
    def noise(tried: Covariance) -> np.ndarray:
        effort.check()
        return outlier_noise(Sites(samples.t, samples.y, tried), torch.as_tensor(samples.value))

    with suppress(OutOfTime):
        sites = Sites(samples.t, samples.y, covariance)
        doubtful = np.flatnonzero(noise(covariance)) if sites.windowed else np.empty(0)
        if not len(doubtful):
            return covariance
        windows = [near for _, near in sites.tiles(doubtful)]
        windows = [windows[k] for k in np.random.default_rng(0).permutation(len(windows))[:_WINDOWS]]
        chosen = np.concatenate(windows)
        samples = Samples(samples.t[chosen], samples.y[chosen], samples.place[chosen], samples.value[chosen])
        rows = np.split(np.arange(len(chosen)), np.cumsum([len(one) for one in windows])[:-1])

        def missed(tried: Covariance) -> float:
            with torch.no_grad():
                return float(blocks_with(samples, rows, noise(tried)).places_left_out(tried)[0].square().mean())

        return min((replace(covariance, doubtful=times * covariance.doubtful) for times in _DOUBT), key=missed)
    return covariance


def fitted(covariance: Covariance, samples: Samples, data: Blocks, iterations: int | None = None) -> Covariance:
    """The covariance with the parameters of largest posterior density, by L-BFGS within bounds."""
    middle, width = priors(samples, covariance.form)
    strength = 1 / (_EVIDENCE * len(np.unique(samples.place)))
    expected = covariance.at(torch.as_tensor(middle)).lengths.log()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.tensor(parameters, requires_grad=True)
        tried = covariance.at(theta)
        away = (theta - torch.as_tensor(middle)) / torch.as_tensor(width)
        longer = tried.lengths.log() - expected
        unlike = (longer - longer.mean(1, keepdim=True)) / (_ANISOTROPY if longer.shape[1] > 2 else np.inf)
        value = data.misfit(tried) + 0.5 * strength * (away.square().sum() + unlike.square().sum())
        value.backward()
        assert theta.grad is not None
        return float(value.detach()), theta.grad.numpy()

    box = np.stack([middle - _FARTHEST * width, middle + _FARTHEST * width])
    begin = np.clip(covariance.parameters.numpy(), *box)
    try:
        found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=box.T,
                         options={"maxiter": iterations or _ITERATIONS})
    except torch.linalg.LinAlgError:
        return covariance
    return covariance.at(torch.as_tensor(found.x))


def degrees_of_freedom_factor(places: int, axes: int) -> float:
    """Factor on standard deviations for the degrees of freedom spent in a fit to `places` places: a mean, a variance
    and a length along each axis (as in restricted likelihoods)."""
    return float((places / max(places - 2 - axes, 1)) ** 0.5)


# ---- first values and priors ----

_PARTS, _LENGTHS, _STEPS = (0.5, 0.2), (1.5, 0.4), (15.0, 4.0)  # of the variance; of places' std; of the step
_SITE = (0.05, 100.0)  # of the variance, of the step
_FARTHEST, _OF_ERRORS = 3.0, 4.0  # bounds, in prior standard deviations; wide prior of error variances
_ANISOTROPY = 0.5  # prior deviation of log lengths around their mean, for three or more lengths
_UNSURE = 0.05  # prior deviation of a velocity by block matching, relative to the usual one


def priors(samples: Samples, form: Form) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations (size,) of the normal priors of the parameters: half and a fifth of the variance in
    space, over 1.5 and 0.4 standard deviations of the places, a tenth nugget, a twentieth persistent errors; standard
    deviations of logarithms 1 to 4."""
    variance, q = variance_of(samples), len(form.smoothness)
    extents, step = _extents(samples, form), step_of(samples)
    middle = [np.log(0.2 * variance), *np.log(variance * np.array(_PARTS[:q])), np.log(_STEPS[0] * step),
              *np.log(step * np.array(_STEPS[:q])), np.log(0.1 * variance),
              *np.log(np.outer(_LENGTHS[:q], extents).reshape(-1))]
    width = [2.0] * (2 * q + 2) + [_OF_ERRORS] + [1.0] * (q * form.lengths)
    if form.site:
        middle += [np.log(_SITE[0] * variance), np.log(_SITE[1] * step)]
        width += [_OF_ERRORS, 2.0]
    for power in range(1, 2 + form.curved):
        for group, some in zip(form.groups, form.trend, strict=False):
            if some:
                middle.append(np.log(0.05 * variance / extents[group] ** (2 * power)))
                width.append(2.0)
    if form.drift:
        speeds = [extents[g] / (_STEPS[0] * step) for g, moves in zip(form.groups, form.moving, strict=True) if moves]
        known = samples.velocity is not None
        middle += [0.0] * len(speeds) if samples.velocity is None else list(samples.velocity)
        width += [_UNSURE * speed if known else speed for speed in speeds]
    return np.array(middle), np.array(width)


def lasting_covariance(samples: Samples, groups: tuple[int, ...], moving: tuple[bool, ...]) -> Covariance:
    """Covariance of values that persist at their own places and are independent between places: AR(1) and a nugget,
    from autocovariances at lags of one and two steps, without a search for doubtful values."""
    order = np.lexsort((samples.t, samples.place))
    t, place, value = samples.t[order], samples.place[order], samples.value[order]
    step = float(np.median(np.diff(np.unique(samples.t)))) if len(t) > 2 else 0.0
    variance, products = float(np.mean(value**2)), []
    for lag in (1, 2):
        apart = np.abs(t[lag:] - t[:-lag] - lag * step) < _APART * step
        pairs = (place[lag:] == place[:-lag]) & apart
        products.append(max(float((value[lag:] * value[:-lag])[pairs].mean()) if pairs.any() else 0.0, 0.0))
    rate = min(max(products[1] / (products[0] or np.inf), _LEAST_LASTING), _MOST_LASTING)
    held = max(min(products[0] / rate, variance), _NOTHING * variance)
    tiny, time = _NOTHING * held, -(step or 1.0) / np.log(rate)
    length = _NOTHING * float(np.ptp(samples.y, 0).max() or 1.0)  # correlates values of the same place alone
    form = Form((0.5,), 0.5, groups, moving, site=True)
    found = Covariance.of(form, [tiny, tiny], [time, time], max(variance - held, tiny), [[length] * form.lengths],
                          site=(held, time))
    return replace(found, doubtful=np.inf)


def start(samples: Samples, form: Form) -> Covariance:
    """The covariance at the prior means."""
    return Covariance(form, torch.as_tensor(priors(samples, form)[0]))


def _without_outliers(samples: Samples) -> Samples:
    """Values without gross errors, a single one of which would dominate the variance."""
    low, middle, high = np.quantile(samples.value, (0.05, 0.5, 0.95))
    kept = np.abs(samples.value - middle) <= (_OUTLIER * (high - low) / 2 if high > low else np.inf)
    return Samples(samples.t[kept], samples.y[kept], samples.place[kept], samples.value[kept], samples.velocity)


def _extents(samples: Samples, form: Form) -> np.ndarray:
    """Standard deviations (L,) of the places along each group of coordinates."""
    spread = samples.y.std(0)
    groups = np.array(form.groups)
    extents = np.array([spread[groups == group].max() for group in range(form.lengths)])
    return np.where(extents > 0, extents, extents.max() or 1.0)


# ---- richer forms ----


def _smoother_or_rougher(best: Covariance, samples: Samples) -> Iterator[Covariance]:
    yield from (replace(best, form=replace(best.form, smoothness=s)) for s in ((2.5, 1.5), (2.5, 0.5), (0.5, 0.5)))


def _longer_memory(best: Covariance, samples: Samples) -> Iterator[Covariance]:
    if np.ptp(samples.t) > 0:
        yield replace(best, form=replace(best.form, memory=1.5))


def _trend(best: Covariance, samples: Samples, curved: bool = False) -> Iterator[Covariance]:
    if any(best.form.moving) and not best.form.drift:
        form = replace(best.form, trend=best.form.moving, curved=curved)
        yield Covariance(form, torch.cat([best.parameters, start(samples, form).parameters[len(best.parameters) :]]))


def _curve(best: Covariance, samples: Samples) -> Iterator[Covariance]:
    yield from _trend(best, samples, curved=True)  # a quadratic trend may appear without a linear one


def _drift(best: Covariance, samples: Samples) -> Iterator[Covariance]:
    if any(best.form.moving) and np.ptp(samples.t) > 0 and not best.form.drift:
        form = replace(best.form, drift=True)
        speed = 0.3 * float(best.lengths[0].mean() / best.times[1])
        count = sum(form.moving)
        for index in range(count):
            for sign in (1.0, -1.0):
                velocity = torch.zeros(count, dtype=torch.float64)
                velocity[index] = sign * speed
                yield Covariance(form, torch.cat([best.parameters, velocity]))


CHANGES: tuple[Callable[[Covariance, Samples], Iterator[Covariance]], ...] = (
    _smoother_or_rougher, _longer_memory, _trend, _curve, _drift)
