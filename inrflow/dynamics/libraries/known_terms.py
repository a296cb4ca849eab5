"""Terms that known physics need, as small libraries for a new one: less data tells fewer unknowns."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from inrflow.dynamics.libraries.pde_terms import Factor, Term, reaction_terms, stirring_terms, transport_terms


def known_libraries(known: Mapping[str, Sequence[Term]], channels: int, dimensions: int) -> dict[str, list[Term]]:
    """By name, the shortest first: the terms of each known physics, alone and with a group of nonlinear terms more.

    Nobody has said which channel of the new physics plays the part of which known one, nor along which axis: a known
    term stands for all that renaming both makes of it.
    """
    groups = {
        "": [], " and reactions": reaction_terms(channels), " and transport": transport_terms(channels, dimensions),
        " and stirring": stirring_terms(channels, dimensions),
    }
    found: dict[str, list[Term]] = {}
    for name, terms in known.items():
        own = [(), *(one for term in terms for one in _renamed(term, channels, dimensions))]
        for more, group in groups.items():
            library = _distinct([*own, *group])
            if not any(_same(library, other) for other in found.values()):
                found[f"terms of {name}{more}"] = library
    return dict(sorted(found.items(), key=lambda item: len(item[1])))


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
    found: dict[Term, Term] = {}
    for term in terms:
        found.setdefault(tuple(sorted(term)), term)
    return list(found.values())


def _same(terms: Sequence[Term], others: Sequence[Term]) -> bool:
    return {tuple(sorted(term)) for term in terms} == {tuple(sorted(term)) for term in others}
