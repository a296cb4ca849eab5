"""What a run on several physics knows, for one that joins them, and the run with it."""

from __future__ import annotations

from inrflow.model.family import Family
from inrflow.model.surrogate import Surrogate
from inrflow.training.parts.spectral import KnownPhysics


def known_physics(family: Family) -> KnownPhysics:
    """The terms that those with an equation need, and the quadratic fields of the others, each on its own codes."""
    members = {name: family.surrogate(name) for name in family.names if family.members[name].pde is None}
    others = [name for name in family.names if name not in members]
    return KnownPhysics(
        list(members), [list(one.code_names or []) for one in members.values()],
        [len(one.description.channels) for one in members.values()], [one.field for one in members.values()],
        terms={} if family.equation is None else {
            name: family.equation.needed_terms(index) for index, name in enumerate(others)
        },
    )


def add_physics(family: Family, name: str, added: Surrogate) -> Family:
    """The family with another member. The dynamics of the others stay what they were: a context is added."""
    members = {known: family.surrogate(known) for known in family.names}
    return Family.of({**members, name: added})
