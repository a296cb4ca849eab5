"""Law: a differential equation found in data, on the harmonics of a domain; paths that it is compared with; and which
laws can be integrated."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor

from inrflow.domains import Domain
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.library import PLACES
from inrflow.dynamics.laws.network.sine import Sine
from inrflow.dynamics.laws.regression import NODES, spline_order
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.encoding.harmonic_codes import HarmonicCodes

_WITH_RATES, _WITH_SOME_RATES = 400, 2100  # codes of values beside rates of all channels, or of some
_STEP_ERROR = 1e-5  # of the integrator in one interval, relative to the codes
MOST_STEPS = 256  # of one interval; a law that needs more is not taken
_ORDER = 4  # by which errors of steps fall at best
HARDLY, _OTHER_ORDER = 2.0, 1.5  # times the error of the best law: of shorter ones, of those of another order in time
_NONE, _LITTLE = 3.0, 1e-2  # standard errors, and share of a coefficient, of parts that are not written
_WRITTEN = 20  # terms of a line, at most: those that are most standard errors from zero


@dataclasses.dataclass(frozen=True)
class Law:
    """dz/dt = sum_j theta_jc term_j on K harmonics of a domain.

    theta, std (J, C): coefficients and their standard errors; codes: prior of codes; longest: step of the integrator;
    largest: norm of the largest code of the data. by_context (P, J, C): what each number of a context adds to theta;
    contexts (E, P): those of the systems that trajectories are of; told: parameters tell them. shares (C,): of the
    network in the root mean square of rates, where there is one. rates: observed channels whose rates are further
    channels, after those observed. period: of a forcing; the last two channels are its cosine and sine then, constant
    in space. about (V, C): values that tell the linear part of nonlinear diffusion, where it is integrated so.
    """

    domain: Domain
    boundary: str
    terms: tuple[Term | Sine, ...]
    theta: np.ndarray
    std: np.ndarray
    codes: HarmonicCodes
    longest: float = math.inf
    largest: float = math.inf
    by_context: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 1, 1)))
    contexts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((1, 0)))
    told: bool = False
    shares: tuple[float, ...] = ()
    rates: tuple[int, ...] = ()
    period: float = 0.0
    about: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.period:
            object.__setattr__(self, "theta", turning(self.terms, self.theta, self.period))
        if not len(self.by_context):
            object.__setattr__(self, "by_context", np.zeros((0, *self.theta.shape)))

    @property
    def count(self) -> int:
        """P, numbers of a context."""
        return len(self.by_context)

    @property
    def size(self) -> int:
        """How many coefficients are not zero."""
        return int(np.count_nonzero(self.theta) + np.count_nonzero(self.by_context))

    @property
    def has_network(self) -> bool:
        """Whether hidden units of a network are among its terms."""
        return any(isinstance(term, Sine) for term in self.terms)

    def theta_at(self, context: np.ndarray) -> np.ndarray:
        """Coefficients (J, C) at a context (P,)."""
        return self.theta + np.tensordot(context, self.by_context, 1) if self.count else self.theta

    def context_of(self, system: int) -> np.ndarray:
        """The context (P,) of a system."""
        return self.contexts[system] if self.count else np.zeros(0)

    def field(self, context: np.ndarray | None = None) -> LawField:
        """The vector field as a module: forward(t, z) of codes (..., C K) in float64 or float32, and `advance`.

        At a context (P,), by default 0.
        """
        fields = self.__dict__.setdefault("_fields", {})
        context = np.zeros(self.count) if context is None else context
        key = context.tobytes()
        if key not in fields:
            other, theta = next(iter(fields.values()), None), torch.tensor(self.theta_at(context))
            fields[key] = other.at(theta) if other else LawField.of(
                self.terms, self.codes.harmonics, theta, None if self.about is None else torch.tensor(self.about))
        return fields[key]

    def split(self) -> Law | None:
        """The law whose nonlinear diffusion is integrated with its linear part; None where there is none, or it is."""
        if self.about is not None or not any(isinstance(term, Term) and term.diffusive for term in self.terms):
            return None
        mean, deviation = self.codes.mean.sum(1), np.sqrt(self.codes.variance.sum(1))  # the first harmonic is 1
        usual = np.pad([mean + deviation, mean - deviation], ((0, 0), (0, self.theta.shape[1] - len(mean))))
        law = dataclasses.replace(self, about=usual)  # 0 of rates and clocks
        return None if law.field().shift is None else law

    def at(self, context: np.ndarray) -> Law:
        """The law of a system with a context (P,), without contexts."""
        if not self.count:
            return self
        law = dataclasses.replace(self, theta=self.theta_at(context), by_context=self.by_context[:0],
                                  contexts=np.zeros((1, 0)))
        law.__dict__["_fields"] = {b"": self.field(context)}
        return law

    def encode(self, x: np.ndarray, u: np.ndarray) -> Tensor:
        """Codes (..., C K) of fields u (..., N, C) at points x (N, d); NaN was not observed."""
        return torch.tensor(self.codes.encode(x, u)[0]).flatten(-2)

    @property
    def has_rates(self) -> bool:
        """Whether its last channels are rates of others, which alone are observed."""
        return bool(self.rates)

    @property
    def columns(self) -> list[int]:
        """Columns of theta that its equations have, of each observed channel: of second order that of its rate."""
        channels = len(self.codes.mean)
        return [channels + self.rates.index(c) if c in self.rates else c for c in range(channels)]

    def decode(self, z: Tensor, x: np.ndarray) -> np.ndarray:
        """Fields (..., N, C) at points (N, d) of codes (..., C K), and maybe their rates."""
        codes = z.detach().cpu().double().unflatten(-1, (-1, self.codes.mean.shape[1]))
        return self.codes.decode(codes[..., : len(self.codes.mean), :].numpy(), x)

    def left(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Variance (C,) that harmonics leave of fields u (T, N, C) at points (N, d), for the freedom of codes."""
        left, freedom = self.codes.left(x, u)
        return np.asarray(np.nanmean(left**2, axis=(0, 1)) / freedom)

    def step(self, z: Tensor, dt: float, context: np.ndarray | None = None) -> Tensor:
        """Codes (B, C K) after a time dt, at a context (P,); NaN where they left what the data hold."""
        return self.field(context).bounded(z, dt, self.longest, self.largest)

    def rollout(self, z: Tensor, t: np.ndarray, context: np.ndarray | None = None) -> Tensor:
        """Codes (B, T, C K) at increasing times (T,), from codes z (B, C K) at the first; NaN where they diverged."""
        path = z.new_full((len(z), len(t), z.shape[1]), math.nan)
        path[:, 0] = z
        for n, dt in enumerate(np.diff(t)):
            alive = torch.isfinite(path[:, n]).all(1)
            if not alive.any():
                break
            path[alive, n + 1] = self.step(path[alive, n], float(dt), context)
        return path

    def written(self, channels: Sequence[str], coordinates: Sequence[str] | None = None,
                contexts: Sequence[str] | None = None) -> list[str]:
        """One line for each channel, as "du/dt = 0.0099(1) lap u - 0.33(2) u^3": standard error of the last digit.

        Coefficients that depend on a context are written as "(0.03 + 0.01 c)": c is standardised, or what its numbers
        are called.
        """
        contexts = contexts or (["c"] if self.count == 1 else [f"c{p + 1}" for p in range(self.count)])
        names = coordinates or ("x", "y", "z")
        letters, lines = [letter for letter in "abcdefghijklmnopqrs" if letter not in {*channels, *names}], []
        inertia = max((term.inertia for term in self.terms if isinstance(term, Term)), default=0.0)
        for c, channel in enumerate(channels):
            fields = self.coefficients_of_place(c)
            hidden = {j for members, _ in fields.values() for j in members}
            hidden |= {j for j, term in enumerate(self.terms) if isinstance(term, Sine)}
            present = [j for j in range(len(self.terms)) if j not in hidden
                       and (self.theta[j, c] or self.by_context[:, j : j + 1, c].any())]
            size = np.abs(self.theta[:, c]) / (self.std[:, c] + 1e-300)
            shown = sorted(sorted(present, key=lambda j: -size[j])[:_WRITTEN])  # noqa: B023
            parts = [f"{self._coefficient(j, c, contexts)} {term.written(channels, names)}".removesuffix(" 1")
                     for j in shown if isinstance(term := self.terms[j], Term)]
            parts += [f"{base.varying(channels, names, letter)} ({letter} from {field.min():.3g} to {field.max():.3g})"
                      for letter, (base, (_, field)) in zip(letters, fields.items(), strict=False)]
            parts += self._of_network(c, channels, names)
            text = " ".join(part if part.startswith("-") else f"+{part}" for part in parts).removeprefix("+") or "0"
            text += f" +... ({len(present) - len(shown)} more terms)" if len(present) > len(shown) else ""
            front = f"(1 - {inertia:.4g} lap) " if inertia else ""
            lines.append(f"{front}d{channel}/dt = " + text.replace(" -", " - ").replace(" +", " + "))
        return lines

    def coefficients_of_place(self, c: int, x: np.ndarray | None = None) -> dict[Term, tuple[list[int], np.ndarray]]:
        """Terms of channel c whose coefficient varies in place: which of the law's terms they are of, and the
        coefficient (N,) at points x (N, d), by default at those of a quadrature."""
        result: dict[Term, tuple[list[int], np.ndarray]] = {}
        bases = dict.fromkeys(term.base for j, term in enumerate(self.terms)
                              if isinstance(term, Term) and term.place and self.theta[j, c])
        if not bases:
            return result
        low = self.codes.harmonics.lowest(PLACES)
        values = np.insert(low.values(low.quadrature().points if x is None else x)[:, 1:], 0, 1.0, 1)  # (N, P)
        for base in bases:
            whole = {base, Term(base.products, int(base.axis == VALUE), base.axis)} if base.flux else {base}
            members = [j for j, term in enumerate(self.terms)
                       if isinstance(term, Term) and term.base in whole and self.theta[j, c]]
            result[base] = members, sum(self.theta[j, c] * values[:, self.terms[j].place] for j in members)
        return result

    def _of_network(self, c: int, channels: Sequence[str], names: Sequence[str]) -> list[str]:
        """A part of a line that says which network channel c has, with its share of the rate, if it has one."""
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
            return _number(self.theta[j, c], self.std[j, c])
        base = [_number(self.theta[j, c], self.std[j, c])] if self.theta[j, c] else []
        text = " ".join(part if part.startswith("-") else f"+{part}" for part in (*base, *added)).removeprefix("+")
        return f"({text.replace(' -', ' - ').replace(' +', ' + ')})" if len(base) + len(added) > 1 else text

    def in_terms_of(self, base: np.ndarray, slopes: np.ndarray, sizes: np.ndarray) -> Law:
        """The law to be written with numbers f (Q,), of at most some sizes (Q,), in place of contexts, which are
        base (P,) + slopes (P, Q) f: without parts of little effect on a coefficient, or within its error."""
        theta, by_context = self.theta_at(base), np.tensordot(slopes.T, self.by_context, 1)
        whole = _LITTLE * np.abs(self.theta)
        by_context = np.where(np.abs(by_context) * sizes[:, None, None] < whole, 0.0, by_context)
        varies = by_context.any(0)
        none = varies & (np.abs(theta) < np.maximum(whole, _NONE * self.std))
        return dataclasses.replace(self, theta=np.where(none, 0.0, theta), std=np.where(varies, 0.0, self.std),
                                   by_context=by_context, contexts=np.zeros((1, len(by_context))))


def turning(terms: Sequence[Term | Sine], theta: np.ndarray, period: float) -> np.ndarray:
    """Coefficients (J, C) whose last two channels are the cosine and the sine of a period."""
    theta, (cosine, sine) = theta.copy(), (terms.index(Term((((c + theta.shape[1], VALUE),),))) for c in (-2, -1))
    theta[:, -2:] = 0.0
    theta[sine, -2], theta[cosine, -1] = -2 * math.pi / period, 2 * math.pi / period
    return theta


def worse(errors: np.ndarray, others: np.ndarray) -> bool:
    """Whether errors (S,) of trajectories are above others by more than the standard error of the mean difference, to
    which one lost trajectory adds as much as to the mean, or by as much as the others."""
    if np.isfinite(errors).all() > np.isfinite(others).all():
        return False
    difference = errors - others
    error = float(difference.std() / math.sqrt(max(len(difference) - 1, 1))) if np.isfinite(errors).all() else -1.0
    return not float(difference.mean()) <= min(error, float(others.mean()))


def own_paths(law: Law, t: np.ndarray, states: np.ndarray, number: np.ndarray) -> Tensor | None:
    """Codes (S, T - 1, N, C, K) at Gauss points of the intervals between frames of states (S, T, C, K), along the law's
    own flow from the first frame; what it misses at the second is spread over the interval. None where it diverges.

    number (S,): systems, whose contexts the law has.
    """
    gaps, result = np.diff(t, axis=1), np.zeros((len(t), t.shape[1] - 1, len(NODES), *states.shape[2:]))
    for system in np.unique(number):
        for gap in np.unique(gaps):
            at = np.nonzero((gaps == gap) & (number == system)[:, None])
            now, after = (torch.tensor(states[at[0], at[1] + ahead]).flatten(1) for ahead in (0, 1))
            path = []
            for length in np.diff([0.0, *NODES, 1.0]):
                now = law.step(now, float(gap * length), law.context_of(system))
                path.append(now)
            missed = after - path.pop()
            result[at] = torch.stack([one + node * missed for one, node in zip(path, NODES, strict=True)], 1).reshape(
                len(now), len(NODES), *states.shape[2:]).numpy()
    return torch.tensor(result) if np.isfinite(result).all() else None


@dataclasses.dataclass(frozen=True)
class Flights:
    """Codes (B, M, C K) of B flights of M frames, the times (B, M - 1) between them, variances (B, C K) of codes, and
    the numbers (B,) of the system and of the trajectory that each is of."""

    codes: Tensor
    dt: Tensor
    variance: Tensor
    system: Tensor
    trajectory: Tensor

    def take(self, pick: Tensor) -> Flights:
        """Some of the flights."""
        return Flights(self.codes[pick], self.dt[pick], self.variance[pick], self.system[pick], self.trajectory[pick])

    @staticmethod
    def join(parts: list[Flights]) -> Flights:
        """All flights of several parts."""
        return Flights(*(torch.cat([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Flights)))


def flights(t: np.ndarray, codes: np.ndarray, spread: np.ndarray, length: int, system: np.ndarray | None = None
            ) -> Flights:
    """All flights of some steps, end to end, of codes (S, T, C, K) with variances (S, C, K) at times (S, T)."""
    system = np.zeros(len(codes), dtype=int) if system is None else system
    starts = range(0, codes.shape[1] - length, length)
    flat, wide = codes.reshape(*codes.shape[:2], -1), spread.reshape(len(spread), -1)
    parts = [(flat[:, n : n + length + 1], np.diff(t[:, n : n + length + 1], axis=1), wide, system,
              np.arange(len(codes))) for n in starts]
    return Flights(*(torch.tensor(np.concatenate(own)) for own in zip(*parts, strict=True)))


def pruned(law: Law) -> Law:
    """The law without terms that no channel has."""
    keep = np.flatnonzero((law.theta != 0).any(1) | (law.by_context != 0).any((0, 2)))
    return dataclasses.replace(law, terms=tuple(law.terms[j] for j in keep), theta=law.theta[keep], std=law.std[keep],
                   by_context=law.by_context[:, keep])


def well_posed(law: Law, span: float) -> bool:
    """Whether the highest harmonics grow no faster than lower ones, but for less than e-fold over a span of time.

    Else finer details grow faster without limit, as where time runs backwards in a diffusion.
    """
    field, third = law.field(), max(law.codes.harmonics.count // 3, 1)
    if not np.isfinite(law.theta).all():
        return False
    return (field.growth(slice(-third, None)) - max(field.growth(slice(0, -third)), 0.0)) * span < 1


def integrable(law: Law, t: np.ndarray, states: np.ndarray, error: float = 0.0, most: int = MOST_STEPS
               ) -> Law | None:
    """The law without terms that no channel has, with the longest step of its integrator that is accurate, to a part of
    10^5 or a relative error, at first codes of states (S, T, C, K) at t; None where an interval takes more than `most`.

    With rates at third ones, where slopes of splines are good.
    """
    if not np.isfinite(law.theta).all() or not np.isfinite(law.by_context).all():
        return None
    law, rows, third = pruned(law), slice(None, None, max(len(states) // 4, 1)), min(2, t.shape[1] - 1)
    some = with_slopes(t[rows], states[rows], law.rates)[:, third] if law.has_rates else states[rows, 0]
    z, dt = torch.tensor(some).flatten(1), float(np.diff(t, axis=1).max())
    extremes = np.unique([select(law.contexts[:, p]) for p in range(law.count) for select in (np.argmin, np.argmax)])
    fields = [law.field(law.contexts[e]) for e in extremes] or [law.field()]
    if max(field.growth() for field in fields) * dt > 30:
        return None
    steps, before, allowed = 1, torch.stack([field.advance(z, dt, 1) for field in fields]), max(_STEP_ERROR, error)
    while steps <= most:
        steps *= 2
        after = torch.stack([field.advance(z, dt, steps) for field in fields])
        missed = float(torch.linalg.vector_norm(after - before) / torch.linalg.vector_norm(after))
        if missed < allowed:
            return dataclasses.replace(law, longest=dt / steps)
        if min(missed if math.isfinite(missed) else 1.0, 1.0) * (steps / (2 * most)) ** _ORDER >= allowed:
            return None
        before = after
    return None


def simplest(scored: list[tuple[np.ndarray, Law]], hardly: float = HARDLY) -> tuple[np.ndarray, Law]:
    """Of the laws that forecast hardly worse than the best one, times so many errors, that with the fewest terms.
    Those of another order in time only where the mean says so, too: few trajectories tell little."""
    best = min(scored, key=lambda pair: float(pair[0].mean()))
    equal = [(errors, law) for errors, law in scored if not worse(errors, hardly * best[0]) and (
        law.has_rates == best[1].has_rates or float(errors.mean()) < _OTHER_ORDER * float(best[0].mean()))]
    return min(equal, key=lambda pair: (pair[1].size, float(pair[0].mean())))


def most_with_rates(rates: Sequence[int], channels: int) -> int:
    """Harmonics of each channel that laws with rates of some channels have at most."""
    return (_WITH_RATES if len(rates) == channels else _WITH_SOME_RATES) // channels


def with_slopes(t: np.ndarray, states: np.ndarray, rates: Sequence[int]) -> np.ndarray:
    """Codes (S, T, C + R, K) of values and of rates of R channels by splines in time, of codes (S, T, C, K) at times
    (S, T)."""
    slopes = [make_interp_spline(time, path[:, list(rates)], k=spline_order(len(time))).derivative()(time)
              for time, path in zip(t, states, strict=True)]
    return np.concatenate([states, np.stack(slopes)], 2)


def largest_of(states: np.ndarray) -> float:
    """Norm of the largest code of states (S, T, C, K)."""
    return float(np.linalg.norm(states.reshape(*states.shape[:2], -1), axis=-1).max())


def _number(value: float, error: float) -> str:
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
