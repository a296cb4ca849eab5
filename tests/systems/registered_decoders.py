"""Random decoders of every registered class, built from the names of the arguments of its constructor."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from inrflow.decoders.base import Decoder, decoder_class
from inrflow.decoders.domain_harmonics import DomainHarmonicDecoder
from inrflow.decoders.embeddings import Embedding, PeriodicEmbedding, SphericalEmbedding
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.decoders.siren import MODULATIONS
from inrflow.domains import Box

_SUBSETS = [list(s) for n in (1, 2, 3) for s in itertools.combinations(MODULATIONS, n)]


def embeddings() -> st.SearchStrategy[Embedding]:
    """Embeddings of one to three coordinates."""
    return st.sampled_from([
        Embedding([0.0], [2.0]),
        Embedding([0.0, -1.0], [1.0, 1.0]),
        SphericalEmbedding(),
        PeriodicEmbedding([0.0], [1.0], [1.0], 2, 4),
        PeriodicEmbedding([0.0, 0.0], [1.0, 2.0], [1.0, 2.0], 1, 1),
        PeriodicEmbedding([0.0, -1.0], [1.0, 1.0], [1.0, 0.0]),
    ])


@st.composite
def decoders(draw: st.DrawFn, name: str) -> Decoder:
    """A decoder in float64 of the class registered as `name`, its weights random."""
    torch.manual_seed(draw(st.integers(0, 99)))
    parameters = inspect.signature(decoder_class(name)).parameters
    channels = draw(st.integers(1, 2))
    size = channels * draw(st.integers(1, 2))
    values: dict[str, Any] = {"channels": channels, "code_size": size}
    if "embedding" in parameters:
        values["embedding"] = draw(embeddings())
    if "domain" in parameters:
        sides = draw(st.sampled_from([["walled"], ["periodic", "walled"]]))
        box = Box([0.0] * len(sides), [2.0] * len(sides), sides)
        values |= {"domain": box.state(), "boundary": "natural", "count": 3}
    if "decoder" in parameters:
        embedding = draw(embeddings().filter(lambda one: one.harmonics > 0))
        values["decoder"] = HarmonicDecoder(embedding, channels, size + 2)
    if "modulation" in parameters:
        values["modulation"] = draw(st.sampled_from(_SUBSETS))
    values |= {"width": 8, "depth": draw(st.integers(1, 2)), "scale": 8.0, "w0": 2.0}
    decoder = decoder_class(name)(**{key: value for key, value in values.items() if key in parameters})
    for weight in decoder.parameters():  # none is zero, as some start
        if not bool((weight != 0).any()):
            torch.nn.init.normal_(weight, std=0.3)
    return decoder.double()


def coordinates(decoder: Decoder) -> int:
    """Number d of coordinates of a decoder's points."""
    if isinstance(decoder, DomainHarmonicDecoder):
        return len(decoder.domain["lower"])
    held = decoder
    while not hasattr(held, "embedding"):
        held = held.decoder
    embedding = held.embedding
    return embedding.inputs if isinstance(embedding, SphericalEmbedding) else len(embedding.low)


def points(decoder: Decoder, *shape: int, seed: int = 1) -> Tensor:
    """Random points (*shape, d)."""
    random = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, coordinates(decoder), generator=random, dtype=torch.float64)


def codes(decoder: Decoder, *shape: int, seed: int = 2) -> Tensor:
    """Random codes (*shape, Z)."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, decoder.code_size, generator=random, dtype=torch.float64)
