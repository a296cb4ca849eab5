"""Families: several physics in one model, with a common library of terms for all laws.

Each physics has its own decoder, normalisation, time scale and prior, and a domain of its own. Those whose dynamics are
a law share the library: the family stores their coefficients alone. Other physics keep their own vector field.
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
from inrflow.dynamics.fields.sum import VectorField
from inrflow.errors import UserError
from inrflow.model.store import FAMILY_FORMAT, MODEL_FILE, VERSIONS, StoredModel, made, read_model, reader
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.tensor_files import save_tensors

_LAW = "law"  # the registered name of the term


@dataclass(frozen=True)
class TermLibrary:
    """Union of the terms of several laws, dz/dt = sum_j theta_jc term_j.

    Attributes:
        terms: J as plain values; theta: by physics, (J, C) coefficients in its own units, 0 for terms that it lacks.
    """

    terms: list[dict[str, Any]]
    theta: dict[str, Tensor]

    @classmethod
    def of(cls, fields: Mapping[str, VectorField]) -> TermLibrary:
        """The library of all fields that are a law without contexts."""
        laws = {name: law for name, field in fields.items() if (law := _law_of(field)) is not None}
        terms: list[dict[str, Any]] = []
        for law in laws.values():
            terms += [term for term in law["terms"] if term not in terms]
        theta = {}
        for name, law in laws.items():
            own = torch.as_tensor(law["theta"], dtype=torch.float64)
            theta[name] = own.new_zeros(len(terms), own.shape[1])
            theta[name][[terms.index(term) for term in law["terms"]]] = own
        return cls(terms, theta)

    def structure(self, name: str, structure: dict[str, Any]) -> dict[str, Any]:
        """The structure of a field, with the terms of its law from the library."""
        theta = self.theta[name]
        own = theta.ne(0).any(1).nonzero()[:, 0].tolist()
        law = {**structure["terms"][0], "terms": [self.terms[j] for j in own], "theta": theta[own].tolist()}
        return {**structure, "terms": [law]}


@dataclass
class Family:
    """Several physics in one model; `surrogate` gives the model of one."""

    members: dict[str, Surrogate]

    @property
    def names(self) -> list[str]:
        """Names of the physics."""
        return list(self.members)

    @property
    def library(self) -> TermLibrary:
        """The terms that members with a law share."""
        return TermLibrary.of({name: one.field for name, one in self.members.items()})

    @property
    def forms(self) -> dict[str, list[str]]:
        """Terms of laws in words, with letters a, b, ... for channels, and the names of the physics that have them.

        Terms are identified irrespective of channel and coefficient: "lap a" of a temperature and of a velocity are the
        same.
        """
        owners = dict[str, list[str]]()
        for name, one in self.members.items():
            for form in dict.fromkeys(map(term_in_letters, _terms_of(one.field))):
                owners.setdefault(form, []).append(name)
        return owners

    @property
    def about(self) -> str:
        """A description of the shared library."""
        forms = self.forms
        having = [name for name in self.names if any(name in owners for owners in forms.values())]
        if not having:
            return "nothing: no physics follows a law"
        several = sum(len(owners) > 1 for owners in forms.values())
        each = ", ".join(f"{name} {sum(name in owners for owners in forms.values())}" for name in having)
        alone = [name for name in self.names if name not in having]
        return (f"a library of {len(forms)} terms ({each}), {several} of them in several laws"
                + (f"; {', '.join(alone)} without a law" if alone else ""))

    def known_from(self, name: str) -> str:
        """Sentence on the terms of a law that other physics share, and on its own ones; empty where it has no law."""
        own = {form: [one for one in owners if one != name] for form, owners in self.forms.items() if name in owners}
        if not own:
            return ""
        known = [f"{form} ({', '.join(others)})" for form, others in own.items() if others]
        new = [form for form, others in own.items() if not others]
        return (f"of the terms of {name}, {len(known)} are known: {', '.join(known) or 'none'}; {len(new)} are new: "
                f"{', '.join(new) or 'none'}")

    def surrogate(self, name: str) -> Surrogate:
        """The surrogate of one physics. Raises UserError for an unknown name."""
        if name not in self.members:
            raise UserError(f"physics={name} is unknown; this run holds {', '.join(self.names)}: choose one of them")
        return self.members[name]

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
        problem = f"{len(fitting)} physics have these channels" if fitting else "no physics has these channels"
        raise UserError(f"the data are named {description.name} with channels {', '.join(description.channels)}, but "
                        f"{problem}; give physics=NAME, one of {', '.join(self.names)}")

    # ---- storing ----

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write `model.safetensors` into the directory: the library once, the other parts for each physics.

        Raises UserError where a term of a field is not registered.
        """
        library = self.library
        state = {"theta": library.theta, "members": {
            name: {**one.state(), **({} if name in library.theta else {"field": one.field.state_dict()})}
            for name, one in self.members.items()}}
        about = {name: {**one.metadata(), "field": _without_terms(one.field) if name in library.theta else
                        one.field.structure()} for name, one in self.members.items()}
        header = {"format": FAMILY_FORMAT, "version": VERSIONS[FAMILY_FORMAT], "terms": library.terms}
        return save_tensors(Path(directory) / MODEL_FILE, state, {**header, "members": about})

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
        library, members = TermLibrary(metadata["terms"], state["theta"]), {}
        for name, about in metadata["members"].items():
            own, structure = state["members"][name], about["field"]
            if name in library.theta:
                structure = library.structure(name, structure)
            members[name] = Surrogate.from_stored(stored, {"field": None, **own}, {**about, "field": structure})
        return cls(members)


@reader(FAMILY_FORMAT)
def _read(stored: StoredModel, physics: str | None) -> Surrogate:
    family = Family.from_stored(stored)
    if physics is None:
        raise UserError(f"{stored.path.parent} holds several physics; give physics=NAME, one of "
                        f"{', '.join(family.names)}")
    return family.surrogate(physics)


def term_in_letters(state: dict[str, Any]) -> str:
    """A term of a law (plain values) in words, with letters for its channels in the order of their indices."""
    from inrflow.dynamics.laws.network.sine import Sine
    from inrflow.dynamics.laws.terms import term_from_state

    term = term_from_state(state)
    if isinstance(term, Sine):
        return "features of a network"
    used = sorted({c for product in term.products for c, _ in product} | set(term.vector))
    names = {c: letter for c, letter in zip(used, "abcdefghijklmnopqrstuvw", strict=False)}
    written = [names.get(c, "?") for c in range(max(used, default=0) + 1)]
    return term.varying(written, ("x", "y", "z"), "k(x)") if term.varies else term.written(written, ("x", "y", "z"))


def _law_of(field: VectorField) -> dict[str, Any] | None:
    """The structure of a field's only term, if that is a law without contexts; else None."""
    terms = [term.structure() for term in field.summands if term.name == _LAW]
    alone = len(terms) == len(field.terms) == 1 and not field.context_size
    return terms[0] if alone and any(map(any, terms[0]["theta"])) else None


def _terms_of(field: VectorField) -> list[dict[str, Any]]:
    """Terms of the laws of a field, as plain values, whose coefficients are not zero in all systems."""
    laws = [term.structure() for term in field.summands if term.name == _LAW]
    return [term for law in laws for term, *rows in zip(law["terms"], law["theta"], *law["by_context"], strict=True)
            if any(map(any, rows))]


def _without_terms(field: VectorField) -> dict[str, Any]:
    """The structure of a field that is a law, without the terms that the library stores."""
    structure = field.structure()
    return {**structure, "terms": [{**structure["terms"][0], "terms": [], "theta": [], "by_context": []}]}
