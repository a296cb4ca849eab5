"""Terms of a local equation: products of a few factors, each a derivative of a channel.

The rate of change at a point is a polynomial in a few derivatives there, the same at all points. A flow's velocity is
not local, but the gradient of an inverse Laplacian (of its vorticity), so that is a factor too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

_MOST_TERMS = 400  # of a library; beyond them degrees are lowered


class Factor(NamedTuple):
    """The derivative of a channel along `axes` (none: the value), of its inverse Laplacian where `inverse`."""

    channel: int
    axes: tuple[int, ...] = ()
    inverse: bool = False


Term = tuple[Factor, ...]  # a product; of nothing: 1


#: In place of axes: the Laplacian, and the squared one, whose single derivatives would be too many.
LAPLACIAN, FOURTH = (-2,), (-1,)


def diffusion_terms(channels: int) -> list[Term]:
    """The constant, and the value and Laplacian of every channel."""
    return [(), *[(Factor(c, axes),) for axes in ((), LAPLACIAN) for c in range(channels)]]


def isotropic_terms(channels: int) -> list[Term]:
    """Linear terms without a preferred direction: constant, value, Laplacian and squared Laplacian of every channel."""
    return [*diffusion_terms(channels), *[(Factor(c, FOURTH),) for c in range(channels)]]


def linear_terms(channels: int, dimensions: int) -> list[Term]:
    """The constant, and value, derivatives up to second order and squared Laplacian of every channel."""
    orders: list[tuple[int, ...]] = [axes for n in range(3) for axes in _axes(dimensions, n)]
    derivatives: list[Term] = [(Factor(c, axes),) for c in range(channels) for axes in orders]
    return [(), *derivatives, *[(Factor(c, FOURTH),) for c in range(channels)]]


def reaction_terms(channels: int, degree: int = 3) -> list[Term]:
    """Monomials of the values of degree 2 and more."""
    values = [Factor(c) for c in range(channels)]
    return [
        term for n in range(2, degree + 1) for term in itertools.combinations_with_replacement(values, n)
    ]


def transport_terms(channels: int, dimensions: int, order: int = 2) -> list[Term]:
    """Products of two derivatives, with one derivative at least and `order` of them at most."""
    factors = [Factor(c, axes) for c in range(channels) for n in range(order + 1) for axes in _axes(dimensions, n)]
    return [
        (one, other)
        for one, other in itertools.combinations_with_replacement(factors, 2)
        if 0 < len(one.axes) + len(other.axes) <= order
    ]


def stirring_terms(channels: int, dimensions: int) -> list[Term]:
    """Slopes of channels times slopes of inverse Laplacians: transport by the flow whose vorticity a channel is."""
    if dimensions == 1:
        return []
    axes = range(dimensions)
    return [
        (Factor(c, (b,)), Factor(e, (a,), True))
        for c in range(channels) for e in range(channels) for a in axes for b in axes
    ]


def libraries(channels: int, dimensions: int) -> list[list[Term]]:
    """Lists of terms to try, short ones first: isotropic ones, diffusion with reactions, both; all linear terms with
    reactions, with transport, with stirring. Lists that many channels would make too long are left out."""
    lists = [isotropic_terms(channels)]
    lists += [own + reaction_terms(channels) for own in (diffusion_terms(channels), isotropic_terms(channels))]
    terms = linear_terms(channels, dimensions)
    for more in (
        reaction_terms(channels), transport_terms(channels, dimensions), stirring_terms(channels, dimensions)
    ):
        if more and len(terms) + len(more) <= _MOST_TERMS:
            terms = terms + more
            lists.append(terms)
    return lists


def known_libraries(known: Mapping[str, Sequence[Term]], channels: int, dimensions: int) -> dict[str, list[Term]]:
    """Lists by name, short ones first: the terms of each known physics, alone and with a group of nonlinear ones.

    Which channel of the new physics plays the part of which known one is open, and along which axis: a known term
    stands for all that renaming channels and axes makes of it.
    """
    groups = {
        "": [], " and reactions": reaction_terms(channels), " and transport": transport_terms(channels, dimensions),
        " and stirring": stirring_terms(channels, dimensions),
    }
    result: dict[str, list[Term]] = {}
    for name, terms in known.items():
        own = [(), *(one for term in terms for one in _renamed(term, channels, dimensions))]
        for more, group in groups.items():
            library = _distinct([*own, *group])
            if not any(_same(library, other) for other in result.values()):
                result[f"terms of {name}{more}"] = library
    return dict(sorted(result.items(), key=lambda item: len(item[1])))


def _renamed(term: Term, channels: int, dimensions: int) -> Iterator[Term]:
    there = sorted({factor.channel for factor in term})
    along = sorted({axis for factor in term for axis in factor.axes if axis >= 0})  # others mark Laplacians
    for names in itertools.product(range(channels), repeat=len(there)):
        for axes in itertools.permutations(range(dimensions), len(along)):
            channel, axis = dict(zip(there, names, strict=True)), dict(zip(along, axes, strict=True))
            yield tuple(
                Factor(channel[f.channel], tuple(sorted(axis.get(a, a) for a in f.axes)), f.inverse)
                for f in term
            )


def _distinct(terms: Iterable[Term]) -> list[Term]:
    """Without repeats, whatever the order of factors."""
    distinct: dict[Term, Term] = {}
    for term in terms:
        distinct.setdefault(tuple(sorted(term)), term)
    return list(distinct.values())


def _same(terms: Sequence[Term], others: Sequence[Term]) -> bool:
    return {tuple(sorted(term)) for term in terms} == {tuple(sorted(term)) for term in others}


def to_plain(terms: Sequence[Term]) -> list:
    """As nested lists, fit for JSON."""
    return [[[f.channel, list(f.axes), f.inverse] for f in term] for term in terms]


def from_plain(plain: Sequence) -> list[Term]:
    """The inverse of `to_plain`."""
    return [tuple(Factor(int(c), tuple(axes), bool(inverse)) for c, axes, inverse in term) for term in plain]


def name_of(term: Term, channels: Sequence[str], coordinates: Sequence[str]) -> str:
    """A term as a reader would write it: u v^2, u u_x, lap^2 u."""
    if not term:
        return "1"
    names = [_factor_name(factor, channels, coordinates) for factor in term]
    counted = [(name, names.count(name)) for name in dict.fromkeys(names)]
    return " ".join(name if n == 1 else f"{name}^{n}" for name, n in counted)


def _factor_name(factor: Factor, channels: Sequence[str], coordinates: Sequence[str]) -> str:
    name = channels[factor.channel]
    if factor.axes in (LAPLACIAN, FOURTH):
        return f"lap {name}" if factor.axes == LAPLACIAN else f"lap^2 {name}"
    if factor.inverse:
        name = f"(lap^-1 {name})"
    return name + ("_" + "".join(coordinates[a] for a in factor.axes) if factor.axes else "")


def _axes(dimensions: int, order: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations_with_replacement(range(dimensions), order))
