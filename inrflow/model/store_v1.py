"""Reader of earlier model files: a field was saved as 13 sizes, and the kind of its dynamics as a note of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inrflow.errors import UserError

EARLIER = "inrflow-surrogate", 1  # format and version that are read
_RENAMED = {  # beginnings of the names of a field's tensors
    "matrix": "terms.linear.matrix",
    "bias": "terms.linear.bias",
    "context_matrix": "terms.linear.context_matrix",
    "context_bias": "terms.linear.context_bias",
    "forcing": "terms.forcing.weight",
    "context_forcing": "terms.forcing.context_weight",
    "residual": "terms.network.layers",
    "products": "terms.products",
}


def upgraded(path: Path, state: dict[str, Any], metadata: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """State and metadata of a surrogate of version 1 as those of the present version.

    Raises UserError where the file is damaged or has a term that exists no more.
    """
    try:
        about = {**metadata, "version": 2, "field": _structure(path, metadata["field"])}
        return {**state, "field": _field_state(state["field"])}, about
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); restore it or train again") from error


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
        terms.append({"term": "linear", **both})
    if shape["forcing_period"]:
        terms.append({"term": "forcing", **both, "period": forced["forcing_period"],
                      "harmonics": forced["forcing_harmonics"]})
    if shape["depth"]:
        terms.append({"term": "network", **both, "width": shape["width"], "depth": shape["depth"], **forced,
                      "swish": shape["swish"]})
    if shape["products"]:
        terms.append({"term": "products", **both, "count": shape["products"]})
    terms += [{"term": name} for name in ("couplings", "local") if shape[name]]  # which `build_term` refuses
    return {**both, "terms": terms}
