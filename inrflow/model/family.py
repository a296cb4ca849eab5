"""Families: several physics with shared dynamics in one model.

Each physics has its own decoder, normalisation, time scale, prior and source term. Those whose dynamics are a PDE of
local terms share its coefficients (`SharedEquation`), the others a quadratic field of the domain's harmonics
(`SharedOperators`); both are affine in a context of each physics. The two kinds share nothing with each other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inrflow.data.description import Description
from inrflow.dynamics.contexts.shared_dynamics import (
    SharedEquation,
    SharedOperators,
    force_of,
    from_record,
    shift_of,
    term_sizes,
    to_record,
)
from inrflow.dynamics.fields.fourier_grid import LocalBasis
from inrflow.dynamics.fields.quadratic import Couplings
from inrflow.dynamics.fields.sum import VectorField
from inrflow.errors import UserError
from inrflow.model.store import FAMILY_FORMAT, StoredModel, made, read_model, reader, write_model
from inrflow.model.surrogate import Surrogate


@dataclass
class Family:
    """Several physics; `surrogate` gives the model of one.

    Attributes:
        members: surrogates by name; their fields are not used, `surrogate` puts in the shared one. Of its own PDE a
            member keeps its force and its shift.
        equation: shared by the members that have a PDE, in their order; None where none has.
        operators: shared by the others, in their order; None where all have a PDE.
    """

    members: dict[str, Surrogate]
    equation: SharedEquation | None
    operators: SharedOperators | None

    @property
    def names(self) -> list[str]:
        """Names of the physics."""
        return list(self.members)

    @property
    def lost(self) -> dict[str, float]:
        """Share of the dynamics of each physics that the contexts do not span."""
        pdes, others = _by_kind(self.members)
        lost = [*(self.equation.lost if self.equation else []), *(self.operators.lost if self.operators else [])]
        return dict(zip([*pdes, *others], lost, strict=True))

    @property
    def about(self) -> str:
        """A description of the shared dynamics."""
        parts = []
        if self.equation is not None:
            shape = self.equation.weights.shape
            parts.append(f"a local equation of {shape[1]} terms, {shape[0] - 1} contexts for {len(self.equation.lost)} "
                         "physics")
        if self.operators is not None:
            field, couplings = self.operators.field, self.operators.field.get(Couplings)
            count = 0 if couplings is None else couplings.count
            parts.append(f"{field.state_size} codes, {count} couplings, {field.context_size} contexts for "
                         f"{len(self.operators.lost)} physics")
        return "; ".join(parts)

    @classmethod
    def of(cls, members: Mapping[str, Surrogate], context_size: int | None = None) -> Family:
        """The family of surrogates that were trained on harmonics.

        E - 1 contexts span E physics of one kind exactly (the default); fewer approximate them.
        """
        pdes, others = _by_kind(members)
        equation, operators, kept = None, None, dict(members)
        if pdes:
            equations, sizes = [], []
            for name, one in pdes.items():
                assert one.pde is not None
                own, shift = from_record(one.pde)
                equations.append(own)
                prior = one.prior.codes(one.code_size)
                sizes.append(term_sizes(LocalBasis(one.decoder, shift), own.terms, prior.mean, prior.covariance))
                kept[name] = replace(one, pde={**one.pde, "terms": [], "weights": []})
            equation = SharedEquation.of(equations, sizes, context_size)
        if others:
            variances = [one.prior.covariance.diagonal() for one in others.values()]
            fields = [one.field for one in others.values()]
            operators = SharedOperators.of([_names(one) for one in others.values()], fields, variances, context_size)
        return cls(kept, equation, operators)

    def surrogate(self, name: str) -> Surrogate:
        """The surrogate of one physics. Raises UserError where there is none of that name."""
        if name not in self.members:
            raise UserError(f"physics={name} is unknown; this run knows {', '.join(self.names)}: choose one of them")
        member = self.members[name]
        pdes, others = _by_kind(self.members)
        if name in others:
            assert self.operators is not None
            field = self.operators.own_field(list(others).index(name), _names(member))
            return replace(member, field=field.eval())
        assert self.equation is not None and member.pde is not None
        basis = LocalBasis(member.decoder, shift_of(member.pde))
        channels = len(member.description.channels)
        equation = self.equation.equation(list(pdes).index(name), channels, force_of(member.pde))
        return replace(member, field=equation.field(basis).eval(), pde=to_record(equation, basis))

    def find(self, description: Description) -> str:
        """The name of the physics that a data file belongs to: by its name, else by channels and coordinates.

        Raises UserError where none or several fit.
        """
        if description.name in self.members:
            return description.name
        fitting = [
            name for name, one in self.members.items()
            if one.description.channels == description.channels
            and one.description.coordinates == description.coordinates
        ]
        if len(fitting) == 1:
            return fitting[0]
        problem = f"{len(fitting)} physics have its channels" if fitting else "no physics has its channels"
        raise UserError(f"the data are named {description.name} with channels {', '.join(description.channels)}, and "
                        f"{problem}; give physics=NAME, one of {', '.join(self.names)}")

    # ---- storing ----

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write `model.safetensors` into the directory: what is shared once, the rest for each physics."""
        shared = {"equation": self.equation, "operators": self.operators}
        state = {
            **{kind: None if one is None else one.state() for kind, one in shared.items()},
            "members": {name: one.state() for name, one in self.members.items()},
        }
        metadata: dict[str, Any] = {
            **{kind: None if one is None else one.metadata() for kind, one in shared.items()},
            "members": {name: one.metadata() for name, one in self.members.items()},
        }
        return write_model(directory, FAMILY_FORMAT, state, metadata)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Family:
        """Read a run directory of several physics. Raises UserError where it holds no such model."""
        stored = read_model(directory)
        if stored.format != FAMILY_FORMAT:
            raise UserError(f"{stored.path} holds one physics; train with a list of files, data.train=[a.h5,b.h5], for "
                            "several")
        return made(stored, cls.from_stored)

    @classmethod
    def from_stored(cls, stored: StoredModel) -> Family:
        """From a model file of several physics."""
        state, metadata = stored.state, stored.metadata
        equation, operators = metadata["equation"], metadata["operators"]
        members = {
            name: Surrogate.from_stored(stored, state["members"][name], about, VectorField(1))
            for name, about in metadata["members"].items()
        }
        return cls(
            members,
            None if equation is None else SharedEquation.rebuilt(state["equation"], equation),
            None if operators is None else SharedOperators.rebuilt(state["operators"], operators),
        )


@reader(FAMILY_FORMAT)
def _read(stored: StoredModel, physics: str | None) -> Surrogate:
    family = Family.from_stored(stored)
    if physics is None:
        raise UserError(f"{stored.path.parent} knows several physics; give physics=NAME, one of "
                        f"{', '.join(family.names)}")
    return family.surrogate(physics)


def _names(member: Surrogate) -> list[str]:
    if member.code_names is None:
        raise UserError(f"the codes of {member.description.name} are not harmonics of its domain, which several "
                        "physics share; train it with decoder.codes=harmonics")
    return member.code_names


def _by_kind(members: Mapping[str, Surrogate]) -> tuple[dict[str, Surrogate], dict[str, Surrogate]]:
    """Those whose field is the projection of a PDE, and the others."""
    pdes = {name: one for name, one in members.items() if one.pde is not None}
    return pdes, {name: one for name, one in members.items() if name not in pdes}
