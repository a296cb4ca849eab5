"""A solution: one assimilated trajectory, a field u(t, x) that can be asked for values, derivatives and uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inrflow.assimilation import StateEstimate
from inrflow.errors import UserError

if TYPE_CHECKING:
    from inrflow.surrogate import Surrogate

_POINTS_PER_BLOCK = 4096
_EXACT_TIMES = 512
_DENSE_STEP = 0.125


class StatePath:
    """States of S trajectories as functions of internal time, through the states at the observed frames.

    Between two observed frames the path is the flow from the earlier one plus a linear share of what that flow misses
    at the later one, so it is continuous and passes through both; after the last frame it is the free forecast, before
    the first the flow backwards.
    """

    def __init__(self, surrogate: Surrogate, estimate: StateEstimate) -> None:
        self.dynamics, self.estimate = surrogate.dynamics, estimate

    def mean(self, times: Tensor, check: bool = True) -> Tensor:
        """States (S, T, n) at increasing times (T,) shared by all trajectories."""
        knots = self.estimate.t
        result = torch.empty(len(knots), len(times), self.estimate.mean.shape[-1], dtype=torch.float64)
        last = _last_knot(knots)
        for s, group in _equal_rows(knots):
            row = knots[s][: last[s] + 1]
            segment = torch.searchsorted(row, times, right=True) - 1
            for k in segment.unique().tolist():
                inside = (segment == k).nonzero()[:, 0]
                start = max(k, 0)
                asked = times[inside] if k >= 0 else times[inside].flip(0)
                extra = [row[k + 1 : k + 2]] if 0 <= k < len(row) - 1 else []
                grid = torch.cat([row[start : start + 1], asked, *extra])
                states = self.dynamics.flow(self.estimate.mean[group, start], grid.expand(len(group), -1), check)
                path = states[:, 1 : 1 + len(asked)]
                if extra:
                    missed = self.estimate.mean[group, k + 1] - states[:, -1]
                    share = (asked - row[k]) / (row[k + 1] - row[k])
                    path = path + share[None, :, None] * missed[:, None]
                result[group[:, None], inside[None]] = path if k >= 0 else path.flip(1)
        return result

    def covariance(self, times: Tensor, mean: Tensor) -> list[Tensor]:
        """Covariances, one tensor (S or 1, n, n) for each of the increasing times (T,); `mean` as from `mean`."""
        assert self.estimate.covariance is not None
        knots = self.estimate.t
        row = knots[0][: int(_last_knot(knots)[0]) + 1]
        result: list[Tensor] = []
        previous: tuple[Tensor, Tensor, Tensor] | None = None
        for i, time in enumerate(times):
            k = max(int(torch.searchsorted(row, time, right=True)) - 1, 0)
            begin, cov, state = row[k], self.estimate.covariance[k], self.estimate.mean[:, k]
            if previous is not None and previous[0] >= begin and time >= begin:
                begin, cov, state = previous
            if time == begin:
                moved = cov
            else:
                ends = torch.stack([begin, time])[:, None].expand(2, len(mean))
                moved, _ = self.dynamics.propagate(cov, state, mean[:, i], ends[0], ends[1])
                if k + 1 < len(row):  # between two observed frames both sides inform
                    share = float((time - row[k]) / (row[k + 1] - row[k]))
                    bridge = (1 - share) * self.estimate.covariance[k] + share * self.estimate.covariance[k + 1]
                    moved = torch.where(
                        (moved.diagonal(dim1=1, dim2=2).sum(1) < bridge.diagonal(dim1=1, dim2=2).sum(1))[:, None, None],
                        moved,
                        bridge,
                    )
            result.append(moved)
            previous = (time, moved, mean[:, i])
        return result


def _last_knot(knots: Tensor) -> Tensor:
    return torch.isfinite(knots).sum(1) - 1


def _equal_rows(knots: Tensor) -> list[tuple[int, Tensor]]:
    """Groups of trajectories with the same times: a representative and all members."""
    if bool((knots == knots[:1]).all()):
        return [(0, torch.arange(len(knots)))]
    return [(s, torch.tensor([s])) for s in range(len(knots))]


class Solution:
    """u(t, x) of one trajectory. Made by `Surrogate.assimilate`; numpy in, numpy out, torch in, torch out.

    Calling it and all its methods take times and points as
        t (R,) and x (R, d): R single points, values (R, C);
        t scalar and x (N, d): one frame, values (N, C);
        t (T,) and x (N, d) with T different from N: all points at all times, values (T, N, C) (as `frames` does).
    Units are those of the training data.
    """

    def __init__(self, surrogate: Surrogate, estimate: StateEstimate, as_torch: bool = False) -> None:
        self.surrogate, self.estimate, self.as_torch = surrogate, estimate, as_torch
        self.path = StatePath(surrogate, estimate)

    def __call__(self, t: Any, x: Any) -> Any:
        """Values."""
        return self._ask(t, x, ("mean",))["mean"]

    def frames(self, t: Any, x: Any) -> Any:
        """Values (T, N, C) at all points x (N, d) at all times t (T,)."""
        return self._ask(t, x, ("mean",), grid=True)["mean"]

    @property
    def context(self) -> tuple[Tensor, Tensor]:
        """The context (P,) of the trajectory and its covariance (P, P); P = 0 for a surrogate without contexts."""
        n = self.surrogate.field.shape.state_size
        assert self.estimate.covariance is not None
        return self.estimate.mean[0, -1, n:], self.estimate.covariance[-1][0, n:, n:]

    @property
    def parameters(self) -> dict[str, tuple[float, float]]:
        """Known parameters of the system as read off its context: name -> (estimate, standard deviation).

        Empty for a surrogate that was not trained with parameters that vary.
        """
        known = self.surrogate.contexts
        if known is None or known.map is None:
            return {}
        mean, covariance = known.map.parameters(*self.context)
        spread = covariance.diagonal().clamp(min=0).sqrt()
        return {name: (float(m), float(s)) for name, m, s in zip(known.names, mean, spread, strict=True)}

    def std(self, t: Any, x: Any) -> Any:
        """Standard deviation of an observation there: uncertainty of the state, of the forecast, and noise."""
        return self._ask(t, x, ("std",))["std"]

    def derivatives(self, t: Any, x: Any) -> dict[str, Any]:
        """`dx`: du/dx (..., C, d), and `dt`: du/dt (..., C)."""
        return self._ask(t, x, ("dx", "dt"))

    def query(self, t: Any, x: Any, std: bool = False, derivatives: bool = False) -> dict[str, Any]:
        """`mean` and, if asked, `std`, `dx`, `dt` in one pass."""
        return self._ask(t, x, ("mean", *(("std",) if std else ()), *(("dx", "dt") if derivatives else ())))

    def _ask(self, t: Any, x: Any, what: tuple[str, ...], grid: bool = False) -> dict[str, Any]:
        torch_out = isinstance(t, Tensor) or isinstance(x, Tensor)
        times, points = torch.as_tensor(np.asarray(t)) if not isinstance(t, Tensor) else t.detach(), x
        points = points.detach() if isinstance(points, Tensor) else torch.as_tensor(np.asarray(points))
        times, points = times.double(), points.double()
        d = len(self.surrogate.description.coordinates)
        if points.dim() == 1 and d == 1 and times.dim() <= 1 and len(points) != 1:
            points = points[:, None]
        if points.dim() < 1 or points.shape[-1] != d or points.dim() > 2 or times.dim() > 1:
            raise UserError(
                f"a query has t of shape {tuple(times.shape)} and x of shape {tuple(points.shape)}; expected t (R,) "
                f"and x (R, {d}), or t and x of one frame or of a grid of times and points"
            )
        if not bool(torch.isfinite(times).all()) or not bool(torch.isfinite(points).all()):
            raise UserError("a query has times or coordinates that are not finite; remove those rows")
        single = points.dim() == 1
        if single:
            points = points[None]
        if times.dim() == 0 and not grid:
            shape: tuple[int, ...] = (len(points),)
            times, rows = times.expand(len(points)), points
        elif not grid and len(times) == len(points):
            shape, rows = (len(points),), points
        else:
            times = times.reshape(-1)
            shape = (len(times), len(points))
            rows = points.repeat(len(times), 1)
            times = times.repeat_interleave(len(points))
        if not len(rows):
            raise UserError("a query has no points; give at least one")
        self.surrogate.warn_outside(self.surrogate.outside(points))
        blocks = [self._block(times[i], rows[i], what) for i in _blocks(times)] if len(times) else []
        order = torch.cat(_blocks(times)).argsort()
        result = {}
        for key in what:
            value = torch.cat([b[key] for b in blocks])[order]
            value = value.reshape(*shape, *value.shape[1:])
            value = value[0] if single and len(shape) == 1 and len(value) == 1 else value
            result[key] = value if torch_out else value.numpy()
        return result

    def states(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """States (R, n) and which of the distinct times (R,) each of the times (R,) is."""
        distinct, which = torch.unique(times, return_inverse=True)
        inner = self.surrogate.scale.internal(distinct)
        if len(inner) <= _EXACT_TIMES:
            return self.path.mean(inner)[0][which], which
        # Very many times: cubic Hermite interpolation between states on a fine grid.
        cells = max(1, int(torch.ceil((inner[-1] - inner[0]) / _DENSE_STEP)))
        nodes = torch.linspace(float(inner[0]), float(inner[-1]), min(cells, 20_000) + 1, dtype=torch.float64)
        nodes = torch.unique(torch.cat([nodes, self.estimate.t[0][torch.isfinite(self.estimate.t[0])]]))
        states = self.path.mean(nodes)[0]
        with torch.no_grad():
            slopes = self.surrogate.field(nodes, states)
        cell = (torch.searchsorted(nodes, inner, right=True) - 1).clamp(0, len(nodes) - 2)
        width = (nodes[cell + 1] - nodes[cell])[:, None]
        s = (inner - nodes[cell])[:, None] / width
        value = (
            (1 + 2 * s) * (1 - s) ** 2 * states[cell]
            + s * (1 - s) ** 2 * width * slopes[cell]
            + s**2 * (3 - 2 * s) * states[cell + 1]
            + s**2 * (s - 1) * width * slopes[cell + 1]
        )
        return value[which], which

    def _block(self, times: Tensor, x: Tensor, what: tuple[str, ...]) -> dict[str, Tensor]:
        """One block of rows; each row is its own point and time."""
        model = self.surrogate
        decoder, size = model.decoder, model.code_size
        dtype = next(decoder.parameters()).dtype
        state, which = self.states(times)
        scale = model.normalisation.scale.double()
        one_frame = bool((which == which[0]).all())
        code = state[: 1 if one_frame else None, :size].to(dtype)
        points = x.to(dtype).unsqueeze(0 if one_frame else 1)  # else every row is a frame of one point
        result: dict[str, Tensor] = {}
        jacobian: Tensor | None = None
        with torch.no_grad():
            if decoder.affine:
                offset, basis = decoder.basis(x.to(dtype))
                jacobian = basis.double()
                mean = offset.double() + torch.einsum("rcz,rz->rc", jacobian, state[:, :size])
            else:
                mean = decoder(points, code).flatten(0, 1).double()
                if "std" in what or "dt" in what:
                    jacobian = decoder.linearise(points, code)[1].flatten(0, 1).double()
            if "mean" in what:
                result["mean"] = model.normalisation.invert(mean)
            if "dt" in what:
                assert jacobian is not None
                rate = model.field(model.scale.internal(times), state)[:, :size]
                result["dt"] = torch.einsum("rcz,rz->rc", jacobian, rate) * scale / model.scale.unit
            if "std" in what:
                assert jacobian is not None
                result["std"] = self._std(times, which, state, jacobian, x) * scale
            if "dx" in what:
                result["dx"] = decoder.slopes(points, code).flatten(0, 1).double() * scale[:, None]
        return result

    def _std(self, times: Tensor, which: Tensor, state: Tensor, jacobian: Tensor, x: Tensor) -> Tensor:
        size = self.surrogate.code_size
        inner = self.surrogate.scale.internal(torch.unique(times))
        count = min(_EXACT_TIMES, 2 + int((inner[-1] - inner[0]) / _DENSE_STEP))
        if len(inner) > max(count, 64):  # covariances change slowly: the nearest of a few times serves
            nodes = torch.linspace(float(inner[0]), float(inner[-1]), count, dtype=torch.float64)
            nearest = ((inner - inner[0]) / (inner[-1] - inner[0]) * (count - 1)).round().long()
            inner, which = nodes, nearest[which]
        covariances = self.path.covariance(inner, self.path.mean(inner))
        variance = torch.empty(jacobian.shape[:2], dtype=torch.float64)
        for k in which.unique().tolist():
            rows = which == k
            cov = covariances[k][0, :size, :size]
            variance[rows] = torch.einsum("rcz,zy,rcy->rc", jacobian[rows], cov, jacobian[rows])
        widening = self.surrogate.widening(self.estimate.mean[0, -1])
        return self.surrogate.prior.std(variance, self.estimate.factor[0], x) * widening


def _blocks(times: Tensor) -> list[Tensor]:
    """Rows in blocks of bounded size, sorted by time so that a block needs few states."""
    return list(torch.argsort(times, stable=True).split(_POINTS_PER_BLOCK))
