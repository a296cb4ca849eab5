"""What a run on several physics knows, for one that joins them, and the run with it."""

from __future__ import annotations

from inrflow.family import Family
from inrflow.surrogate import Surrogate
from inrflow.training.spectral_stage import KnownPhysics


def known_physics(family: Family) -> KnownPhysics:
    """The fields of all physics of a family, each on its own codes."""
    members = [family.surrogate(name) for name in family.names]
    return KnownPhysics(
        family.names, [list(one.training["codes"]) for one in members],
        [len(one.description.channels) for one in members], [one.field for one in members],
    )


def add_physics(family: Family, name: str, added: Surrogate) -> Family:
    """The family with another member. The operators of the others stay what they were: a context is added."""
    members = {known: family.surrogate(known) for known in family.names}
    return Family.of({**members, name: added})
