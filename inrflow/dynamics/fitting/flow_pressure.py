"""Pressures of flows between walls: a third channel that follows from velocities, for laws found on modes of flows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch

from inrflow.domains import Flows
from inrflow.domains.flows import FlowHarmonics, Pressure
from inrflow.dynamics.laws.flow import TRANSPORT, VISCOSITY, FlowLibrary
from inrflow.dynamics.laws.law import Law, max_norm
from inrflow.dynamics.laws.setting import Data, encode, evenly_spaced
from inrflow.encoding.harmonic_codes import fit_codes
from inrflow.errors import UserError

_UNEXPLAINED = 3e-2  # most of the variance of a pressure
_FIXED = 1e-9  # variance at a point, over the mean of all, where a pressure is held at zero
_POINTS = 4  # least points for each mode of a pressure, and states for each that is corrected
_CORRECTED, _BETTER = (-1, 0, 8, 24), 0.5  # velocities whose pressures are corrected, besides steady ones (-1: none);
# ratio of errors of held-out trajectories that justifies more


def flow_law(search: Callable[[], Law], t: np.ndarray, x: np.ndarray, u: np.ndarray, velocities: Sequence[int],
             scale: np.ndarray, log: Callable[[str], None]) -> Law | None:
    """Law of velocities on modes of flows, as `search` finds it, with the pressure that follows from them; None if no
    law is found, or if the third channel is no such pressure. scale (3,): divisors of the channels."""
    with suppress(UserError):
        if (found := with_pressure(search(), t, x, u, velocities, float(scale[3 - sum(velocities)]))) is not None:
            log(f"the third channel is the pressure of the velocities: {found[1]:.1e} of its variance unexplained")
            return found[0]
    return None


def with_pressure(law: Law, t: np.ndarray, x: np.ndarray, u: np.ndarray, velocities: Sequence[int], scale: float
                  ) -> tuple[Law, float] | None:
    """Law of a flow whose pressure is the third channel of fields u (S, T, N, 3), and the unexplained share of its
    variance; None if much is unexplained.

    law: of the channels `velocities`; x (S, N, 2): points, shared by all; scale: divisor of the pressure. It is a
    density times the pressure that the law implies, and corrections that are linear in the leading velocities, as
    elements do not resolve all stresses at walls, if these explain trajectories that are held out; likewise a constant
    of each trajectory.
    """
    flows, harmonics = law.domain, law.codes.harmonics
    assert isinstance(flows, Flows) and isinstance(harmonics, FlowHarmonics)
    (channel,) = set(range(u.shape[-1])) - set(velocities)
    few = Data.of(t, x, u).subsampled
    few = few.take(evenly_spaced(len(few.u), harmonics.count))
    own = few.u[..., channel]
    changes = np.nanvar(own, (0, 1))
    zero = tuple(x[0, changes.argmin()].tolist()) if np.nanmin(changes) < _FIXED * np.nanmean(changes) else ()
    theta = dict(zip(law.terms, law.theta[:, 0], strict=True))
    viscosity = -theta.get(VISCOSITY, 0.0) / (theta.get(TRANSPORT, 0.0) or -1.0)
    modes = min(Pressure._field_defaults["modes"], min(u.shape[2], len(flows.region.nodes)) // _POINTS)
    pressure = Pressure(channel, scale, viscosity, modes, zero)
    wide = flows.with_pressure(pressure).harmonics(harmonics.count + pressure.modes + len(zero) // 2)
    codes = torch.zeros(*own.shape[:2], wide.count, dtype=torch.float64)
    velocity = torch.tensor(law.codes.encode(x[0], few.u[..., list(velocities)])[0])[..., 0, :]
    codes[..., : wide.free] = velocity[..., : wide.free]
    codes[..., wide.count - wide.steady :][..., : velocity.shape[-1] - wide.free] = velocity[..., wide.free :]
    flat = codes.flatten(0, 1)
    table = torch.tensor(wide.values(x[0]).reshape(len(x[0]), 3, -1)[:, channel])
    physical = ((flat + FlowLibrary([TRANSPORT], wide).transport(flat, pressure=True)) @ table.T).numpy()
    every = own.reshape(len(flat), -1)
    free, steady = velocity[..., : wide.free].flatten(0, 1).numpy(), velocity[..., wide.free :].flatten(0, 1).numpy()
    held, share, design = np.repeat(np.arange(len(own)), own.shape[1]) % 2 == 1, np.inf, free[:, :0]
    for count in _CORRECTED[: 1 + sum(count < len(flat) // _POINTS for count in _CORRECTED[1:])]:
        trial = np.concatenate([free[:, :count], steady], 1) if count >= 0 else free[:, :0]
        left = float(np.nanvar(_left(trial, physical, every, ~held)[0][held]) / (np.nanvar(every) + 1e-300))
        share, design = (left, trial) if left < _BETTER * share else (share, design)
    if not share < _UNEXPLAINED:
        return None
    missed, density, fields = _left(design, physical, every, np.ones(len(flat), bool))
    apart = missed.reshape(len(own), -1) - np.nanmean(missed.reshape(len(own), -1), 1, keepdims=True)
    level = not zero and bool(np.nanmean(apart**2) < _BETTER * np.nanmean(missed**2))
    domain = flows.with_pressure(pressure._replace(viscosity=density * viscosity, level=level, linear=(
        scale * flows.smoothed(x[0], fields.T).T)))
    prior = fit_codes(domain.harmonics(wide.count + level), few.x, few.u)
    terms = law.terms if TRANSPORT in law.terms else (*law.terms, TRANSPORT)
    values = np.zeros((len(terms), 1))
    values[terms.index(TRANSPORT)] = density
    rows = ((0, len(terms) - len(law.terms)), (0, 0))
    return replace(law, domain=domain, terms=terms, theta=np.pad(law.theta, rows), std=np.pad(law.std, rows),
                   codes=prior, by_context=np.pad(law.by_context, ((0, 0), *rows)), values=values,
                   largest=max_norm(encode(prior, few)[0])), share


def _left(design: np.ndarray, part: np.ndarray, values: np.ndarray, rows: np.ndarray
          ) -> tuple[np.ndarray, float, np.ndarray]:
    """Residuals of pressures (B, N), the coefficient of a part (B, N) of these, and fields (J, N) of the columns of the
    design (B, J), from least squares in some of the rows; a constant is left."""
    seen = rows & np.isfinite(values).all(1)
    inverse = np.linalg.pinv(design[seen])
    alone, target = ((one - design @ (inverse @ one[seen]))[seen] for one in (part, values))
    alone = alone - alone.mean()
    density = float((alone * target).sum() / (np.square(alone).sum() + 1e-300))
    fields = inverse @ (values - density * part)[seen]
    return values - density * part - design @ fields, density, fields
