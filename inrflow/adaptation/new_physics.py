"""What a run on several physics knows, for one that joins them, and the run with it."""

from __future__ import annotations

from inrflow.family import Family
from inrflow.surrogate import Surrogate
from inrflow.training.spectral_stage import KnownPhysics


def known_physics(family: Family) -> KnownPhysics:
    """The fields of all physics of a family on its shared slots."""
    fields = [family.field_of(context) for context in family.contexts]
    return KnownPhysics(family.names, family.codes, fields)


def add_physics(family: Family, name: str, added: Surrogate) -> Family:
    """The family with another member. The operators of the others stay what they were: a context is added."""
    members = {known: family.surrogate(known) for known in family.names}
    return Family.of({**members, name: added})
