"""Terms of a local equation in models that earlier versions saved: products of factors, derivatives of channels.

A flow's velocity is not local, but the gradient of an inverse Laplacian (of its vorticity), so that is a factor too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Factor(NamedTuple):
    """The derivative of a channel along `axes` (none: the value), of its inverse Laplacian where `inverse`."""

    channel: int
    axes: tuple[int, ...] = ()
    inverse: bool = False


Term = tuple[Factor, ...]  # a product; of nothing: 1


#: In place of axes: the Laplacian, and the squared one, whose single derivatives would be too many.
LAPLACIAN, FOURTH = (-2,), (-1,)


def to_plain(terms: Sequence[Term]) -> list:
    """As nested lists, fit for JSON."""
    return [[[f.channel, list(f.axes), f.inverse] for f in term] for term in terms]


def from_plain(plain: Sequence) -> list[Term]:
    """The inverse of `to_plain`."""
    return [tuple(Factor(int(c), tuple(axes), bool(inverse)) for c, axes, inverse in term) for term in plain]
