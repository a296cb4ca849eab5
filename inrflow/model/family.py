"""Family: several physics in one model. What it hands out for one of them is a `Surrogate`.

Each physics has its own decoder, normalisation, time scale, prior and force. Those whose dynamics are a local equation
share one (`SharedEquation`), those for which none was found a quadratic field of the domain's harmonics
(`SharedOperators`), both affine in a context of each physics; the two kinds share nothing with each other.
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
from inrflow.dynamics.fields.sum import FieldShape, VectorField
from inrflow.dynamics.libraries.fourier_grid import LocalBasis
from inrflow.errors import UserError
from inrflow.model.surrogate import MODEL_FILE, Surrogate
from inrflow.runtime.tensor_files import load_tensors, save_tensors

FORMAT = "inrflow-family"
VERSION = 2


@dataclass
class Family:
    """Several physics.

    Attributes:
        members: surrogates by name; their fields are not used, `surrogate` puts in the shared one. What a member keeps
            of its own equation (`training["local"]`) is its force and its shift.
        equation: of the members that have one, in their order; None where none has.
        operators: of the others, in their order; None where all have an equation.
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
        """Share of each physics' own dynamics that the contexts do not span."""
        with_, without = _parted(self.members)
        mine = [*(self.equation.lost if self.equation else []), *(self.operators.lost if self.operators else [])]
        return dict(zip([*with_, *without], mine, strict=True))

    @property
    def about(self) -> str:
        """What is shared, in words."""
        parts = []
        if self.equation is not None:
            shape = self.equation.weights.shape
            parts.append(f"a local equation of {shape[1]} terms, {shape[0] - 1} contexts for {len(self.equation.lost)} "
                         "physics")
        if self.operators is not None:
            field = self.operators.field.shape
            parts.append(f"{field.state_size} codes, {field.couplings} couplings, {field.context_size} contexts for "
                         f"{len(self.operators.lost)} physics")
        return "; ".join(parts)

    @classmethod
    def of(cls, members: Mapping[str, Surrogate], context_size: int | None = None) -> Family:
        """What surrogates share that were trained on harmonics.

        E physics of one kind are spanned by E - 1 contexts exactly (the default), fewer leave something of each.
        """
        with_, without = _parted(members)
        shared, kept = None, dict(members)
        if with_:
            equations, sizes = [], []
            for name, one in with_.items():
                record = one.training["local"]
                equation, shift = from_record(record)
                equations.append(equation)
                prior = one.prior.codes(one.code_size)
                sizes.append(term_sizes(LocalBasis(one.decoder, shift), equation.terms, prior.mean, prior.covariance))
                own = {"force": record["force"], "shift": record["shift"]}
                kept[name] = replace(one, training={**one.training, "local": own})
            shared = SharedEquation.of(equations, sizes, context_size)
        others = list(without.values())
        operators = SharedOperators.of(
            [one.training["codes"] for one in others], [one.field for one in others],
            [one.prior.covariance.diagonal() for one in others], context_size,
        ) if others else None
        return cls(kept, shared, operators)

    def surrogate(self, name: str) -> Surrogate:
        """The surrogate of one physics. Raises UserError where there is none of that name."""
        if name not in self.members:
            raise UserError(f"physics={name} is unknown; this run knows {', '.join(self.names)}: choose one of them")
        member = self.members[name]
        with_, without = _parted(self.members)
        if name in without:
            assert self.operators is not None
            field = self.operators.own_field(list(without).index(name), member.training["codes"])
            return replace(member, field=field.eval())
        assert self.equation is not None
        record, channels = member.training["local"], len(member.description.channels)
        basis = LocalBasis(member.decoder, shift_of(record))
        equation = self.equation.equation(list(with_).index(name), channels, force_of(record))
        training = {**member.training, "local": to_record(equation, basis)}
        return replace(member, field=equation.field(basis).eval(), training=training)

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
            "format": FORMAT,
            "version": VERSION,
            **{kind: None if one is None else one.metadata() for kind, one in shared.items()},
            "members": {name: one.metadata() for name, one in self.members.items()},
        }
        return save_tensors(Path(directory) / MODEL_FILE, state, metadata)

    @classmethod
    def read(cls, path: Path, state: dict[str, Any], metadata: dict[str, Any]) -> Family:
        """From what `load_tensors` found in a model file. Raises UserError where it is not of this format."""
        if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
            raise UserError(f"{path} holds no several physics of this version of inrflow; train again with a list of "
                            "files, data.train=[a.h5,b.h5]")
        equation, operators = metadata["equation"], metadata["operators"]
        members = {
            name: Surrogate.rebuilt(path, state["members"][name], about, VectorField(FieldShape(1)))
            for name, about in metadata["members"].items()
        }
        return cls(
            members,
            None if equation is None else SharedEquation.rebuilt(state["equation"], equation),
            None if operators is None else SharedOperators.rebuilt(state["operators"], operators),
        )

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Family:
        """Read a run directory of several physics."""
        path = Path(directory) / MODEL_FILE
        return cls.read(path, *load_tensors(path))


def is_family(directory: str | os.PathLike[str]) -> bool:
    """Whether a run directory holds several physics."""
    path = Path(directory) / MODEL_FILE
    return path.exists() and load_tensors(path)[1].get("format") == FORMAT


def _parted(members: Mapping[str, Surrogate]) -> tuple[dict[str, Surrogate], dict[str, Surrogate]]:
    """Those with a local equation, and those without."""
    with_ = {name: one for name, one in members.items() if "local" in one.training}
    return with_, {name: one for name, one in members.items() if name not in with_}
