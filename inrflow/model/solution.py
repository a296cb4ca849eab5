"""Solutions: assimilated trajectories as fields u(t, x), with values, derivatives and uncertainty at any point."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.data.description import FLAG
from inrflow.data.labelled import numbers_of, query_dataset, query_points
from inrflow.data.observations import Observations
from inrflow.errors import UserError
from inrflow.model.ensemble import decoded_change, deviations, spread_of
from inrflow.model.extent import DIVERGED, arithmetic_as_user_error, warn_diverged
from inrflow.model.gradients import with_gradient
from inrflow.model.joint import JointPosterior, Model, Placement, placed
from inrflow.model.state_path import EXACT_TIMES, StatePath, cell_ends, with_process_of
from inrflow.model.state_prior import StateEstimate
from inrflow.runtime.shown import Shown, counted

_POINTS_PER_BLOCK, _FEW_TIMES = 4096, 64
_STEP = 1e-3  # of internal time and of the box, for differences of the residual field


class Solution(Shown):
    """The field u(t, x) of one trajectory. Made by `Surrogate.assimilate`; numpy in, numpy out, torch in, torch out.

    Calling it and all its methods take times and points as
        t (R,) and x (R, d): R single points, values (R, C);
        t scalar and x (N, d): one frame, values (N, C);
        t (T, 1), or (T,) with T not N, and x (N, d): all points at all times, values (T, N, C), as in `frames`.
    For x on a grid, (X, Y, d), these axes take the place of N; of t (X, Y) that of R. Units are those of the training
    data; times may be dates where its times are ("2020-01-31T12", datetime64), points of a sphere degrees (N, 2),
    longitude and latitude; data without places need no x, with values (C,) or (T, C). Times farther from observations
    than `Extent.reach` raise UserError: 100 time spans of training or 1000 of its steps, whichever is longer; a million
    time spans where the dynamics are affine, with an exact flow."""

    def __init__(self, surrogate: Model, estimate: StateEstimate, as_torch: bool = False,
                 update: Callable[[Observations], Solution] | None = None) -> None:
        self.surrogate, self.estimate, self.as_torch, self._update = surrogate, estimate, as_torch, update
        self.path = StatePath(with_process_of(surrogate.dynamics, estimate), estimate, surrogate.prior)
        self.diverged = math.inf  # earliest queried time from which the forecast has diverged
        self._known: tuple[Tensor, list[Tensor]] | None = None
        self._moved: tuple[Tensor, Tensor] | None = None

    def __repr__(self) -> str:
        about, knots = self.surrogate.description, self.estimate.t[0]
        return (f"Solution({about.name}: {', '.join(about.channels)} of {', '.join(('t', *(about.places)))}; "
                f"{counted(int(torch.isfinite(knots).sum()), 'observed frame')} from t={self.observed[0]:g})")

    def __call__(self, t: Any, x: Any = None) -> Any:
        """Values (..., C), see the class for shapes."""
        return self._ask(t, x, ("mean",))["mean"]

    def frames(self, t: Any, x: Any = None) -> Any:
        """Values (T, N, C) at all points x (N, d) at all times t (T,)."""
        return self._ask(t, x, ("mean",), grid=True)["mean"]

    @property
    def observed(self) -> tuple[float, float]:
        """Times of the first and the last observation."""
        ends = torch.stack([self.estimate.t[0, 0], self.estimate.last[0]])
        return tuple(self.surrogate.scale.external(ends).tolist())

    @property
    def context(self) -> tuple[Tensor, Tensor]:
        """The context (P,) of the trajectory and its covariance (P, P); P = 0 for a surrogate without contexts."""
        mean, covariance = self.estimate.last_context(self.surrogate.field.context_size)
        return mean[0], covariance[0]

    @property
    def parameters(self) -> dict[str, tuple[float, float]]:
        """Known parameters of the system, inferred from its context: name -> (estimate, standard deviation).

        Empty for a surrogate that was not trained with parameters that vary."""
        known = self.surrogate.contexts
        if known is None or known.map is None:
            return {}
        mean, covariance = known.map.parameters(*self.context)
        spread = covariance.diagonal().clamp(min=0).sqrt()
        return {name: (float(m), float(s)) for name, m, s in zip(known.names, mean, spread, strict=True)}

    def std(self, t: Any, x: Any = None) -> Any:
        """Standard deviation (..., C) without white noise of the training values; outside at least that of the data."""
        return self._ask(t, x, ("std",))["std"]

    def quantiles(self, t: Any, x: Any = None, levels: Sequence[float] = (0.05, 0.5, 0.95)) -> Any:
        """Quantiles (Q, ..., C) of the field, by normal distributions, clipped at 0 for amounts. Raises UserError for
        levels not between 0 and 1."""
        chosen = np.atleast_1d(np.asarray(levels))
        if chosen.dtype.kind != "f" or not chosen.size or not ((chosen > 0) & (chosen < 1)).all():
            raise UserError(f"quantiles {chosen.tolist()} are asked for; give levels between 0 and 1")
        answer = self.query(t, x, std=True)
        parts = [self.quantile(answer, level) for level in chosen.tolist()]
        return torch.stack(parts) if isinstance(parts[0], Tensor) else np.stack(parts)

    def quantile(self, answer: dict[str, Any], level: float) -> Any:
        """Quantile (..., C) at one level, from a query with standard deviations."""
        values = answer["mean"] + NormalDist().inv_cdf(level) * answer["std"]
        return self.surrogate.normalisation.possible(values)

    def extrapolated(self, t: Any, x: Any = None) -> np.ndarray:
        """Whether points lie outside of the training data, or times beyond those of training, (...)."""
        times, points, by_row, shape = query_points(t, x, self.surrogate.description)
        t_, x_ = (times, points) if by_row else (times[:, None], points[None])
        return self.surrogate.extent.extrapolated(t_.numpy(), x_, *self.observed).astype(bool).reshape(shape)

    def to_xarray(self, t: Any, x: Any = None, std: bool = True, **axes: Any) -> Any:
        """An xarray.Dataset of the channels, their standard deviations, and `extrapolated`, after the CF conventions.

        At times t (T,) and points x (N, d), or on the grid of an axis for each coordinate: `to_xarray(t, x=..., y=...)`
        with lines of numbers, on a sphere `lon=..., lat=...`. Raises UserError where there are places and no axes.
        """
        keys = ("mean", *(("std",) if std else ()))
        return query_dataset(lambda times, points: self._ask(times, points, keys, grid=True) | {
            FLAG: self.extrapolated(times[:, None], points)}, self.surrogate.description, t, x, axes)

    def sample(self, n: int, t: Any, x: Any = None, seed: int = 0) -> Any:
        """Joint samples (n, ..., C) of the field, for sums, extremes, first passage times; of at most 3000 points.

        Their mean and standard deviation at each point of the domain are those of `query`."""
        if not isinstance(n, int | np.integer) or n < 1:
            raise UserError(f"{n} draws are asked for; give a whole number from 1 on")
        mean = self.query(t, x)["mean"]
        times, points, by_row, _ = query_points(t, x, self.surrogate.description)
        if not by_row:
            times, points = times.repeat_interleave(len(points)), points.repeat(len(times), 1)
        with arithmetic_as_user_error():
            draws = self._joint(times, points).sample(n, torch.Generator().manual_seed(seed))
        draws = (draws * self.surrogate.normalisation.scale.double()).reshape(n, *mean.shape)
        return torch.as_tensor(mean) + draws if isinstance(mean, Tensor) else mean + draws.numpy()

    def where_next(self, candidates: Any, k: int = 1, weights: Any = None, t: Any = None) -> Placement:
        """Optimal sensor placement: the k of the candidates (M, d) whose observation reduces the total posterior
        variance at all of them most.

        Args:
            candidates: points, of a sphere also degrees (M, 2).
            weights: (M,) nonnegative weights of the variance at each candidate; equal by default.
            t: the time, a number or a date, by default that of the last observation.
        """
        self.surrogate.description.require_places("further sensors are chosen among places")
        t = self.observed[1] if t is None else t
        moment, x, _, _ = query_points(t, candidates, self.surrogate.description, grid=True)
        given = torch.ones(len(x)) if weights is None else numbers_of(weights, "weights")
        fits = len(moment) == 1 and isinstance(k, int | np.integer) and 1 <= k <= len(x) and given.shape == (len(x),)
        if not fits or not bool(((given >= 0) & given.isfinite()).all()):
            raise UserError(f"{k} places are asked for among {len(x)} candidates, with weights {tuple(given.shape)}, "
                            f"at {len(moment)} times; give k from 1 to M, candidates (M, d), weights (M,) of at least "
                            "0, one time")
        self._check(moment, x)
        with arithmetic_as_user_error():
            found = placed(self._joint(moment.expand(len(x)), x.double()), k, given.double())
        return replace(found, x=np.asarray(candidates, np.float64).reshape(len(x), -1)[found.index])

    def _joint(self, times: Tensor, x: Tensor) -> JointPosterior:
        states, which = self.states(times)
        covariances = self.covariances(self.surrogate.scale.internal(torch.unique(times)), states)
        return JointPosterior(self.surrogate, self.estimate, times, x.double(), states, which, covariances)

    def update(self, observations: Observations) -> Solution:
        """The solution given further observations; of repeated ones the last count. Later frames are assimilated
        quickly."""
        assert self._update is not None
        with arithmetic_as_user_error():
            return self._update(observations)

    def derivatives(self, t: Any, x: Any = None, which: tuple[str, ...] = ("dx", "dt")) -> dict[str, Any]:
        """Derivatives `dx`: du/dx (..., C, d), and `dt`: du/dt (..., C), or one of them."""
        if unknown := set(which) - {"dx", "dt"}:
            raise UserError(f"derivatives {', '.join(map(str, sorted(unknown)))} are asked for; give ('dx', 'dt')")
        return self._ask(t, x, which)

    def query(self, t: Any, x: Any = None, std: bool = False, derivatives: bool = False) -> dict[str, Any]:
        """`mean` and, on request, `std`, `dx` and `dt` in one pass."""
        return self._ask(t, x, _keys(std, derivatives))

    def rows(self, t: np.ndarray, x: np.ndarray, std: bool = False, derivatives: bool = False) -> dict[str, np.ndarray]:
        """`query` for R points x (R, d) at times t (R,), plain numbers in the data's units, as read from tables."""
        answers = self._answers(torch.as_tensor(t).double(), torch.as_tensor(x), True, _keys(std, derivatives))
        return {key: value.numpy() for key, value in answers.items()}

    def _ask(self, t: Any, x: Any, what: tuple[str, ...], grid: bool = False) -> dict[str, Any]:
        torch_out = isinstance(t, Tensor) or isinstance(x, Tensor)
        times, points, by_row, shape = query_points(t, x, self.surrogate.description, grid)
        result = self._answers(times, points, by_row, what)
        graph = any(isinstance(one, Tensor) and one.requires_grad for one in (t, x, self.estimate.mean))
        if graph and "mean" in result and torch.is_grad_enabled():
            torch_out = True
            result["mean"] = with_gradient(self, result["mean"], t, x, times, points, by_row)
        result = {key: value.reshape(*shape, *value.shape[1 if by_row else 2 :]) for key, value in result.items()}
        return result if torch_out else {key: value.numpy() for key, value in result.items()}

    def _answers(self, times: Tensor, points: Tensor, by_row: bool, what: tuple[str, ...]) -> dict[str, Tensor]:
        """Answers (R, ...) of rows or (T, N, ...) of frames, after checks; warns of divergence."""
        outside, diverged, self.diverged = self._check(times, points), self.diverged, math.inf
        with arithmetic_as_user_error():
            result = self._collected(times, points, by_row, what)
        if "std" in result and self.estimate.residual is None:
            far = result["std"].hypot(self.surrogate.normalisation.scale.double().flatten())
            result["std"] = torch.where(outside[:, None], far, result["std"])
        warn_diverged(self.diverged)
        self.diverged = min(diverged, self.diverged)
        return result

    @torch.no_grad()
    def _collected(self, times: Tensor, points: Tensor, by_row: bool, what: tuple[str, ...]) -> dict[str, Tensor]:
        """Answers block by block, so that memory beyond the result does not grow with the number of points."""
        result: dict[str, Tensor] = {}
        for place, part in (self._by_row if by_row else self._by_frame)(times, points, what):
            for key, value in part.items():
                if key not in result:
                    sizes = (len(points),) if by_row else (len(times), len(points))
                    result[key] = value.new_empty((*sizes, *value.shape[len(sizes) :]))
                result[key][place] = value
        return result

    def _check(self, times: Tensor, points: Tensor) -> Tensor:
        """Which points (N,) lie outside of training, with a warning. Raises UserError for infinite or far ones."""
        outside = np.concatenate([self.surrogate.extent.outside(block) for block in points.split(_POINTS_PER_BLOCK)])
        if not bool(torch.isfinite(times).all() & torch.isfinite(points).all()):
            raise UserError("a query has times or coordinates that are not finite; remove those rows")
        self.surrogate.extent.check_places(points)
        self.surrogate.extent.require_reach(times.numpy(), *self.observed)
        self.surrogate.extent.warn_outside(int(outside.sum()), len(points))
        self.surrogate.extent.warn_beyond(self.surrogate.extent.beyond(times.numpy(), *self.observed).sum(), len(times))
        return torch.as_tensor(outside)

    def _by_row(self, times: Tensor, x: Tensor, what: tuple[str, ...]) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        """Blocks of rows, sorted by time so that each needs few states, and the answers (B, ...) of each."""
        for block in torch.argsort(times, stable=True).split(_POINTS_PER_BLOCK):
            states, which = self.states(times[block])
            yield block, self._block(times[block], states, which, x[block].double(), what)

    def _by_frame(self, times: Tensor, x: Tensor, what: tuple[str, ...]) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        """Blocks of times and points, and the answers (T, N, ...) of each."""
        decoder = self.surrogate.decoder
        dtype = next(decoder.parameters()).dtype
        for chosen in torch.argsort(times, stable=True).split(_POINTS_PER_BLOCK):
            states, which = self.states(times[chosen])
            length = decoder.together(x, max(1, _POINTS_PER_BLOCK // len(chosen)))
            for start in range(0, len(x), length):
                points = x[start : start + length].double()
                if what == ("mean",) and self.estimate.residual is None:
                    # All times at once: a decoder with a shared trunk evaluates each point once.
                    with torch.no_grad():
                        codes = states[which, : self.surrogate.code_size].to(dtype)
                        mean = decoder(points.to(dtype), codes).double()
                    answers = {"mean": self.surrogate.normalisation.invert(mean)}
                else:
                    rows = which.repeat_interleave(len(points))
                    again = times[chosen].repeat_interleave(len(points))
                    answers = self._block(again, states, rows, points.repeat(len(chosen), 1), what)
                    answers = {key: v.unflatten(0, (len(chosen), len(points))) for key, v in answers.items()}
                yield (chosen, slice(start, start + len(points))), answers

    def states(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """States (D, n) at the distinct times, cached for the last call, and the index of each of the times (R,) among
        them."""
        distinct, which = torch.unique(times, return_inverse=True)
        if self._moved is None or not torch.equal(self._moved[0], distinct):
            self._moved = distinct, self.path.at(self.surrogate.scale.internal(distinct))
        states = self._moved[1]
        size, prior = self.surrogate.code_size, self.surrogate.prior
        usual = prior.variances[:size].sum().sqrt()
        known = torch.linalg.vector_norm(self.estimate.mean[0, :, :size] - prior.mean[:size], dim=1)
        away = torch.linalg.vector_norm(states[:, :size] - prior.mean[:size], dim=1)
        off = ~(away <= DIVERGED * torch.maximum(usual, known.nan_to_num(0.0).max()))
        if off.any():
            self.diverged = min(self.diverged, float(distinct[off].min()))
        return states, which

    def _block(self, times: Tensor, states: Tensor, which: Tensor, x: Tensor, what: tuple[str, ...]
               ) -> dict[str, Tensor]:
        """Answers (R, ...) for rows of one point and one time each, with indices `which` (R,) of their states in (D,
        n)."""
        model = self.surrogate
        decoder, size = model.decoder, model.code_size
        dtype = next(decoder.parameters()).dtype
        state = states[which]
        scale = model.normalisation.scale.double()
        one_frame = len(states) == 1
        code = state[: 1 if one_frame else None, :size].to(dtype)
        points = x.to(dtype).unsqueeze(0 if one_frame else 1)  # else every row is a frame of one point
        result: dict[str, Tensor] = {}
        jacobian: Tensor | None = None
        with torch.no_grad():
            if decoder.affine and self.estimate.members is None:
                offset, basis = decoder.basis(x.to(dtype))
                jacobian = basis.double()
                mean = offset.double() + torch.einsum("rcz,rz->rc", jacobian, state[:, :size])
            elif decoder.affine:
                mean = decoder(points, code.double()).flatten(0, 1).double()
            else:
                mean = decoder(points, code).flatten(0, 1).double()
                if "std" in what or "dt" in what:
                    jacobian = decoder.linearise(points, code)[1].flatten(0, 1).double()
            variance = self._variance(times, states, which, jacobian, x.to(dtype)) if "std" in what else None
            if variance is not None:
                variance = variance + model.unresolved(states, self.estimate)[which]
            if "mean" in what or "std" in what:
                result = self._of_observations(times, x, mean, variance, what)
        if self.estimate.residual is not None and ("dx" in what or "dt" in what):
            return result | self._slopes(times, states, which, x, what)
        with torch.no_grad():
            if "dt" in what:
                flow = self.path.rate if model.dynamics.integrator.method == "map" else model.field  # between steps
                rate = flow(model.scale.internal(torch.unique(times)), states)[which, :size]
                slope = decoded_change(decoder, x.to(dtype)[:, None], rate[:, None])[:, 0, 0] if jacobian is None else (
                    torch.einsum("rcz,rz->rc", jacobian, rate))
                result["dt"] = slope * scale / model.scale.unit
            if "dx" in what:
                result["dx"] = decoder.slopes(points, code).flatten(0, 1).double() * scale[:, None]
        return result

    def _of_observations(
        self, times: Tensor, x: Tensor, mean: Tensor, variance: Tensor | None, what: tuple[str, ...]
    ) -> dict[str, Tensor]:
        """`mean` and `std` (R, C) of observations, data units, from mean and variance of decoded values."""
        model = self.surrogate
        inner, std = model.scale.internal(times), None
        if variance is not None:
            std = model.prior.std(variance, x, inner, self.estimate) * model.widening(self.estimate)[0]
        if self.estimate.residual is not None and (conditioned := self.estimate.residual[0]) is not None:
            mean, std = conditioned.combined(mean, std, inner, x)
        result = {"mean": model.normalisation.invert(mean)} if "mean" in what else {}
        if std is not None:
            result["std"] = std * model.normalisation.scale.double()
        return result

    def _slopes(self, times: Tensor, states: Tensor, which: Tensor, x: Tensor, what: tuple[str, ...]
                ) -> dict[str, Tensor]:
        """Derivatives `dx` and `dt` of rows as in `_block`, by central differences, with a residual field."""

        def mean(t: Tensor, at: Tensor, rows: Tensor, points: Tensor) -> Tensor:
            return self._block(t, at, rows, points, ("mean",))["mean"]

        result = {}
        if "dt" in what:
            step = _STEP * self.surrogate.scale.unit
            later, earlier = (mean(t, *self.states(t), x) for t in (times + step, times - step))
            result["dt"] = (later - earlier) / (2 * step)
        if "dx" in what:
            slopes = []
            for axis in range(x.shape[-1]):
                move = torch.zeros(x.shape[-1], dtype=torch.float64)
                move[axis] = _STEP * self.surrogate.extent.width(axis)
                across = mean(times, states, which, x + move) - mean(times, states, which, x - move)
                slopes.append(across / (2 * move[axis]))
            result["dx"] = torch.stack(slopes, -1)
        return result

    def _variance(
        self, times: Tensor, states: Tensor | None, which: Tensor, jacobian: Tensor | None, x: Tensor
    ) -> Tensor:
        """Variances (R, C), normalised units, of decoded values in rows as in `_block`; with `jacobian` (R, C, Z), or x
        (R, d) for ensembles."""
        size, at = self.surrogate.code_size, states
        inner = self.surrogate.scale.internal(torch.unique(times))
        if len(inner) > _FEW_TIMES:  # covariances change slowly: taken at the nearest of a few times
            nodes = cell_ends(inner)
            if len(nodes) > EXACT_TIMES:
                nodes = inner[torch.linspace(0, len(inner) - 1, EXACT_TIMES).round().long()]
            if len(nodes) < len(inner):
                above = torch.searchsorted(nodes, inner).clamp(1, len(nodes) - 1)
                nearest = torch.where(nodes[above] - inner < inner - nodes[above - 1], above, above - 1)
                inner, which, at = nodes, nearest[which], None
        covariances = self.covariances(inner, at)
        variance = torch.empty(len(x), self.surrogate.decoder.channels, dtype=torch.float64)
        for k in which.unique().tolist():
            rows = which == k
            if jacobian is None:
                variance[rows] = spread_of(self.surrogate.decoder, x[rows][None], covariances[k][..., :size])[0]
                continue
            cov = covariances[k][0, :size, :size]
            variance[rows] = torch.einsum("rcz,zy,rcy->rc", jacobian[rows], cov, jacobian[rows])
        return torch.where(torch.isfinite(variance), variance, torch.inf)  # of unstable dynamics at long leads

    def covariances(self, inner: Tensor, states: Tensor | None) -> list[Tensor]:
        """Covariances at internal times (T,), of the states (T, n) there if known, or deviations of ensemble members;
        cached for the last times, as many blocks share them."""
        if self._known is None or not torch.equal(self._known[0], inner):
            if self.estimate.members is not None:
                self._known = inner, list(deviations(self.path.dynamics, self.estimate, inner[None]))
                return self._known[1]
            mean, model = self.path.mean(inner) if states is None else states[None], self.surrogate
            self._known = inner, [model.prior.bounded(one, mean[:, k], model.code_size)
                                  for k, one in enumerate(self.path.covariance(inner, mean))]
        return self._known[1]


def _keys(std: bool, derivatives: bool) -> tuple[str, ...]:
    """Keys of an answer."""
    return ("mean", *(("std",) if std else ()), *(("dx", "dt") if derivatives else ()))
