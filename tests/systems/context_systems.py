"""Systems ds/dt = (A_0 + sum_k c_k A_k) s + b(c) that are known, and their trajectories by the matrix exponential."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import expm

from inrflow.encoding.encode import CodeData

SIZE, CONTEXTS = 5, 2


def operators(seed=0, size=SIZE, contexts=CONTEXTS, spread=0.2):
    """Operators (1 + P, n, 1 + n), [bias, matrix]: a rotation, and what a unit of each context adds."""
    random = np.random.default_rng(seed)
    base = 0.4 * random.standard_normal((size, size))
    parts = [np.c_[0.1 * random.standard_normal(size), base - base.T]]
    parts += [spread * random.standard_normal((size, size + 1)) / np.sqrt(size) for _ in range(contexts)]
    return torch.tensor(np.stack(parts))


def generator(parts, context):
    """Affine generator (1 + n, 1 + n) at one context."""
    field = parts[0].numpy() + np.einsum("k,kij->ij", np.asarray(context), parts[1:].numpy())
    return np.vstack([np.zeros(field.shape[1]), field])


def trajectories(parts, contexts, each=6, frames=6, irregular=False, seed=1):
    """Exact codes of `each` trajectories of every context (E, P), and the environment (S,) of each."""
    random = np.random.default_rng(seed)
    codes, times = [], []
    for context in np.asarray(contexts):
        matrix = generator(parts, context)
        for _ in range(each):
            steps = random.uniform(0.4, 1.4, frames) if irregular else np.ones(frames)
            t = np.cumsum(steps) - steps[0]
            start = np.append(1.0, random.standard_normal(len(matrix) - 1))
            codes.append([(expm(matrix * one) @ start)[1:] for one in t])
            times.append(t)
    data = CodeData(torch.tensor(np.array(codes)), torch.tensor(np.array(times)),
                    torch.ones(len(codes), frames, dtype=torch.bool))
    return data, torch.arange(len(contexts)).repeat_interleave(each)


def readout_error(found, true):
    """Largest error of the best affine map from contexts found to the true ones: contexts are known up to one."""
    design = np.c_[np.ones(len(found)), np.asarray(found)]
    fitted = design @ np.linalg.lstsq(design, np.asarray(true), rcond=None)[0]
    return float(np.abs(fitted - np.asarray(true)).max())
