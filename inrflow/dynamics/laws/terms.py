"""Term: one summand of a law, a differential monomial of the field; and the families that laws are sought in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from inrflow.domains import Box, Domain, Flows, Harmonics
from inrflow.domains.box import PERIODIC
from inrflow.domains.transform import transform_of
from inrflow.dynamics.laws.network.sine import Sine

Product = tuple[tuple[int, int], ...]
VALUE = -1  # "axis" of a factor that is a value, not a derivative
TURN = 3  # added to the axis of a derivative on a sphere: that by the angle of turns about it, (x cross grad)_axis
_FRACTIONS = (0.25, 0.5, 0.75, 1.25, 1.5)
POTENTIAL = 8  # added to the axis of a derivative: that of lap^-1 of the channel, of mean zero
RECIPROCAL, LAPLACIAN, SECOND = 16, 17, 18  # "axes" of factors 1 / value, lap, and d^2/dx_i dx_j at SECOND + 3 i + j
BENT = 32  # added to the axis of a derivative: that of lap of the channel

_COMBINED = (("linear", "products"), ("linear", "transport"), ("linear", "products", "transport"),
             ("linear", "products", "transport", "fluxes"))
_ORDERS = (1, 2)  # of powers of the Laplacian
FRAMES = 16  # looked at
_FAR, _VARIES = 0.02, 0.02  # least over largest value of a channel that others are divided by; deviation over mean
_STEADY = 1e-3  # deviation of means, relative to that of other codes, up to which they do not change
_CONSTANT = 1e-8  # eigenvalues below belong to the constant
_LOW, _MORE = 24, 64  # harmonics of a force, and of a coefficient, that vary in place
_WINDS = 512  # over the numbers of linear terms and of axes: harmonics of winds


@dataclass(frozen=True)
class Term:
    """lap^power d_axis of a sum of products; a factor (channel, axis) is a value (axis -1), a first derivative, the
    Laplacian or the reciprocal of a channel.

    Of a fraction, (-lap)^power. No factors at all: the constant 1. signs: factors of the products, 1 where not given.
    place: it is multiplied by the low harmonic of this number, 0 the constant; flux: div(harmonic grad .) instead, or
    of several factors, the divergence of the products, one along each axis.
    solenoidal: products are (u . grad) of one component of a vector, u a velocity whose components have `signs` as
    units, and the gradient part of all its components, that a pressure takes, is left out. vector, units: the channels
    of the vector, the first ones where not given, and their units, those of u. Of power -1, lap^-1. centred: less its
    mean over the domain. Without signs, what a pressure leaves of the Laplacian of a vector, or in its component number
    `row` of a value along an axis. With an inertia m, multiplied by (1 - m lap)^-1.
    """

    products: tuple[Product, ...] = ((),)
    power: float = 0
    axis: int = VALUE
    signs: tuple[float, ...] = ()
    place: int = 0
    flux: bool = False
    solenoidal: bool = False
    vector: tuple[int, ...] = ()
    units: tuple[float, ...] = ()
    centred: bool = False
    row: int = 0
    inertia: float = 0.0

    @classmethod
    def jacobian(cls, stream: int, channel: int) -> Term:
        """J(lap^-1 a, b) = (lap^-1 a)_x b_y - (lap^-1 a)_y b_x: transport of b by the flow of vorticity a."""
        return cls((((channel, 1), (stream, POTENTIAL)), ((channel, 0), (stream, POTENTIAL + 1))), signs=(1, -1))

    @classmethod
    def jacobian_on_sphere(cls, stream: int, channel: int) -> Term:
        """J(lap^-1 a, b) = x . (grad lap^-1 a cross grad b) at unit vectors x."""
        return cls(tuple(((channel, j), (stream, POTENTIAL + TURN + j)) for j in range(3)), signs=(1, 1, 1))

    @classmethod
    def transport(cls, component: int, units: Sequence[float], velocity: Sequence[int] = (),
                  vector: Sequence[int] = (), of_vector: Sequence[float] = ()) -> Term:
        """A component of P (u . grad) b, with P the projection onto fields without divergence; u in units (d,).

        velocity, vector: channels (d,) of u and of b, by default the first ones and those of u; of_vector: units of b.
        """
        carried = (vector or velocity or range(len(units)))[component]
        products = tuple(((j, VALUE), (carried, axis)) for axis, j in enumerate(velocity or range(len(units))))
        return cls(products, signs=tuple(units), solenoidal=True, vector=tuple(vector), units=tuple(of_vector))

    @property
    def carried(self) -> tuple[int, ...]:
        """Channels (d,) of the vector that a velocity carries."""
        return self.vector or tuple(range(len(self.signs)))

    @property
    def sizes(self) -> tuple[float, ...]:
        """Their units (d,)."""
        return self.units or self.signs

    @property
    def forces(self) -> bool:
        """Of those that a pressure acts on: whether it is a force, given by its components, along an axis or all."""
        return not self.signs and (len(self.products) > 1 or self.products[0][0][1] != LAPLACIAN)

    @property
    def component(self) -> int:
        """Which component of its vector it is."""
        if self.forces:
            return self.row
        return self.carried.index(self.products[0][-1][0])

    @property
    def parts(self) -> tuple[tuple[Product, ...], ...]:
        """The products of every component of the vector, none where it is zero."""
        if self.signs:
            velocity = [product[0][0] for product in self.products]
            return tuple(tuple(((v, VALUE), (c, axis)) for axis, v in enumerate(velocity)) for c in self.carried)
        if not self.forces:
            return tuple((((c, LAPLACIAN),),) for c in self.carried)
        if len(self.products) > 1:
            return tuple((product,) for product in self.products)
        return tuple(self.products if j == self.axis else () for j in range(len(self.carried)))

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the components: units of the vector, 1 of a force."""
        return (1.0,) * len(self.sizes) if self.forces else self.sizes

    @property
    def base(self) -> Term:
        """The term without its dependence on place."""
        return replace(self, place=0)

    @property
    def filtered(self) -> bool:
        """Whether the harmonics of its products are multiplied by numbers of their own."""
        return bool(self.power or self.centred or self.inertia)

    @property
    def varies(self) -> bool:
        """Whether its coefficient depends on place."""
        return self.place > 0 or (self.flux and self.linear)

    def every(self) -> tuple[Product, ...]:
        """The products that its evaluation needs: of all components where it is projected."""
        if not self.solenoidal:
            return self.products
        return tuple(product for part in self.parts for product in part)

    @property
    def linear(self) -> bool:
        """Whether it is a linear operator that acts on the values of one channel."""
        one = not self.solenoidal and len(self.products) == 1 and len(self.products[0]) == 1
        return one and self.products[0][0][1] == VALUE

    @property
    def bounded(self) -> bool:
        """Whether it is values times a coefficient of place: no operator that grows with wavenumbers."""
        return self.place > 0 and not self.flux and not self.power and self.axis == VALUE

    def written(self, channels: Sequence[str], coordinates: Sequence[str]) -> str:
        """The term in the names of channels and coordinates, as "u du/dx" or "lap u"."""
        if self.solenoidal and not self.signs:
            if not self.forces:
                return f"P lap {channels[self.products[0][0][0]]}"
            if len(self.products) > 1:
                (a, _), (b, _) = self.products[0]
                return f"(P lap {channels[a]} grad {channels[b]})_{coordinates[self.row]}"
            force = replace(self, solenoidal=False, axis=VALUE).written(channels, coordinates)
            return f"(P {force} e_{coordinates[self.axis]})_{coordinates[self.row]}"
        if self.solenoidal:
            velocity = ", ".join(channels[product[0][0]] for product in self.products) if self.vector else "u"
            text = f"P({velocity} . grad) {channels[self.products[0][1][0]]}"
        elif self.signs:
            (channel, _), (stream, _) = self.products[0]
            text = f"J(lap^-1 {channels[stream]}, {channels[channel]})"
        elif self.flux and not self.linear:
            (c, axis), factors = self.products[0][-1], self.products[0][:-1]
            kind = next(name for least, name in ((BENT, "lap "), (POTENTIAL, "lap^-1 "), (0, "")) if axis >= least)
            front = Term((factors,)).written(channels, coordinates)
            text = f"div({front} grad {kind}{channels[c]})"
        elif len(self.products) > 1:  # a sum over axes of products of derivatives
            text = " . ".join(f"grad {channels[c]}" if axis < POTENTIAL else f"grad (lap^-1 {channels[c]})"
                              for c, axis in self.products[0] if axis != VALUE)
            values = [channels[c] for c, axis in self.products[0] if axis == VALUE]
            text = " ".join([*values, f"({text})"])
        else:
            parts = []
            for (c, axis), group in itertools.groupby(sorted(self.products[0], key=lambda factor: (factor[1] != VALUE,
                                                                                                 factor))):
                name = channels[c] if axis == VALUE else _derivative(channels[c], axis, coordinates)
                count = len(list(group))
                parts.append(name if count == 1 else f"{name}^{count}")
            text = " ".join(parts) or "1"
        bare = text if " " not in text and "^" not in text or text.startswith("(") else f"({text})"
        if self.axis != VALUE:
            text = bare = _derivative(bare, self.axis, coordinates)
        if self.power:
            name = f"(-lap)^{self.power:g}" if self.power % 1 else "lap" if self.power == 1 else f"lap^{self.power}"
            text = f"{name} {bare}"
        return f"({bare} less its mean)" if self.centred else text

    def varying(self, channels: Sequence[str], coordinates: Sequence[str], letter: str) -> str:
        """The term with a coefficient of place, as "div(a grad u)" or "a u"."""
        if self.flux:
            return f"div({letter} grad {channels[self.products[0][0][0]]})"
        return f"{letter} {self.base.written(channels, coordinates)}".removesuffix(" 1")

    def state(self) -> dict[str, object]:
        """Plain values."""
        return {"products": [[list(factor) for factor in product] for product in self.products], "power": self.power,
                "axis": self.axis, "signs": list(self.signs), "place": self.place, "flux": self.flux,
                "solenoidal": self.solenoidal, "vector": list(self.vector), "units": list(self.units),
                "centred": self.centred, "row": self.row, "inertia": self.inertia}

    @classmethod
    def from_state(cls, state: dict) -> Term:
        """The term of a `state()`."""
        signs = tuple(float(sign) for sign in state.get("signs", ()))
        products = state["products"]
        if state.get("solenoidal") and not signs and len(products) > 1 and products[0][0][1] == VALUE:
            signs = (1.0,) * len(products)  # saved before velocities had units
        return cls(tuple(tuple((int(c), int(a)) for c, a in product) for product in products),
                   state["power"], int(state["axis"]), signs,
                   int(state.get("place", 0)), bool(state.get("flux", False)), bool(state.get("solenoidal", False)),
                   tuple(map(int, state.get("vector", ()))), tuple(map(float, state.get("units", ()))),
                   bool(state.get("centred", False)), int(state.get("row", 0)), float(state.get("inertia", 0.0)))


def term_from_state(state: dict) -> Term | Sine:
    """The term, or the hidden unit of a network, of a `state()`."""
    return Sine.from_state(state) if "weights" in state else Term.from_state(state)


def _derivative(channel: str, axis: int, coordinates: Sequence[str]) -> str:
    """A first derivative, reciprocal or Laplacian in words."""
    if axis in (RECIPROCAL, LAPLACIAN):
        return f"1/{channel}" if axis == RECIPROCAL else f"lap {channel}"
    if axis >= SECOND:
        i, j = divmod(axis - SECOND, 3)
        return f"d2{channel}/d{coordinates[i]}d{coordinates[j]}"
    name, axis = (f"(lap^-1 {channel})", axis - POTENTIAL) if axis >= POTENTIAL else (channel, axis)
    return f"d{name}/d{coordinates[axis]}" if axis < TURN else f"d{name}/d(turn about {coordinates[axis - TURN]})"


def seasonal(channels: int, places: int) -> list[Term]:
    """Forces, steady or of a season, the last two channels, by low harmonics of place; values, Laplacians times it."""
    cosine, sine = (channels, VALUE), (channels + 1, VALUE)
    times: tuple[Product, ...] = (), (cosine,), (sine,), (cosine, cosine), (cosine, sine)
    forces = [Term((product,), place=m) for product in times for m in range(not product, places)]
    every = itertools.product((VALUE, LAPLACIAN), times[1] + times[2], range(channels))
    return forces + [Term((((c, axis), one),)) for axis, one, c in every]


def multipliers(channels: int, dimensions: int, intrinsic: bool = False) -> list[Term]:
    """Linear terms that are not local: fractional powers of the Laplacian, whose sums are smooth functions of it."""
    axes = () if intrinsic else range(dimensions)
    return [Term((((c, VALUE),),), power, axis) for power in _FRACTIONS for axis in (VALUE, *axes)
            for c in range(channels)]


def short_list(channels: int, dimensions: int, intrinsic: bool = False, turns: bool = True) -> dict[str, list[Term]]:
    """Families of terms, simplest first: linear, products of values, transport, fluxes.

    intrinsic: on a surface, where derivatives along single coordinates mean nothing; turns: it is a sphere, whose last
    axis may be that of its own rotation.
    """
    every, axes = range(channels), () if intrinsic else range(dimensions)
    value = [(c, VALUE) for c in every]

    def monomials(degree: int) -> list[tuple[tuple[int, int], ...]]:
        return list(itertools.combinations_with_replacement(value, degree))

    linear = [Term(), *(Term(((f,),), power) for power in (0, 1, 2) for f in value)]
    odd = [Term(((f,),), power, 0) for power in (0, 1, 2) for f in value] if dimensions == 1 else [
        Term((((c, j),),)) for c in every for j in axes]
    flow = Term.jacobian_on_sphere if intrinsic else Term.jacobian
    turns = turns and intrinsic
    flows = [flow(a, b) for a in every for b in every] if turns or dimensions == 2 else []
    if turns:
        flows += [Term((((c, part + TURN + 2),),)) for part in (0, POTENTIAL) for c in every]
    gradients = [(a, b) for a in every for b in every if a <= b]
    return {
        "linear": linear,
        "products": [Term((m,)) for degree in (2, 3) for m in monomials(degree)],
        "transport": odd + [Term(((f, (c, j)),)) for f in value for c in every for j in axes] + flows,
        "fluxes": [*(Term((m,), 1) for degree in (2, 3) for m in monomials(degree)),
                   *(Term(tuple(((a, j), (b, j)) for j in range(dimensions))) for a, b in gradients)],
    }


def directed(channels: int, axes: Sequence[str]) -> list[Term]:
    """Linear terms that tell directions apart: d^2/dx_i dx_j, whose last one follows from lap, and along
    periodic axes d lap/dx_j and d lap^-1/dx_j."""
    d, periodic = len(axes), [j for j, axis in enumerate(axes) if axis == PERIODIC]
    pairs = [(i, j) for i in range(d) for j in range(i, d - (i == d - 1))]
    linear = [(0, SECOND + 3 * i + j) for i, j in pairs] + [(power, j) for power in (1, -1) for j in periodic]
    return [Term((((c, VALUE),),), power, axis) for power, axis in linear for c in range(channels)]


def centred(terms: Sequence[Term]) -> list[Term]:
    """The terms less their means, as in laws of fields whose means do not change; without the constant."""
    return [term if term.power or term.axis != VALUE else replace(term, centred=True)
            for term in terms if term.products != ((),)]


def drifting(channels: int, axes: Sequence[int]) -> list[Term]:
    """div(m grad L b) with products m of values, of three of one channel, two of two, one of more, and L lap, lap^-1 or
    1: drifts along gradients of others, of fields of matter, and in films."""
    value, kinds = [(c, VALUE) for c in range(channels)], (0, POTENTIAL, BENT)
    products: list[Product] = [m for degree in range(1, max(1, 4 - channels) + 1)
                               for m in itertools.combinations_with_replacement(value, degree)]
    return [Term(tuple((*m, (b, kind + j)) for j in axes), flux=True)
            for m in products for b in range(channels) for kind in kinds]


def divided(channel: int, channels: int, dimensions: int) -> dict[str, list[Term]]:
    """Families of terms of matter of density q, a channel of one sign: forces and diffusions per unit of it, as
    (1 / q) dc/dx_j and (1 / q) lap c, those of a stress, as (1 / q) d^2c/dx_i dx_j, and its work, dc/dx_i db/dx_j."""
    others, axes = [c for c in range(channels) if c != channel], range(dimensions)
    over = (channel, RECIPROCAL)
    forces = [Term(((over, (c, axis)),)) for axis in axes for c in range(channels)]
    diffusions = [Term(((over, (c, LAPLACIAN)),)) for c in range(channels)]
    pairs = [(i, j) for i in axes for j in axes if i <= j < dimensions - (i == j)]  # the last one follows from lap
    stresses = [Term(((over, (c, SECOND + 3 * i + j)),)) for c in others for i, j in pairs]
    slopes = [(c, axis) for c in others for axis in axes]
    work = [Term(((one, other),)) for one, other in itertools.combinations_with_replacement(slopes, 2)]
    return {"divided": forces + diffusions, "stresses": stresses + work if dimensions > 1 else []}


@dataclass(frozen=True)
class Families:
    """Terms by the names of their families, the families that laws are sought in together, and further ones."""

    terms: dict[str, list[Term]]
    combined: tuple[tuple[str, ...], ...] = _COMBINED
    later: tuple[Families, ...] = ()

    @property
    def every(self) -> list[Term]:
        """All terms."""
        return [term for family in self.terms.values() for term in family]

    @property
    def active(self) -> list[list[int]]:
        """Of families sought together, the numbers of their terms: without lap^2, then with it.

        Without: a little of it often makes up for errors of splines or of the domain's outline, but with the wrong sign
        lets short waves grow without limit.
        """
        every = self.every
        found = ([every.index(term) for name in names for term in self.terms[name] if term.power <= order]
                 for names in self.combined for order in _ORDERS)
        return [list(active) for active in dict.fromkeys(map(tuple, found))]

    def with_season(self, channels: int, harmonics: Harmonics) -> Families:
        """The same with forces of a season, whose cosine and sine follow so many channels."""
        terms = {**self.terms, "season": seasonal(channels, min(harmonics.lowest(_LOW).count, harmonics.count))}
        return Families(terms, tuple((*a, "season") for a in (("linear",), *self.combined)))

    def with_inertia(self, inertia: float) -> Families:
        """The same as what (1 - inertia lap) du/dt is."""
        return replace(self, terms={name: [replace(term, inertia=inertia) for term in terms]
                                    for name, terms in self.terms.items()})

    def with_multipliers(self, domain: Domain, channels: int) -> Iterator[Families]:
        """Linear terms with others that are not local, without and with transport. None for flows and velocities."""
        if {"linear", "transport", "products"} <= set(self.terms) and not isinstance(domain, Flows):
            more = multipliers(channels, domain.dimensions, domain.curved)
            yield Families({**self.terms, "multipliers": more}, (
                ("linear", "multipliers"), ("linear", "multipliers", "transport")))

    def further(self, domain: Domain, harmonics: Harmonics, states: np.ndarray) -> Iterator[Families]:
        """In flat space, with terms that tell directions apart; less their means, where those of codes (S, T, C, K) do
        not change; with drifts along gradients; on boxes of several channels, with what is divided by each that keeps
        far from zero."""
        yield from self.later
        if not {"linear", "products", "transport", "fluxes"} <= set(self.terms) or isinstance(domain, Flows):
            return
        if domain.dimensions > 1 and domain.kind in ("box", "region"):
            axes = domain.axes if isinstance(domain, Box) else ("",) * domain.dimensions
            ways = {**self.terms, "directed": directed(states.shape[2], axes)}
            yield Families(ways, tuple((*names, "directed") for names in (("linear",), *self.combined)))
        with_mean = harmonics.allowed is None and harmonics.eigenvalues[0] < _CONSTANT
        if with_mean and states[..., 0].std(1).max() < _STEADY * states[..., 1:].std():
            yield Families({name: centred(terms) for name, terms in self.terms.items()}, self.combined)
        drifts = {**self.terms, "fluxes": [term for term in self.terms["fluxes"] if not term.power],
                  "drifts": drifting(states.shape[2], range(domain.dimensions))}
        yield Families(drifts, (("linear", "products", "drifts"), tuple(drifts)))
        if states.shape[2] < 2:
            return
        transform, frames = transform_of(harmonics, 2), states.reshape(-1, *states.shape[2:])
        fields = transform.fields(torch.tensor(frames[:: max(len(frames) // FRAMES, 1)]))
        for channel, values in enumerate(fields.movedim(1, 0) if isinstance(domain, Box) else ()):
            if bool(values.min() > _FAR * values.max()) and values.std() > _VARIES * values.mean():
                more = divided(channel, states.shape[2], domain.dimensions)
                yield Families({**self.terms, **more}, (("linear", "transport", "divided"), (
                    "linear", "transport", "fluxes", "divided"), ("linear", "transport", *more)))

    def in_place(self, domain: Domain, harmonics: Harmonics, several: bool) -> Iterator[Families]:
        """The same with a force that varies in place; then, of one system, values with div(a grad .) of one channel,
        or of all; then values, or slopes, or both, times coefficients of place. None for modes of flows.

        Of one: little of another's, which makes up for errors of splines, would let short waves grow.
        """
        if harmonics.components > 1 or "season" in self.terms:
            return
        winds = max(_LOW, min(_MORE, _WINDS // (len(self.terms["linear"]) * domain.dimensions)))
        low, more, many = (range(1, min(harmonics.lowest(most).count, harmonics.count)) for most in (_LOW, _MORE, winds))
        force = [Term(place=m) for m in low]  # no more than quadrature resolves
        yield Families({**self.terms, "force": force}, tuple((*names, "force") for names in self.combined))
        if several or "products" not in self.terms:
            return
        values = [term for term in self.terms["linear"] if not term.power]
        own = [term for term in values if term.linear]
        fluxes = {f"flux {term.products[0][0][0]}": [replace(term, power=1),
                                                     *(replace(term, place=m, flux=True) for m in more)]
                  for term in own}
        yield Families({"values": values, **fluxes}, (*(("values", name) for name in fluxes), ("values", *fluxes)))
        slopes = [replace(term, axis=axis) for term in own for axis in range(domain.dimensions)]
        parts = {"places": [replace(term, place=m) for term in own for m in low],
                 "winds": [replace(term, place=m) for term in slopes for m in many]}
        terms = {**self.terms, "slopes": slopes, **parts}
        yield Families(terms, (("linear", "products", "places"), ("linear", "products", "slopes", "winds"), (
            "linear", "products", "slopes", "places", "winds")))
