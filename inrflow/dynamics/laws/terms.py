"""Term: a summand of a law, a differential monomial of the fields; and lists of terms of a kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from inrflow.domains.box import PERIODIC
from inrflow.dynamics.laws.network.sine import Sine
from inrflow.numerics import kinetics
from inrflow.numerics.kinetics import FUNCTION, RECIPROCAL

Product = tuple[tuple[int, int], ...]
VALUE = -1  # "axis" of a factor that is a value, not a derivative
ANGULAR = 3  # added to an axis on a sphere: derivative by the angle of rotation about it, (x cross grad)_axis
POTENTIAL = 8  # added to an axis: derivative of lap^-1 of the channel, of mean zero
LAPLACIAN, SECOND = 17, 18  # "axes" of factors lap, and d^2/dx_i dx_j at SECOND + 3 i + j
OF_LAP = 32  # added to an axis: derivative of the Laplacian of the channel
INVERSE = 48  # "axis" of a factor 1 / coordinate, whose index takes the place of the channel
OTHER_HARMONICS = 49  # "axis" of a value on the harmonics that its channel does not have, those of other conditions
DARCY = 64  # added to 3 i + j: component j of P(channel e_i), the flow that a force drives in a porous medium
_FRACTIONS = (0.25, 0.5, 0.75, 1.25, 1.5)  # powers of the Laplacian


@dataclass(frozen=True)
class Term:
    """lap^power d_axis of a sum of products of factors (channel, axis): values (axis -1), derivatives, others as above.

    Without factors it is the constant 1; a fraction is the power of -lap. signs: factors of the products. place: index
    of a low harmonic that the term is multiplied by, 0 for the constant; flux: div(harmonic grad .) instead, or with an
    axis d_axis(harmonic .); of several factors, the divergence of the products, one along each axis. solenoidal:
    projected on divergence-free vectors (P). With signs (units of the velocity u), it is one component of P (u . grad)
    b; without, of P lap b, or component `row` of P (value e_axis). vector, units: channels of b, by default the first
    ones, and their units, by default those of u; other terms are multiplied by the size |b| of `vector`, if given, in
    these units. centred: less its mean. inertia: m of a factor (1 - m lap)^-1.
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
    def jacobian(cls, stream: int, channel: int, flow: int = POTENTIAL, carried: int = 0) -> Term:
        """J(lap^-1 a, b), J = a_x b_y - a_y b_x: transport by the flow of vorticity a; flow 0, `OF_LAP`: J(a, lap
        b)."""
        return cls((((channel, carried + 1), (stream, flow)), ((channel, carried), (stream, flow + 1))), signs=(1, -1))

    @classmethod
    def jacobian_on_sphere(cls, stream: int, channel: int) -> Term:
        """J(lap^-1 a, b) = x . (grad lap^-1 a cross grad b) at unit vectors x."""
        return cls(tuple(((channel, j), (stream, POTENTIAL + ANGULAR + j)) for j in range(3)), signs=(1, 1, 1))

    @classmethod
    def transport(cls, component: int, units: Sequence[float], velocity: Sequence[int] = (),
                  vector: Sequence[int] = (), of_vector: Sequence[float] = ()) -> Term:
        """A component of P (u . grad) b, with P the projection on divergence-free fields; u in units (d,).

        velocity, vector: channels (d,) of u and b, by default the first ones and those of u; of_vector: units of b.
        """
        carried = (vector or velocity or range(len(units)))[component]
        products = tuple(((j, VALUE), (carried, axis)) for axis, j in enumerate(velocity or range(len(units))))
        return cls(products, signs=tuple(units), solenoidal=True, vector=tuple(vector), units=tuple(of_vector))

    @property
    def carried(self) -> tuple[int, ...]:
        """Channels (d,) of the vector b."""
        return self.vector or tuple(range(len(self.signs)))

    @property
    def sizes(self) -> tuple[float, ...]:
        """Units (d,) of the channels in `carried`."""
        return self.units or self.signs

    @property
    def forces(self) -> bool:
        """Whether a solenoidal term is the projection of a force, given along one axis or by all of its components."""
        return not self.signs and (len(self.products) > 1 or self.products[0][0][1] != LAPLACIAN)

    @property
    def component(self) -> int:
        """Index of its component of the vector."""
        if self.forces:
            return self.row
        return self.carried.index(self.products[0][-1][0])

    @cached_property
    def parts(self) -> tuple[tuple[Product, ...], ...]:
        """Products of each component of the vector before projection; empty where it is zero."""
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
        """Factors (d,) of the components before projection: units of the vector, or 1 for a force."""
        return (1.0,) * len(self.sizes) if self.forces else self.sizes

    @property
    def base(self) -> Term:
        """The term without its dependence on place."""
        return replace(self, place=0) if self.place else self

    @cached_property
    def filtered(self) -> bool:
        """Whether the projections of its products are multiplied by numbers that depend on the harmonic."""
        return bool(self.power or self.centred or self.inertia or self.across is not None)

    @cached_property
    def across(self) -> int | None:
        """Channel whose values act on harmonics that it does not have (`OTHER_HARMONICS`), if any."""
        return next((c for c, axis in self.products[0] if axis == OTHER_HARMONICS), None)

    @property
    def highest_power(self) -> float:
        """Highest power of the Laplacian in it: 2 of div(m grad lap b)."""
        return 2 if self.flux and self.products[0][-1][1] in range(OF_LAP, INVERSE) else self.power

    @property
    def varies(self) -> bool:
        """Whether its coefficient varies in space."""
        return self.place > 0 or (self.flux and self.linear)

    def needed_products(self) -> tuple[Product, ...]:
        """Products that its evaluation needs: those of all components if it is solenoidal."""
        if not self.solenoidal:
            return *self.products, *(((c, VALUE),) for c in self.vector)
        return tuple(product for part in self.parts for product in part)

    @cached_property
    def linear(self) -> bool:
        """Whether it is a linear operator on the values of one channel."""
        one = not (self.solenoidal or self.vector) and len(self.products) == 1 and len(self.products[0]) == 1
        return one and self.products[0][0][1] == VALUE and not (self.flux and self.power)

    @property
    def along(self) -> list[tuple[int, Product]]:
        """Products of a flux, with the axis along which each is differentiated."""
        return list(enumerate(self.products)) if self.axis == VALUE else [(self.axis, self.products[0])]

    @property
    def bounded(self) -> bool:
        """Whether it is values times a coefficient that varies in space: its norm does not grow with wavenumbers."""
        return self.place > 0 and not self.flux and not self.power and self.axis == VALUE

    @cached_property
    def diffusions(self) -> list[tuple[Term, list[int]]]:
        """Linear parts lap^n b about constants, each with the channels whose values multiply it: of Laplacians of
        products of values, div(m grad b) and div(m grad lap b), which are stiff like diffusion; of others none."""
        channels, axes = [c for c, _ in self.products[0]], [axis for _, axis in self.products[0]]
        if self.linear or self.solenoidal or self.axis != VALUE or any(axis != VALUE for axis in axes[:-1]):
            return []
        parts, power = list[tuple[int, list[int]]](), self.power
        if self.flux and axes and axes[-1] in (0, OF_LAP):
            parts, power = [(channels[-1], channels[:-1])], 1 if axes[-1] == 0 else 2
        elif self.power > 0 and not self.flux and len(self.products) == 1 and axes[-1:] == [VALUE]:
            parts = [(c, channels[:i] + channels[i + 1 :]) for i, c in enumerate(channels)]
        return [(replace(self, products=(((c, VALUE),),), power=power, flux=False), by) for c, by in parts]

    def written(self, channels: Sequence[str], coordinates: Sequence[str]) -> str:
        """The term in the names of channels and coordinates, as "u du/dx" or "lap u"."""
        if self.solenoidal and not self.signs:
            if not self.forces:
                return f"P lap {channels[self.products[0][0][0]]}"
            if len(self.products) > 1:
                (a, _), (b, _) = self.products[0]
                return f"(P lap {channels[a]} grad {channels[b]})_{coordinates[self.row]}"
            force = replace(self, solenoidal=False, vector=(), axis=VALUE).written(channels, coordinates)
            return f"(P {force} e_{coordinates[self.axis]})_{coordinates[self.row]}"
        if self.solenoidal:
            velocity = ", ".join(channels[product[0][0]] for product in self.products) if self.vector else "u"
            text = f"P({velocity} . grad) {channels[self.products[0][1][0]]}"
        elif self.signs:
            (channel, axis), (stream, _) = self.products[0]
            text = f"J({'lap^-1 ' * (axis < OF_LAP)}{channels[stream]}, {'lap ' * (axis >= OF_LAP)}{channels[channel]})"
        elif self.flux and not self.linear and self.axis == VALUE:
            (c, axis), factors = self.products[0][-1], self.products[0][:-1]
            kind = next(name for least, name in ((OF_LAP, "lap "), (POTENTIAL, "lap^-1 "), (0, "")) if axis >= least)
            front = Term((factors,)).written(channels, coordinates)
            text = f"div({front} grad {kind}{channels[c]})"
        elif len(self.products) > 1:  # a sum over axes of products of derivatives
            text = " . ".join(f"P({channels[c]} e_{coordinates[(axis - DARCY) // 3]})" if axis >= DARCY else (
                f"grad {channels[c]}" if axis < POTENTIAL else f"grad (lap^-1 {channels[c]})")
                for c, axis in self.products[0] if axis != VALUE)
            values = [channels[c] for c, axis in self.products[0] if axis == VALUE]
            text = " ".join([*values, f"({text})"])
        else:
            parts = []
            for (c, axis), group in itertools.groupby(sorted(self.products[0], key=lambda factor: (factor[1] != VALUE,
                                                                                                 factor))):
                name = channels[c] if axis == VALUE else f"1/{coordinates[c]}" if axis == INVERSE else _derivative(
                    channels[c], axis, coordinates)
                count = len(list(group))
                parts.append(name if count == 1 else f"{name}^{count}")
            if self.vector:
                names = ", ".join(channels[c] for c in self.vector)
                parts.insert(0, f"|({names})|" if len(self.vector) > 1 else f"|{names}|")
            text = " ".join(parts) or "1"
        sums = len(self.products) > 1 and text.startswith("(")  # in parentheses already
        bare = text if sums or (" " not in text and "^" not in text) else f"({text})"
        if self.axis != VALUE:
            text = bare = _derivative(bare, self.axis, coordinates)
        if self.power:
            name = f"(-lap)^{self.power:g}" if self.power % 1 else "lap" if self.power == 1 else f"lap^{self.power}"
            text = f"{name} {bare}"
        return f"({bare} less its mean)" if self.centred else text

    def varying(self, channels: Sequence[str], coordinates: Sequence[str], letter: str) -> str:
        """The term as text with a coefficient that varies in space, as "div(a grad u)" or "a u"."""
        if self.flux and self.axis != VALUE:
            return _derivative(f"({letter} {channels[self.products[0][0][0]]})", self.axis, coordinates)
        if self.flux:
            return f"div({letter} grad {channels[self.products[0][0][0]]})"
        return f"{letter} {self.base.written(channels, coordinates)}".removesuffix(" 1")

    def with_functions(self, of: Callable[[int, int], int]) -> Term:
        """The term with the function of number `of(c, number)` in place of each function of channel c."""
        return replace(self, products=tuple(tuple((c, of(c, axis) if axis <= FUNCTION else axis) for c, axis in product)
                                            for product in self.products))

    def state(self) -> dict[str, object]:
        """Its attributes as plain values."""
        return {field.name: _plain(getattr(self, field.name), list) for field in fields(self)}

    @classmethod
    def from_state(cls, state: dict) -> Term:
        """The term of a `state()`."""
        return cls(**{name: _plain(value, tuple) for name, value in state.items()})


def basic_terms(channels: int, dimensions: int, intrinsic: bool = False, turns: bool = True) -> dict[str, list[Term]]:
    """Families of terms, simplest first: linear, products of values, transport, fluxes.

    intrinsic: on a surface, where derivatives along coordinates have no meaning; turns: on a sphere, which may rotate
    about its last axis.
    """
    every, axes = range(channels), () if intrinsic else range(dimensions)
    value = [(c, VALUE) for c in every]

    def monomials(degree: int) -> list[Product]:
        return list(itertools.combinations_with_replacement(value, degree))

    linear = [Term(), *(Term(((f,),), power) for power in (0, 1, 2) for f in value)]
    odd = [Term(((f,),), power, 0) for power in (0, 1) for f in value] if dimensions == 1 else [
        Term((((c, j),),)) for c in every for j in axes]
    flow = Term.jacobian_on_sphere if intrinsic else Term.jacobian
    turns = turns and intrinsic
    flows = [flow(a, b) for a in every for b in every] if turns or dimensions == 2 and not intrinsic else []
    if turns:
        flows += [Term((((c, part + ANGULAR),),)) for part in (0, 1, 2, POTENTIAL + 2) for c in every]
    gradients = [(a, b) for a in every for b in every if a <= b]
    return {
        "linear": linear,
        "products": [Term((m,)) for degree in (2, 3) for m in monomials(degree)],
        "transport": odd + [Term(((f, (c, j)),)) for f in value for c in every for j in axes] + flows,
        "fluxes": [*(Term((m,), 1) for degree in (2, 3) for m in monomials(degree)),
                   *(Term(tuple(((a, j), (b, j)) for j in range(dimensions))) for a, b in gradients)],
    }


def seasonal_terms(channels: int, places: int) -> list[Term]:
    """Forces by low harmonics, steady or of a season, whose phases follow the channels; u, lap u times these phases."""
    cosine, sine = (channels, VALUE), (channels + 1, VALUE)
    times: tuple[Product, ...] = (), (cosine,), (sine,), (cosine, cosine), (cosine, sine)
    forces = [Term((product,), place=m) for product in times for m in range(not product, places)]
    every = itertools.product((VALUE, LAPLACIAN), times[1] + times[2], range(channels))
    return forces + [Term((((c, axis), one),)) for axis, one, c in every]


def fractional_laplacians(channels: int, dimensions: int, intrinsic: bool) -> list[Term]:
    """Linear terms that are not local: fractional powers of the Laplacian, whose sums are smooth functions of it."""
    axes = () if intrinsic else range(dimensions)
    return [Term((((c, VALUE),),), power, axis) for power in _FRACTIONS for axis in (VALUE, *axes)
            for c in range(channels)]


def darcy_terms(channels: int) -> list[Term]:
    """Transport P(a e_i) . grad b in the plane by flows that channels a drive in a porous medium, as buoyancy does."""
    return [Term(tuple(((a, DARCY + 3 * i + j), (b, j)) for j in range(2)))
            for i in range(2) for a in range(channels) for b in range(channels)]


def anisotropic_terms(channels: int, axes: Sequence[str]) -> list[Term]:
    """Anisotropic linear terms: d^2/dx_i dx_j, except the last one, which follows from lap, and along periodic axes
    lap^-1, d lap^-1/dx_j and, in more than one dimension, d lap/dx_j."""
    d, periodic = len(axes), [j for j, axis in enumerate(axes) if axis == PERIODIC]
    pairs = [(i, j) for i in range(d) for j in range(i, d - (i == d - 1))]
    linear = [(0, SECOND + 3 * i + j) for i, j in pairs] + [(power, j) for power in (1, -1)[d == 1 :] for j in periodic]
    linear += [(-1, VALUE)] * bool(periodic)
    return [Term((((c, VALUE),),), power, axis) for power, axis in linear for c in range(channels)]


def quadratic_terms(channels: int, axes: Sequence[int]) -> list[Term]:
    """Anisotropic quadratic terms: products of slopes, and fluxes d(a db/dx_j)/dx_i with i <= j."""
    each = range(channels)
    fluxes = itertools.product(each, each, itertools.combinations_with_replacement(axes, 2))
    return slope_products(each, axes) + [
        Term((((a, VALUE), (b, j)),), axis=i, flux=True) for a, b, (i, j) in fluxes]


def slope_products(channels: Sequence[int], axes: Sequence[int]) -> list[Term]:
    """Products da/dx_i db/dx_j of slopes of some channels."""
    return [Term((pair,)) for pair in itertools.combinations_with_replacement(itertools.product(channels, axes), 2)]


def slope_fluxes(channels: int, axes: Sequence[int]) -> list[Term]:
    """Fluxes by slopes, of elastic bodies, crystals and images: div(da/dx_i da/dx_j grad b); on lines
    d(da/dx db/dx)/dx, d(da/dx db/dx dc/dx)/dx and lap d(a b)/dx."""
    each, some = range(channels), itertools.combinations_with_replacement
    if len(axes) == 1:
        return [*(Term((tuple((c, 0) for c in own),), axis=0, flux=True) for n in (2, 3) for own in some(each, n)),
                *(Term((((a, VALUE), (b, VALUE)),), 1, 0, flux=True) for a, b in some(each, 2))]
    return [Term(tuple(((a, i), (a, j), (b, axis)) for axis in axes), flux=True)
            for a in each for b in each for i, j in some(axes, 2)]


def drift_terms(channels: int, axes: Sequence[int]) -> list[Term]:
    """Drifts div(m grad L b), with L = 1, lap or lap^-1 and monomials m of degree up to three for one channel, two for
    two, one for more: of chemotaxis, charges, films. With lap^2 (a b) and lap (grad a . grad b) they span terms of
    active matter such as div(lap a grad b); c (grad a . grad b) of directions, as of magnets and liquid crystals."""
    value, kinds = [(c, VALUE) for c in range(channels)], (0, POTENTIAL, OF_LAP)
    products: list[Product] = [m for degree in range(1, max(1, 4 - channels) + 1)
                               for m in itertools.combinations_with_replacement(value, degree)]
    drifts = [Term(tuple((*m, (b, kind + j)) for j in axes), flux=True)
              for m in products for b in range(channels) for kind in kinds]
    for a, b in itertools.combinations_with_replacement(range(channels), 2):
        slopes = [((a, j), (b, j)) for j in axes]
        drifts += Term((((a, VALUE), (b, VALUE)),), 2), Term(tuple(slopes), 1)
        drifts += [Term(tuple((one, *pair) for pair in slopes)) for one in value]
    return drifts


def drag_terms(vectors: Sequence[Sequence[int]], channels: int, units: Sequence[float]) -> list[Term]:
    """Friction of turbulence, |w| w for vectors w of channels in units (C,), alone and times each other channel."""
    return [Term((((own, VALUE), *((c, VALUE) for c in others)),), vector=tuple(w), units=tuple(units[c] for c in w))
            for w in vectors for own in w for others in ((), *((c,) for c in range(channels) if c not in w))]


def centred_terms(terms: Sequence[Term]) -> list[Term]:
    """The terms less their means, for fields whose means are constant; without the constant term."""
    return [term if term.power or term.axis != VALUE else replace(term, centred=True)
            for term in terms if term.products != ((),)]


def per_density_terms(channel: int, channels: int, dimensions: int) -> dict[str, list[Term]]:
    """Families of terms per unit of a density q, a channel of one sign: forces (1 / q) dc/dx_j and diffusions (1 / q)
    lap c; stresses (1 / q) d^2c/dx_i dx_j and their work dc/dx_i db/dx_j."""
    others, axes = [c for c in range(channels) if c != channel], range(dimensions)
    over = (channel, RECIPROCAL)
    forces = [Term(((over, (c, axis)),)) for axis in axes for c in range(channels)]
    diffusions = [Term(((over, (c, LAPLACIAN)),)) for c in range(channels)]
    pairs = [(i, j) for i in axes for j in axes if i <= j < dimensions - (i == j)]  # the last one follows from lap
    stresses = [Term(((over, (c, SECOND + 3 * i + j)),)) for c in others for i, j in pairs]
    work = slope_products(others, axes)
    return {"divided": forces + diffusions, "stresses": stresses + work if dimensions > 1 else []}


def _plain(value: Any, kind: type[list] | type[tuple]) -> Any:
    """A value with all its sequences as lists or as tuples."""
    return kind(_plain(one, kind) for one in value) if isinstance(value, (list, tuple)) else value


def is_function(axis: int) -> bool:
    """Whether a factor with an "axis" is a function of values, not linear in its channel."""
    return axis <= FUNCTION or axis == RECIPROCAL


def term_from_state(state: dict) -> Term | Sine:
    """The term, or hidden unit of a network, of a `state()`."""
    return Sine.from_state(state) if "weights" in state else Term.from_state(state)


def _derivative(channel: str, axis: int, coordinates: Sequence[str]) -> str:
    """Name of a derivative, Laplacian or function of a channel."""
    if is_function(axis):
        return kinetics.written(axis, channel)
    if axis in (LAPLACIAN, OTHER_HARMONICS):
        return "lap " * (axis == LAPLACIAN) + channel
    if axis >= SECOND:
        i, j = divmod(axis - SECOND, 3)
        return f"d2{channel}/d{coordinates[i]}d{coordinates[j]}"
    name, axis = (f"(lap^-1 {channel})", axis - POTENTIAL) if axis >= POTENTIAL else (channel, axis)
    return f"d{name}/d{coordinates[axis]}" if axis < ANGULAR else f"d{name}/d(turn about {coordinates[axis - ANGULAR]})"
