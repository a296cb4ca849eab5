"""Decoders from plain descriptions and back: what a saved model says of its decoder."""

from __future__ import annotations

from typing import Any

from inrflow.decoders.base import Decoder
from inrflow.decoders.embeddings import Embedding, PeriodicEmbedding, SphericalEmbedding
from inrflow.decoders.rbf_features import NodeFunctions
from inrflow.decoders.siren import ModulatedSiren


def embedding_structure(embedding: Embedding) -> dict[str, Any]:
    """Plain values from which `build_embedding` makes the same embedding."""
    if isinstance(embedding, SphericalEmbedding):
        return {"kind": "sphere", "dimensions": embedding.inputs}
    if isinstance(embedding, NodeFunctions):
        count, functions = embedding.weights.shape
        size = {"count": count, "functions": functions, "support": embedding.support}
        return {"kind": "nodes", "inner": embedding_structure(embedding.inner), **size}
    low = (embedding.centre - embedding.half_extent).tolist()
    high = (embedding.centre + embedding.half_extent).tolist()
    if isinstance(embedding, PeriodicEmbedding):
        return {
            "kind": "periodic",
            "low": low,
            "high": high,
            "period": list(embedding.period),
            "wavenumbers": len(embedding.multiples),
            "harmonics": embedding.largest_harmonic,
        }
    return {"kind": "raw", "low": low, "high": high}


def build_embedding(structure: dict[str, Any]) -> Embedding:
    """The embedding of a structure."""
    values = dict(structure)
    kind = values.pop("kind")
    if kind == "nodes":
        return NodeFunctions(build_embedding(values.pop("inner")), **values)
    return {"sphere": SphericalEmbedding, "periodic": PeriodicEmbedding, "raw": Embedding}[kind](**values)


def decoder_structure(decoder: Decoder) -> dict[str, Any]:
    """Plain values from which `build_decoder` makes a decoder of the same shape."""
    if isinstance(decoder, ModulatedSiren):
        return {
            "kind": "siren",
            "embedding": embedding_structure(decoder.embedding),
            "channels": decoder.channels,
            "code_size": decoder.code_size,
            "width": decoder.width,
            "depth": decoder.depth,
            "w0": decoder.w0,
            "modulation": list(decoder.modulation),
        }
    from inrflow.decoders.closure import ClosureDecoder
    from inrflow.decoders.filter_net import FourierFilterNet

    if isinstance(decoder, FourierFilterNet):
        return {"kind": "filter_net", "embedding": embedding_structure(decoder.embedding), **decoder.structure()}
    if isinstance(decoder, ClosureDecoder):
        return {"kind": "closure", "affine": decoder_structure(decoder.decoder), **decoder.structure()}
    raise TypeError(f"no structure for {type(decoder).__name__}")


def build_decoder(structure: dict[str, Any]) -> Decoder:
    """The decoder of a structure, its weights still to be loaded."""
    values = dict(structure)
    kind = values.pop("kind")
    if kind == "closure":
        from inrflow.decoders.closure import ClosureDecoder

        return ClosureDecoder(build_decoder(values.pop("affine")), **values)
    embedding = build_embedding(values.pop("embedding"))
    if kind == "siren":
        return ModulatedSiren(embedding, **values)
    from inrflow.decoders.filter_net import FourierFilterNet

    return FourierFilterNet(embedding, **values)
