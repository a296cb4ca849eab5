"""Acceleration of fixed-point iterations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def accelerated(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Tensor:
    """The next input of a fixed-point iteration from the last ones and what came out (Anderson 1965)."""
    if len(inputs) < 2:
        return outputs[-1]
    missed = torch.stack([(out - one).flatten() for one, out in zip(inputs, outputs, strict=True)])
    moved = torch.stack([out.flatten() for out in outputs])
    steps = (missed[1:] - missed[:-1]).T
    share = torch.linalg.lstsq(steps, missed[-1:].T, driver="gelsd").solution[:, 0]
    return outputs[-1] - ((moved[1:] - moved[:-1]).T @ share).reshape(outputs[-1].shape)
