"""Random terms of vector fields of every registered class, built from the names of the arguments of its constructor."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from harmonic_systems import harmonic_decoder
from hypothesis import strategies as st

from inrflow.domains import Box
from inrflow.dynamics.fields.base import TERMS, FieldTerm


def law(channels: int) -> dict[str, Any]:
    """Arguments of a law on five harmonics of a walled line: diffusion, u u_x and u^3 of the first channel."""
    box = Box([0.0], [2.0], ["walled"])
    rates = [
        {"products": [[[0, -1]]], "power": 1, "axis": -1},
        {"products": [[[0, -1], [0, 0]]], "power": 0, "axis": -1},
        {"products": [[[0, -1], [0, -1], [0, -1]]], "power": 0, "axis": -1},
    ]
    theta = 0.5 * torch.randn(len(rates), channels, dtype=torch.float64)
    return {"domain": box.state(), "boundary": "natural", "count": 5, "terms": rates, "theta": theta.tolist(),
            "period": 0.0}


@st.composite
def terms(draw: st.DrawFn, name: str) -> tuple[FieldTerm, int, int]:
    """A term in float64 of the class registered as `name`, its weights random; its state size n and context size P.

    States are codes of a decoder of harmonics on a line, to which the term is bound.
    """
    torch.manual_seed(draw(st.integers(0, 99)))
    decoder = harmonic_decoder(draw(st.integers(1, 2)), (2.0,), 2)
    n, contexts = decoder.code_size, draw(st.sampled_from([0, 2]))
    values: dict[str, Any] = {
        "state_size": n, "context_size": contexts, "period": 3.0, "harmonics": 2,
        "count": draw(st.integers(1, 4)), "width": 7, "depth": draw(st.integers(1, 2)),
        "forcing_period": draw(st.sampled_from([0.0, 3.0])), "forcing_harmonics": 2, "swish": draw(st.booleans()),
    }
    values |= law(decoder.channels) if name == "law" else {}
    values |= {"size": n, "lags": 1, "step": 0.5, "harmonics": ()} if name in ("autoregression", "step_map") else {}
    parameters = inspect.signature(TERMS[name]).parameters
    term = TERMS[name](**{key: value for key, value in values.items() if key in parameters}).double()
    for buffer in term.buffers():
        if buffer.dtype == torch.int64:  # numbers of components
            buffer.copy_(torch.randint(0, n, buffer.shape))
    for weight in term.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return term, n, contexts


def states(n: int, contexts: int, *shape: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Random times (*shape,), states (*shape, n) and contexts (*shape, P), None without any."""
    random = torch.Generator().manual_seed(seed)
    t = 5 * torch.rand(*shape, generator=random, dtype=torch.float64)
    z = torch.randn(*shape, n, generator=random, dtype=torch.float64)
    c = torch.randn(*shape, contexts, generator=random, dtype=torch.float64)
    return t, z, c if contexts else None
