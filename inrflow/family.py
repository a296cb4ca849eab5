"""Family: several physics in one model: one vector field on a shared latent space, affine in a context; each physics
has its own decoder, normalisation, prior and code size, and a context. What it hands out for one is a `Surrogate`.

The slots of the shared space are functions (a harmonic in one channel): a physics occupies those of its codes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inrflow.data.description import Description
from inrflow.dynamics.quadratic_fields import restricted
from inrflow.dynamics.vector_field import FieldShape, VectorField
from inrflow.errors import UserError
from inrflow.files import load_tensors, save_tensors
from inrflow.surrogate import MODEL_FILE, Surrogate

FORMAT = "inrflow-family"
VERSION = 1


@dataclass
class Family:
    """Several physics.

    Attributes:
        codes: names of the n slots.
        field: quadratic, of n codes and P contexts, float64.
        contexts: (E, P) of the physics, in the order of `members`.
        members: surrogates by name; their fields are not used, `surrogate` puts in the shared one.
        lost: (E,) share of each physics' own operator that the contexts do not span.
    """

    codes: list[str]
    field: VectorField
    contexts: Tensor
    members: dict[str, Surrogate]
    lost: list[float]

    @property
    def names(self) -> list[str]:
        """Names of the physics."""
        return list(self.members)

    @classmethod
    def of(cls, members: Mapping[str, Surrogate], context_size: int | None = None) -> Family:
        """The shared field of surrogates whose codes are named (`training["codes"]`) and whose fields are quadratic.

        E physics have E operators: E - 1 contexts span them exactly (the default), fewer the leading directions of
        their spread, in the units that codes of the members vary by.
        """
        codes = list(dict.fromkeys(name for one in members.values() for name in one.training["codes"]))
        fields = [
            restricted(one.field, _places(codes, one.training["codes"])) for one in members.values()
        ]
        triples = torch.cat([_triples(field) for field in fields], 1)
        triples = torch.unique(triples, dim=1)
        deviation = _deviation(codes, members)
        operators = torch.stack([_flat(field, triples) for field in fields])
        unit = torch.cat([
            torch.ones(len(codes), dtype=torch.float64), deviation.repeat(len(codes)),
            deviation[triples[1]] * deviation[triples[2]],
        ])
        mean = operators.mean(0)
        spread = (operators - mean) * unit
        values, vectors = torch.linalg.eigh(spread @ spread.T)
        possible = len(fields) - 1
        size = possible if context_size is None else min(context_size, possible)
        contexts = (vectors.flip(1)[:, :size] * len(fields) ** 0.5).contiguous()
        directions = contexts.T @ (operators - mean) / len(fields)
        missed = (operators - mean - contexts @ directions) * unit
        lost = (missed.square().sum(1) / (operators * unit).square().sum(1).clamp(min=1e-300)).tolist()
        field = _shared(len(codes), triples, mean, directions, max(f.shape.width for f in fields))
        return cls(codes, field, contexts, dict(members), lost)

    def field_of(self, context: Tensor) -> VectorField:
        """The field of all slots at a context (P,)."""
        size, shared = len(self.codes), self.field
        if not shared.shape.context_size:
            return shared
        count = shared.shape.couplings
        result = VectorField(FieldShape(size, couplings=count, width=shared.shape.width)).double()
        result.set_linear(
            shared.matrix_at(context).detach(), (shared.bias + context @ shared.context_bias).detach()
        )
        if count:
            result.couplings.set(_triples(shared), shared.couplings.weight_at(context).detach())
        return result

    def surrogate(self, name: str) -> Surrogate:
        """The surrogate of one physics. Raises UserError where there is none of that name."""
        if name not in self.members:
            raise UserError(f"physics={name} is unknown; this run knows {', '.join(self.names)}: choose one of them")
        member = self.members[name]
        whole = self.field_of(self.contexts[self.names.index(name)])
        slots = {code: i for i, code in enumerate(self.codes)}
        member.field = restricted(whole, [slots[code] for code in member.training["codes"]]).eval()
        return member

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
        """Write `model.safetensors` into the directory: the shared field once, the rest for each physics."""
        state = {
            "field": self.field.state_dict(),
            "contexts": self.contexts,
            "members": {name: one.state() for name, one in self.members.items()},
        }
        metadata: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "codes": self.codes,
            "lost": self.lost,
            "field": self.field.shape.to_dict(),
            "members": {name: one.metadata() for name, one in self.members.items()},
        }
        return save_tensors(Path(directory) / MODEL_FILE, state, metadata)

    @classmethod
    def read(cls, path: Path, state: dict[str, Any], metadata: dict[str, Any]) -> Family:
        """From what `load_tensors` found in a model file. Raises UserError where it is not of this format."""
        if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
            raise UserError(f"{path} holds no several physics of this version of inrflow; train again with a list of "
                            "files, data.train=[a.h5,b.h5]")
        field = VectorField(FieldShape(**metadata["field"])).double()
        field.load_state_dict(state["field"])
        members = {
            name: Surrogate.rebuilt(path, state["members"][name], about, VectorField(FieldShape(1)))
            for name, about in metadata["members"].items()
        }
        return cls(metadata["codes"], field.eval(), state["contexts"], members, metadata["lost"])

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Family:
        """Read a run directory of several physics."""
        path = Path(directory) / MODEL_FILE
        return cls.read(path, *load_tensors(path))


def is_family(directory: str | os.PathLike[str]) -> bool:
    """Whether a run directory holds several physics."""
    path = Path(directory) / MODEL_FILE
    return path.exists() and load_tensors(path)[1].get("format") == FORMAT


def _places(codes: list[str], own: list[str]) -> list[int]:
    place = {name: i for i, name in enumerate(own)}
    return [place.get(name, -1) for name in codes]


def _triples(field: VectorField) -> Tensor:
    if not field.shape.couplings:
        return torch.zeros(3, 0, dtype=torch.int64)
    return torch.stack([field.couplings.out, field.couplings.left, field.couplings.right])


def _flat(field: VectorField, triples: Tensor) -> Tensor:
    """bias, matrix and the weights of the given triples, one after the other."""
    weight = torch.zeros(triples.shape[1], dtype=torch.float64)
    own = _triples(field)
    if own.shape[1]:
        size = field.shape.state_size
        keys = (triples[0] * size + triples[1]) * size + triples[2]
        mine = (own[0] * size + own[1]) * size + own[2]
        order = keys.argsort()
        weight.index_add_(0, order[torch.searchsorted(keys[order], mine)], field.couplings.weight.detach().double())
    return torch.cat([field.bias.detach().double(), field.matrix.detach().double().flatten(), weight])


def _deviation(codes: list[str], members: Mapping[str, Surrogate]) -> Tensor:
    """Standard deviation (n,) of the codes, over the members that have them."""
    total, count = torch.zeros(len(codes)).double(), torch.zeros(len(codes)).double()
    slots = {code: i for i, code in enumerate(codes)}
    for one in members.values():
        index = torch.tensor([slots[code] for code in one.training["codes"]])
        total[index] += one.prior.covariance.diagonal().double()
        count[index] += 1
    return (total / count.clamp(min=1)).sqrt()


def _shared(size: int, triples: Tensor, mean: Tensor, directions: Tensor, width: int) -> VectorField:
    contexts, count = len(directions), triples.shape[1]
    field = VectorField(FieldShape(size, couplings=count, context_size=contexts, width=width)).double()
    cut = size + size * size
    field.set_linear(mean[size:cut].reshape(size, size), mean[:size])
    if contexts:
        field.set_context_linear(directions[:, size:cut].reshape(contexts, size, size), directions[:, :size])
    if count:
        field.couplings.set(triples, mean[cut:], directions[:, cut:])
    return field.eval()


