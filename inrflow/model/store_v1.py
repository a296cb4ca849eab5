"""Reader of earlier model files: a field was saved as 13 sizes, and the kind of its dynamics as a note of training.

Families of version 3, of which `family_v3` makes the fields, are those of version 4 but for their number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inrflow.errors import UserError

EARLIER = (("inrflow-surrogate", 1), ("inrflow-family", 2), ("inrflow-family", 3))  # formats and versions that are read
_RENAMED = {  # beginnings of the names of a field's tensors
    "matrix": "terms.linear.matrix",
    "bias": "terms.linear.bias",
    "context_matrix": "terms.linear.context_matrix",
    "context_bias": "terms.linear.context_bias",
    "forcing": "terms.forcing.weight",
    "context_forcing": "terms.forcing.context_weight",
    "residual": "terms.network.layers",
    "products": "terms.products",
    "couplings": "terms.couplings",
    "local": "terms.local",
}


def upgraded(path: Path, state: dict[str, Any], metadata: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """State and metadata of a surrogate of version 1 or a family of version 2 or 3 as those of the present version.

    Raises UserError where the file is damaged or has a term that exists no more.
    """
    if metadata["version"] == 3:
        return state, {**metadata, "version": 4}
    try:
        if metadata["format"] == "inrflow-surrogate":
            field = _field_state(state["field"])
            about = {**_member(metadata), "version": 2, "field": _structure(path, metadata["field"])}
            return {**state, "field": field}, about
        operators = metadata["operators"]
        if operators is not None:
            operators = {**operators, "field": _structure(path, operators["field"])}
            shared = {**state["operators"], "field": _field_state(state["operators"]["field"])}
            state = {**state, "operators": shared}
        members = {name: _member(about) for name, about in metadata["members"].items()}
        return state, {**metadata, "version": 4, "operators": operators, "members": members}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); restore it or train again") from error


def _member(metadata: dict[str, Any]) -> dict[str, Any]:
    """The kind of the dynamics out of the notes of training."""
    training = dict(metadata["training"])
    codes, pde = training.pop("codes", None), training.pop("local", None)
    return {**metadata, "training": training, "code_names": codes, "pde": pde}


def _field_state(state: dict[str, Any]) -> dict[str, Any]:
    """Tensors by their new names."""
    result = {}
    for name, value in state.items():
        first, *others = name.split(".")
        result[".".join([_RENAMED.get(first, first), *others])] = value
    return result


def _structure(path: Path, shape: dict[str, Any]) -> dict[str, Any]:
    """The structure of the field that 13 sizes described."""
    size, contexts = shape["state_size"], shape["context_size"]
    if shape["quadratic_rank"]:
        raise UserError(f"{path} has a quadratic part of given rank (dynamics.quadratic_rank), which this version of "
                        "inrflow does not have; train again with dynamics.products")
    both = {"state_size": size, "context_size": contexts}
    forced = {"forcing_period": shape["forcing_period"], "forcing_harmonics": shape["forcing_harmonics"]}
    terms: list[dict[str, Any]] = []
    if shape["linear"]:
        terms.append({"term": "linear", **both, "sparse": bool(shape["local"])})
    if shape["forcing_period"]:
        terms.append({"term": "forcing", **both, "period": forced["forcing_period"],
                      "harmonics": forced["forcing_harmonics"]})
    if shape["depth"]:
        terms.append({"term": "network", **both, "width": shape["width"], "depth": shape["depth"], **forced,
                      "swish": shape["swish"]})
    if shape["products"]:
        terms.append({"term": "products", **both, "count": shape["products"]})
    if shape["couplings"]:
        affected = contexts if shape["context_couplings"] else 0
        terms.append({"term": "couplings", "count": shape["couplings"], "context_size": affected})
    if shape["local"]:
        terms.append({"term": "local", "terms": shape["local"], "channels": shape["channels"],
                      "context_size": contexts})
    return {**both, "terms": terms}
