"""Law: a differential equation found in data, on the harmonics of a domain; its rollouts and whether it is
integrable."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor

from inrflow.domains import Domain
from inrflow.dynamics.laws.field import LawField, joined
from inrflow.dynamics.laws.library import COEFFICIENT_HARMONICS
from inrflow.dynamics.laws.network.sine import Sine
from inrflow.dynamics.laws.regression import NODES, spline_order
from inrflow.dynamics.laws.terms import VALUE, Term, is_function
from inrflow.encoding.harmonic_codes import HarmonicCodes
from inrflow.numerics.kinetics import FUNCTION

_STEP_ERROR = 1e-5  # of the integrator over one interval, relative to the codes
MOST_STEPS = 256  # per interval; laws that need more are rejected
_ORDER, _PROBED = 4, 16  # of convergence of the integrator; shortest steps that are tried where longer ones diverge
_NONE, _LITTLE = 3.0, 1e-2  # not written: parts within these standard errors; below this share
_WRITTEN = 20  # most terms of a line: those with the largest ratios to their standard errors, if these are above 1


@dataclasses.dataclass(frozen=True)
class Law:
    """Equation dz/dt = sum_j theta_jc term_j of codes z (C, K), coefficients of C channels on K harmonics of a domain.

    theta, std (J, C): coefficients and standard errors; codes: encoder of fields, with the prior of codes; max_step:
    largest step of the integrator; largest: largest norm of codes in the data. by_context (P, J, C): change of theta
    per unit of each context number; contexts (E, P): of systems; contexts_given: whether these are given parameters.
    shares (C,): of a network in the root mean square rate. rates: observed channels whose time derivatives are further
    channels, after these. period: of a forcing, whose cosine and sine, constant in space, are the last two channels.
    about (V, C): values about which nonlinear diffusion is linearised. values (J, C): coefficients of diagnostic
    channels, which follow from others at the same time. usual (V, C): low and high values of the data, 0 of rates.
    """

    domain: Domain
    boundary: str
    terms: tuple[Term | Sine, ...]
    theta: np.ndarray
    std: np.ndarray
    codes: HarmonicCodes
    max_step: float = math.inf
    largest: float = math.inf
    by_context: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 1, 1)))
    contexts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((1, 0)))
    contexts_given: bool = False
    shares: tuple[float, ...] = ()
    rates: tuple[int, ...] = ()
    period: float = 0.0
    about: np.ndarray | None = None
    values: np.ndarray | None = None
    usual: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 1)))

    def __post_init__(self) -> None:
        if self.period:
            object.__setattr__(self, "theta", with_phase_equations(self.terms, self.theta, self.period))
        if not len(self.by_context):
            object.__setattr__(self, "by_context", np.zeros((0, *self.theta.shape)))
        usual = np.zeros((len(self.usual), self.theta.shape[1]))  # also of rates; modes of flows are of one channel
        usual[:, : self.usual.shape[1]] = self.usual[:, : usual.shape[1]]
        object.__setattr__(self, "usual", usual)

    @property
    def count(self) -> int:
        """P, numbers of a context."""
        return len(self.by_context)

    @property
    def size(self) -> int:
        """Number of non-zero coefficients."""
        return sum(int(np.count_nonzero(one)) for one in (self.theta, self.by_context, self.values) if one is not None)

    @property
    def is_linear(self) -> bool:
        """Whether it is linear in the fields, with constant or varying coefficients."""
        return all(isinstance(term, Term) and (term.solenoidal or not term.vector) and all(
            len(product) <= 1 and not (product and is_function(product[0][1])) for product in term.needed_products())
                   for term in self.terms)

    @property
    def has_network(self) -> bool:
        """Whether hidden units of a network are among its terms."""
        return any(isinstance(term, Sine) for term in self.terms)

    def theta_at(self, context: np.ndarray) -> np.ndarray:
        """Coefficients (..., J, C) at contexts (..., P); (J, C) without contexts."""
        return self.theta + np.tensordot(context, self.by_context, 1) if self.count else self.theta

    def context_of(self, system: int | np.ndarray) -> np.ndarray:
        """Contexts (..., P) of systems; empty (0,) without contexts."""
        return self.contexts[system] if self.count else np.zeros(0)

    @property
    def functions(self) -> list[tuple[int, int]]:
        """Functions with a constant of its terms, as factors (channel, number), in the order of the terms."""
        return list(dict.fromkeys(factor for term in self.terms for product in term.products
                                  for factor in product if factor[1] <= FUNCTION))

    def with_functions(self, of: Callable[[int, int], int]) -> Law:
        """The law with the function of number `of(c, number)` in place of each function of channel c."""
        return dataclasses.replace(self, terms=tuple(
            term.with_functions(of) if isinstance(term, Term) else term for term in self.terms))

    def field(self, context: np.ndarray | None = None) -> LawField:
        """Vector field at a context (P,), by default 0: a module with `advance` and forward(t, z) of codes (..., C K),
        float64 or float32."""
        fields = self.__dict__.setdefault("_fields", {})
        context = np.zeros(self.count) if context is None else context
        key = context.tobytes()
        if key not in fields:
            other, theta = next(iter(fields.values()), None), torch.tensor(self.theta_at(context))
            about, values = (None if one is None else torch.tensor(one) for one in (self.about, self.values))
            fields[key] = other.at(theta) if other else LawField.of(
                self.terms, self.codes.harmonics, theta, about, values)
        return fields[key]

    def split(self) -> Law | None:
        """Law whose integrator is exact for linearised nonlinear diffusion; None if there is none, or it is so."""
        law = dataclasses.replace(self, about=self.usual) if self.about is None and len(self.usual) else None
        return None if law is None or law.field().shift is None else law

    def encode(self, x: np.ndarray, u: np.ndarray) -> Tensor:
        """Codes (..., C K) of fields u (..., N, C) at points x (N, d), NaN where unobserved."""
        return torch.tensor(self.codes.encode(x, u)[0]).flatten(-2)

    @property
    def has_rates(self) -> bool:
        """Whether its last channels are time derivatives of observed channels (second order in time)."""
        return bool(self.rates)

    @property
    def columns(self) -> list[int]:
        """Columns of theta with the equations of the observed channels: of second order, those of their rates."""
        channels = len(self.codes.mean)
        return [channels + self.rates.index(c) if c in self.rates else c for c in range(channels)]

    def decode(self, z: Tensor, x: np.ndarray) -> np.ndarray:
        """Fields (..., N, C) at points (N, d) of codes (..., C K), which may include codes of rates."""
        codes = z.detach().cpu().double().unflatten(-1, (-1, self.codes.mean.shape[1]))
        return self.codes.decode(codes[..., : len(self.codes.mean), :].numpy(), x)

    def residual_variance(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Residual variance (C,) of fields u (T, N, C) at points (N, d), corrected for degrees of freedom."""
        left, freedom = self.codes.residuals(x, u)
        return np.asarray(np.nanmean(left**2, axis=(0, 1)) / freedom)

    def step(self, z: Tensor, dt: float | Tensor, number: int | np.ndarray = 0) -> Tensor:
        """Codes (B, C K) after times dt, one or (B,), of systems of numbers, one or (B,); NaN where they far exceed the
        codes of the data."""
        systems, which = np.unique(np.broadcast_to(number, len(z)), return_inverse=True)
        fields = [self.field(self.context_of(system)) for system in systems]
        gaps, later = torch.as_tensor(dt).expand(len(z)), torch.empty_like(z)
        for rows, field in joined(fields, torch.tensor(which)):
            later[rows] = field.after_gaps(z[rows], gaps[rows], self.max_step, self.largest)
        return later

    def rollout(self, z: Tensor, t: np.ndarray, number: int | np.ndarray = 0) -> Tensor:
        """Rollouts (B, T, C K) at increasing times t, (T,) or (B, T), of systems of numbers, one or (B,), from codes z
        (B, C K) at the first; NaN where they diverge."""
        gaps, number = torch.tensor(np.diff(t)).expand(len(z), -1), np.broadcast_to(number, len(z))
        path = z.new_full((len(z), gaps.shape[1] + 1, z.shape[1]), math.nan)
        path[:, 0] = z
        for n in range(gaps.shape[1]):
            alive = torch.isfinite(path[:, n]).all(1)
            if not alive.any():
                break
            path[alive, n + 1] = self.step(path[alive, n], gaps[alive, n], number[alive.numpy()])
        return path

    def written(self, channels: Sequence[str], coordinates: Sequence[str] | None = None,
                contexts: Sequence[str] | None = None) -> list[str]:
        """Equations as text, one line per channel: "du/dt = 0.0099(1) lap u - 0.33(2) u^3", with errors of last digits,
        "(0.03 + 0.01 c)" where a context c matters, which is standardised, or the numbers named by `contexts`. Terms
        within their standard error of zero are counted, not written, except the strongest one of a line."""
        if self.values is not None:  # of channels, in place of rates
            lines = dataclasses.replace(self, theta=self.theta + self.values, values=None).written(
                channels, coordinates, contexts)
            return [line.replace(f"d{channel}/dt", channel, 1) if any(own) else line
                    for line, channel, own in zip(lines, channels, self.values.T, strict=False)]
        contexts = contexts or (["c"] if self.count == 1 else [f"c{p + 1}" for p in range(self.count)])
        names = coordinates or ("x", "y", "z")
        letters, lines = [letter for letter in "abcdefghijklmnopqrs" if letter not in {*channels, *names}], []
        for c, channel in enumerate(channels):
            left, fields = np.concatenate([self.theta[None], self.by_context]), list[tuple[Term, str, np.ndarray]]()
            for name, own in zip(("", *(f" {context}" for context in contexts)), left, strict=False):
                for base, (members, field) in self.varying_coefficients(c, of=own).items():
                    fields, own[members, c] = [*fields, (base, name, field)], 0.0
            bare = dataclasses.replace(self, theta=left[0], by_context=left[1:])
            present = [j for j, term in enumerate(self.terms) if not isinstance(term, Sine) and left[:, j, c].any()]
            size = np.abs(self.theta[:, c]) / (self.std[:, c] + 1e-300)
            varies, ranked = np.count_nonzero(left[1:, :, c], 0), sorted(present, key=lambda j: -size[j])  # noqa: B023
            shown = sorted([j for i, j in enumerate(ranked) if not i or size[j] >= 1 or varies[j]][:_WRITTEN])
            parts = [f"{bare._coefficient(j, c, contexts)} {term.written(channels, names)}".removesuffix(" 1")
                     for j in shown if isinstance(term := self.terms[j], Term)]
            parts += [f"{base.varying(channels, names, letter)}{name} ({letter} from {field.min():.3g} to "
                      f"{field.max():.3g})" for letter, (base, name, field) in zip(letters, fields, strict=False)]
            parts += self._of_network(c, channels, names)
            text = " ".join(part if part.startswith("-") else f"+{part}" for part in parts).removeprefix("+") or "0"
            hidden = [j for j in present if j not in shown]
            if hidden:
                text += f" +... ({len(hidden)} more term{'s' * (len(hidden) > 1)}" + (
                    ", within standard errors of zero)" if size[hidden].max() < 1 else ")")
            inertia = max((term.inertia for j in present if isinstance(term := self.terms[j], Term)), default=0.0)
            front = f"(1 - {inertia:.4g} lap) " if inertia else ""
            lines.append(f"{front}d{channel}/dt = " + text.replace(" -", " - ").replace(" +", " + "))
        return lines

    def varying_coefficients(self, c: int, x: np.ndarray | None = None, of: np.ndarray | None = None
                             ) -> dict[Term, tuple[list[int], np.ndarray]]:
        """Coefficients of channel c, or others `of` (J, C) those of a context, that vary in space, by term: indices of
        the law's terms that make them up, and values (N,) at points x (N, d), by default those of a quadrature."""
        result: dict[Term, tuple[list[int], np.ndarray]] = {}
        given = self.theta if of is None else of
        bases = dict.fromkeys(term.base for j, term in enumerate(self.terms)
                              if isinstance(term, Term) and term.place and given[j, c])
        if not bases:
            return result
        low = self.codes.harmonics.lowest(COEFFICIENT_HARMONICS)
        values = np.insert(low.values(low.quadrature().points if x is None else x)[:, 1:], 0, 1.0, 1)  # (N, P)
        for base in bases:
            whole = {base, Term(base.products, int(base.axis == VALUE), base.axis)} if base.flux else {base}
            members = [j for j, term in enumerate(self.terms)
                       if isinstance(term, Term) and term.base in whole and given[j, c]]
            result[base] = members, sum(given[j, c] * values[:, self.terms[j].place] for j in members)
        return result

    def _of_network(self, c: int, channels: Sequence[str], names: Sequence[str]) -> list[str]:
        """Description of the network of channel c, with its share of the rate: a list of one text, or none."""
        mine = [term for term, theta in zip(self.terms, self.theta[:, c], strict=True)
                if theta and isinstance(term, Sine)]
        if not mine:
            return []
        inputs = ", ".join(dict.fromkeys(one.written(channels, names) for term in mine for one in term.inputs))
        forms = ", ".join(dict.fromkeys(term.form.written(channels, names) for term in mine))
        form = "" if forms == "f" else f" as {forms}"
        share = f" ({100 * self.shares[c]:.0f} % of the rate)" if len(self.shares) else ""
        units = len({(term.weights, term.phase) for term in mine})
        return [f"network of {units} sine features of {inputs}{form}{share}"]

    def _coefficient(self, j: int, c: int, contexts: Sequence[str]) -> str:
        added = [f"{value:.4g} {name}" for name, value in zip(contexts, self.by_context[:, j : j + 1, c].ravel(),
                                                              strict=False) if value]
        if not added:
            return number_text(self.theta[j, c], self.std[j, c])
        base = [number_text(self.theta[j, c], self.std[j, c])] if self.theta[j, c] else []
        text = " ".join(part if part.startswith("-") else f"+{part}" for part in (*base, *added)).removeprefix("+")
        return f"({text.replace(' -', ' - ').replace(' +', ' + ')})" if len(base) + len(added) > 1 else text

    def with_parameters(self, base: np.ndarray, slopes: np.ndarray, sizes: np.ndarray) -> Law:
        """Law for printing: contexts are base (P,) + slopes (P, Q) f, with numbers f (Q,) of magnitudes up to sizes
        (Q,). Small dependences on f, and constants within their standard error, are dropped."""
        theta, by_context = self.theta_at(base), np.tensordot(slopes.T, self.by_context, 1)
        whole = _LITTLE * np.abs(self.theta)
        by_context = np.where(np.abs(by_context) * sizes[:, None, None] < whole, 0.0, by_context)
        varies = by_context.any(0)
        none = varies & (np.abs(theta) < np.maximum(whole, _NONE * self.std))
        return dataclasses.replace(self, theta=np.where(none, 0.0, theta), std=np.where(varies, 0.0, self.std),
                                   by_context=by_context, contexts=np.zeros((1, len(by_context))))


def with_phase_equations(terms: Sequence[Term | Sine], theta: np.ndarray, period: float) -> np.ndarray:
    """Coefficients (J, C) with the known equations of the last two channels, the cosine and sine of a period."""
    theta, (cosine, sine) = theta.copy(), (terms.index(Term((((c + theta.shape[1], VALUE),),))) for c in (-2, -1))
    theta[:, -2:] = 0.0
    theta[sine, -2], theta[cosine, -1] = -2 * math.pi / period, 2 * math.pi / period
    return theta


def node_rollouts(law: Law, t: np.ndarray, states: np.ndarray, number: np.ndarray) -> Tensor | None:
    """Rollouts over single intervals between frames of states (S, T, C, K): codes (S, T - 1, N, C, K) at Gauss points.

    The defect at the next frame is spread linearly over the interval. None where the law diverges. number (S,):
    systems.
    """
    gaps, size = torch.tensor(np.diff(t, axis=1)), states[0, 0].size
    now, after = (torch.tensor(one.reshape(-1, size)) for one in (states[:, :-1], states[:, 1:]))
    path = []
    for length in np.diff([0.0, *NODES, 1.0]):
        now = law.step(now, length * gaps.flatten(), number.repeat(gaps.shape[1]))
        path.append(now)
    missed = after - path.pop()
    result = torch.stack([one + node * missed for one, node in zip(path, NODES, strict=True)], 1)
    return result.reshape(*gaps.shape, len(NODES), *states.shape[2:]) if torch.isfinite(result).all() else None


@dataclasses.dataclass(frozen=True)
class Segments:
    """Segments of trajectories for rollouts: codes (B, M, C K) of B segments of M frames, times dt
    (B, M - 1) between frames, variances (B, C K) of codes, and the system (B,) and trajectory (B,) of each."""

    codes: Tensor
    dt: Tensor
    variance: Tensor
    system: Tensor
    trajectory: Tensor

    def take(self, pick: Tensor) -> Segments:
        """Subset of the segments."""
        return Segments(self.codes[pick], self.dt[pick], self.variance[pick], self.system[pick], self.trajectory[pick])

    @staticmethod
    def join(parts: list[Segments]) -> Segments:
        """Segments of several parts together."""
        return Segments(*(torch.cat([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Segments)))


def segments(t: np.ndarray, codes: np.ndarray, spread: np.ndarray, length: int, system: np.ndarray | None = None
             ) -> Segments:
    """Consecutive segments of `length` steps of codes (S, T, C, K) with variances (S, C, K) at times t (S, T)."""
    system = np.zeros(len(codes), dtype=int) if system is None else system
    starts = range(0, codes.shape[1] - length, length)
    flat, wide = codes.reshape(*codes.shape[:2], -1), spread.reshape(len(spread), -1)
    parts = [(flat[:, n : n + length + 1], np.diff(t[:, n : n + length + 1], axis=1), wide, system,
              np.arange(len(codes))) for n in starts]
    return Segments(*(torch.tensor(np.concatenate(own)) for own in zip(*parts, strict=True)))


def pruned(law: Law) -> Law:
    """Law without terms whose coefficients are zero in all channels."""
    keep = np.flatnonzero((law.theta != 0).any(1) | (law.by_context != 0).any((0, 2)))
    return dataclasses.replace(law, terms=tuple(law.terms[j] for j in keep), theta=law.theta[keep], std=law.std[keep],
                   by_context=law.by_context[:, keep])


def well_posed(law: Law, t: np.ndarray) -> bool:
    """Whether the highest third of the harmonics outgrows the others by less than one e-fold over times t (S, T), also
    about low and high values. Else fine details grow without limit, as in a diffusion that runs backwards."""
    whole, third, span = law.field(), max(law.codes.harmonics.count // 3, 1), float(np.ptp(t, axis=1).max())
    about = [] if whole.coupled else [dataclasses.replace(law, about=one[None]).field() for one in law.usual]
    fields = [field for field in about if field.shift is not None] or [whole]
    return bool(np.isfinite(law.theta).all()) and all(
        (field.growth(slice(-third, None)) - max(field.growth(slice(0, -third)), 0.0)) * span < 1 for field in fields)


def integrable(law: Law, t: np.ndarray, states: np.ndarray, error: float = 0.0, most: int = MOST_STEPS
               ) -> Law | None:
    """Law without unused terms and with the longest accurate integrator step; None if intervals need more than `most`.

    Errors over an interval are up to 1e-5, or `error` if larger, relative to codes. They are measured from first frames
    of states (S, T, C, K) at times t; with rates from third frames, where slopes of splines are good.
    """
    if not np.isfinite(law.theta).all() or not np.isfinite(law.by_context).all():
        return None
    law, rows, third = pruned(law), slice(None, None, max(len(states) // 4, 1)), min(2, t.shape[1] - 1)
    some = with_spline_rates(t[rows], states[rows], law.rates)[:, third] if law.has_rates else states[rows, 0]
    z, dt = torch.tensor(some).flatten(1), float(np.diff(t, axis=1).max())
    extremes = np.unique([select(law.contexts[:, p]) for p in range(law.count) for select in (np.argmin, np.argmax)])
    fields = [law.field(law.contexts[e]) for e in extremes] or [law.field()]
    if max(field.growth() for field in fields) * dt > 30:
        return None
    stiff = any(term.flux and not term.linear for term in law.terms)
    steps, before, allowed = 1, torch.stack([field.advance(z, dt, 1) for field in fields]), max(_STEP_ERROR, error)
    while steps <= most:
        steps *= 2
        after = torch.stack([field.advance(z, dt, steps) for field in fields])
        missed = float(torch.linalg.vector_norm(after - before) / torch.linalg.vector_norm(after))
        if missed < allowed:
            return dataclasses.replace(law, max_step=dt / steps)
        if min(missed if math.isfinite(missed) else 1.0, 1.0) * (steps / (2 * most)) ** _ORDER >= allowed and not (
                stiff and math.isnan(missed) and all(bool(field.advance(z, dt * _PROBED / most, _PROBED).isfinite(
                    ).all()) for field in fields)):  # else shorter steps may be stable
            return None
        before = after
    return None


def with_spline_rates(t: np.ndarray, states: np.ndarray, rates: Sequence[int]) -> np.ndarray:
    """Codes (S, T, C + R, K) of values and, from splines in time, of rates of R channels, from codes (S, T, C, K) at
    times t (S, T)."""
    slopes = [make_interp_spline(time, path[:, list(rates)], k=spline_order(len(time))).derivative()(time)
              for time, path in zip(t, states, strict=True)]
    return np.concatenate([states, np.stack(slopes)], 2)


def max_norm(states: np.ndarray) -> float:
    """Norm of the largest code of states (S, T, C, K)."""
    return float(np.linalg.norm(states.reshape(*states.shape[:2], -1), axis=-1).max())


def number_text(value: float, error: float) -> str:
    """A value and, in parentheses, its standard error in units of the last digit: "0.0300(12)", "-3.36(4)e-06".

    The error has one digit, or two where the first one is 1.
    """
    if not (0 < error < math.inf) or value == 0:
        return f"{value:.4g}"
    power = math.floor(math.log10(max(abs(value), error)))
    power = power if not -4 <= power < 6 else 0
    value, error = value / 10.0**power, error / 10.0**power
    first, exponent = f"{error:.0e}".split("e")
    digits = min(max((first == "1") - int(exponent), 0), 12)
    return f"{value:.{digits}f}({max(round(error * 10**digits), 1)})" + (f"e{power:+03d}" if power else "")
