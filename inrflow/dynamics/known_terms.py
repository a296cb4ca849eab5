"""Terms that known physics need, as small libraries for a new one: with fewer unknowns less data tells them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from inrflow.dynamics.local_terms import FOURTH, Factor, Term, reaction_terms, stirring_terms, transport_terms


def known_libraries(known: Sequence[Term], channels: int, dimensions: int) -> dict[str, list[Term]]:
    """By name: the known terms alone, and with each group of nonlinear terms that none of the known physics may need.

    Nobody has said which channel of the new physics plays the part of which known one, nor along which axis: a known
    term stands for all that renaming both makes of it.
    """
    terms = _distinct([(), *(one for term in known for one in _renamed(term, channels, dimensions))])
    found = {"known terms": terms}
    groups = {
        "reactions": reaction_terms(channels), "transport": transport_terms(channels, dimensions),
        "stirring": stirring_terms(channels, dimensions),
    }
    for name, group in groups.items():
        joined = _distinct([*terms, *group])
        if len(joined) > len(terms):
            found[f"known terms and {name}"] = joined
    return found


def _renamed(term: Term, channels: int, dimensions: int) -> Iterator[Term]:
    there = sorted({factor.channel for factor in term})
    along = sorted({axis for factor in term if factor.axes != FOURTH for axis in factor.axes})
    for names in itertools.product(range(channels), repeat=len(there)):
        for axes in itertools.permutations(range(dimensions), len(along)):
            channel, axis = dict(zip(there, names, strict=True)), dict(zip(along, axes, strict=True))
            yield tuple(
                Factor(
                    channel[f.channel],
                    f.axes if f.axes == FOURTH else tuple(sorted(axis[a] for a in f.axes)), f.inverse,
                )
                for f in term
            )


def _distinct(terms: Iterable[Term]) -> list[Term]:
    """Without repeats, whatever the order of factors."""
    found: dict[Term, Term] = {}
    for term in terms:
        found.setdefault(tuple(sorted(term)), term)
    return list(found.values())
