"""Maps from step to step as terms, and linear dynamics with a continuous flow between steps.

A generator moves states between two steps, and the residual of its flow at three steps of the map is added as a cubic:
maps need not be the flow of any linear field (negative or vanishing eigenvalues). Backwards in time a second map is
used, since the inverse of the first amplifies what it damps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from inrflow.dynamics.fields.base import FieldTerm, register_term
from inrflow.dynamics.states import SeasonalMean
from inrflow.numerics.matrix_functions import flow

_FEW_STEPS = 100
_TIGHT, _HALVINGS = 1e-7, 8  # tolerance of whole steps, in steps; number of halvings of stored flows


class MapTerm(FieldTerm):
    """States moved by an affine map from step to step (internal time); `path` evaluates them at any time."""

    degree = 1

    def __init__(self, states: int, step: float) -> None:
        super().__init__()
        self.step = step
        self.matrix = nn.Parameter(torch.zeros(states, states))
        self.bias = nn.Parameter(torch.zeros(states))
        self._kept: tuple[Any, dict[Any, Any]] | None = None

    def path(self, start: Tensor, times: Tensor) -> Tensor:
        """States (S, T, n) at times (S, T), the first of which are the times of the states `start` (S, n)."""
        raise NotImplementedError

    def affine_map(self) -> Tensor:
        """Map of one step on [1, s], float64, without gradients."""
        step = torch.zeros(len(self.bias) + 1, len(self.bias) + 1, dtype=torch.float64)
        step[0, 0], step[1:, 0], step[1:, 1:] = 1.0, self.bias.detach(), self.matrix.detach()
        return step

    def _cache(self) -> dict[Any, Any]:
        """Dictionary of cached values, cleared when parameters or buffers change."""
        values = [*self.parameters(), *self.buffers()]
        version = [one._version for one in values], self.bias.dtype, self.bias.data_ptr()
        if self._kept is None or self._kept[0] != version:
            self._kept = version, {}
        return self._kept[1]


@register_term("step_map")
class StepMapTerm(MapTerm):
    """ds/dt of states moved by a map from step to step around a mean, with a generator in between.

    Args:
        size: n. step: internal time. season, season_harmonics: period (internal time) and harmonics of the mean.
    """

    back: Tensor
    generators: Tensor
    mean: Tensor
    between: Tensor

    def __init__(self, size: int, step: float, season: float = 0.0, season_harmonics: int = 0) -> None:
        super().__init__(size, step)
        self.requires_grad_(False)  # fitted in closed form, not by descent
        self.size, self.season, self.season_harmonics = size, season, season_harmonics
        self.register_buffer("back", torch.zeros(size + 1, size + 1))
        self.register_buffer("generators", torch.zeros(2, size + 1, size + 1))
        self.register_buffer("mean", torch.zeros(1 + 2 * season_harmonics, size))
        self.register_buffer("between", torch.zeros(size))

    def set(self, maps: Tensor, generators: Tensor, mean: Tensor, between: Tensor | None = None) -> None:
        """Set maps and generators (2, n + 1, n + 1) on [1, s], forwards and backwards, coefficients of the mean, and
        the variance (n,) added half way between steps."""
        with torch.no_grad():
            self.matrix.copy_(maps[0, 1:, 1:])
            self.bias.copy_(maps[0, 1:, 0])
            self.back.copy_(maps[1])
            self.generators.copy_(generators)
            self.mean.copy_(mean)
            if between is not None:
                self.between.copy_(between)

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        mean = SeasonalMean(self.mean, self.season)
        around = nn.functional.pad(z - mean(t), (1, 0), value=1.0)
        return (around @ self._start().T)[..., 1:].to(z) + mean.rate()(t).to(z)

    def jacobian(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self._start()[1:, 1:].expand(len(z), self.size, self.size)

    def path(self, start: Tensor, times: Tensor) -> Tensor:
        mean = SeasonalMean(self.mean, self.season)
        begun = nn.functional.pad(start.double() - mean(times[:, 0]), (1, 0), value=1.0)
        return (self._carried(begun, times - times[:, :1])[..., 1:] + mean(times)).to(start)

    def flow_over(self, gaps: Tensor) -> Tensor:
        """Linear maps (S, n, n) of the flow over times (S,); the identity over NaN, the padding of shorter
        trajectories."""
        gaps = gaps.nan_to_num(nan=0.0)
        kept, eye = self._cache(), torch.eye(self.size, dtype=torch.float64)
        if len(kept) > _FEW_STEPS:
            kept.clear()
        for gap in gaps.tolist():
            if ("over", gap) not in kept:
                moved = self._carried(nn.functional.pad(eye, (1, 0)), gap * torch.ones_like(eye[:, :1]))
                kept["over", gap] = moved[:, 0, 1:].T.detach()
        return torch.stack([kept["over", gap] for gap in gaps.tolist()])

    def interpolation_variance(self, gaps: Tensor) -> Tensor:
        """Interpolation variance (S, n) of states after times (S,): zero at whole steps."""
        share = torch.remainder(gaps.nan_to_num(nan=0.0).double().abs() / self.step, 1.0)
        return 4 * (share * (1 - share))[:, None] * self.between.double()

    def _carried(self, states: Tensor, gaps: Tensor) -> Tensor:
        """States [1, s] (S, T, n + 1) after times (S, T), from initial states (S, n + 1)."""
        result = states[:, None].repeat(1, gaps.shape[1], 1)
        for way, sign in enumerate((1, -1)):
            row, column = (sign * gaps > _TIGHT * self.step).nonzero(as_tuple=True)
            if not len(row):
                continue
            steps = sign * gaps[row, column].double() / self.step
            whole = (steps + _TIGHT).floor()
            inside = steps - whole > _TIGHT
            anchor = torch.where(inside, (whole - 1).clamp(min=0), whole).long()  # start of the cubic, one step before
            step, flows, missed = self._operators(way)
            for number, now in stepped(step, states, anchor):
                here = anchor == number
                moved, past = now[row[here]], (steps[here] - number)
                if bool(inside[here].any()):
                    moved = _between(moved, past, self.generators[way].double() * self.step, flows, missed)
                result = result.index_put((row[here], column[here]), moved)
        return result

    def _operators(self, way: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """For the map forwards (0) or backwards (1): the map of a step, flows of the generator over 2, 1, 1/2, ..
        steps, and the residuals of its flow at one, two and three steps."""
        kept = self._cache()
        if way not in kept:
            with torch.no_grad():
                step = self.back.double() if way else self.affine_map()
                flows = [torch.linalg.matrix_exp(self.generators[way].double() * self.step * 2.0**-_HALVINGS)]
                for _ in range(_HALVINGS + 1):
                    flows.append(flows[-1] @ flows[-1])
                missed = [torch.linalg.matrix_power(step, j) - torch.linalg.matrix_power(flows[-2], j)
                          for j in (1, 2, 3)]
                kept[way] = step, flows[::-1], missed
        return kept[way]

    def _start(self) -> Tensor:
        """Generator of the flow at the beginning of a forward step, per internal time."""
        one, two, three = self._operators(0)[2]
        return self.generators[0] + ((3 * one - 1.5 * two + three / 3) / self.step).to(self.generators)


def stepped(step: Tensor, states: Tensor, numbers: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each distinct number of steps in increasing order, with the states (S, m) after that many maps (m, m)."""
    at = 0
    for number in torch.unique(numbers).tolist():
        if number - at <= _FEW_STEPS:
            for _ in range(number - at):
                states = states @ step.T
        else:
            states = states @ torch.linalg.matrix_power(step, number - at).T
        at = number
        yield number, states


def _between(start: Tensor, steps: Tensor, generator: Tensor, flows: list[Tensor], missed: list[Tensor]) -> Tensor:
    """States [1, s] (P, n + 1) after `steps` (P,) below 4: flow of the generator, given its flows over 2, 1, 1/2, ..
    steps, plus a cubic through its residuals `missed` at whole steps."""
    moved, rest = start, steps
    for power, one in enumerate(flows):
        length = 2.0 ** (1 - power)
        taken = rest >= length
        moved = torch.where(taken[:, None], moved @ one.T, moved)
        rest = torch.where(taken, rest - length, rest)
    moved = flow(generator, moved, rest)
    for j, one in enumerate(missed, 1):
        others = [i for i in range(4) if i != j]
        weight = torch.stack([(steps - i) / (j - i) for i in others]).prod(0)
        moved = moved + weight[:, None] * (start @ one.T)
    return moved
