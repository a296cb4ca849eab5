"""Fields on grids of some ten thousand points of which the outer ones lie on the walls."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.makers.base import FRAMES, Fields, problem, stepped


def _laplacian(u: np.ndarray, steps: tuple[float, float], period: bool) -> np.ndarray:
    """Five-point Laplacian of (C, n, m) without flux through walls at outer points; periodic along the first axis, or
    between walls, too."""
    p = np.pad(np.pad(u, [(0, 0), (1, 1), (0, 0)], mode="wrap" if period else "reflect"), [(0, 0), (0, 0), (1, 1)],
               mode="reflect")
    return ((p[:, 2:, 1:-1] + p[:, :-2, 1:-1] - 2 * u) / steps[0] ** 2
            + (p[:, 1:-1, 2:] + p[:, 1:-1, :-2] - 2 * u) / steps[1] ** 2)


def _smooth(generator: np.random.Generator, shape: tuple[int, int], width: float, first: str) -> np.ndarray:
    """Two random fields (2, n, m) of unit deviation and a width in points."""
    fields = gaussian_filter(generator.standard_normal((2, *shape)), (0, width, width), mode=("wrap", first, "reflect"))
    return np.asarray(fields / fields.std((1, 2), keepdims=True))


@problem(10, 4)
def excitable_nodes(generator: np.random.Generator, count: int) -> Fields:
    """v_t = lap v + v - v^3 / 3 - w, w_t = .3 lap w + .08 (v + .7 - .8 w) (FitzHugh and Nagumo) between walls without
    flux of (0, 48) x (0, 36), 129 x 97 points from wall to wall."""
    shape, lengths = (129, 97), (48.0, 36.0)
    steps = lengths[0] / (shape[0] - 1), lengths[1] / (shape[1] - 1)

    def rate(u: np.ndarray) -> np.ndarray:
        v, w = u
        away = _laplacian(u, steps, False)
        return np.stack([away[0] + v - v**3 / 3 - w, 0.3 * away[1] + 0.08 * (v + 0.7 - 0.8 * w)])

    starts = [np.array([1.5, 0.5])[:, None, None] * _smooth(generator, shape, 9, "reflect") for _ in range(count)]
    starts = [stepped(rate, start, 2.0, 80, 2)[-1] for start in starts]
    paths = np.stack([stepped(rate, start, 1.5, 60) for start in starts])
    x = np.stack(np.meshgrid(*map(np.linspace, (0, 0), lengths, shape), indexing="ij"), -1)
    return (np.arange(FRAMES) * 1.5, x.reshape(-1, 2),
            paths.reshape(count, FRAMES, 2, -1).swapaxes(2, 3).astype(np.float32), {"channels": ["v", "w"]})


@problem(10, 4)
def grazers_duct(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .01 lap u - .5 u_x + .4 u (1 - u) - .8 u v, v_t = .006 lap v - .5 v_x + .8 u v - .3 v, periodic along x
    over 4, without flux through walls a unit apart, 128 x 65 points, across from wall to wall."""
    shape, steps = (128, 65), (4 / 128, 1 / 64)

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        drift = -0.5 * (np.roll(w, -1, 1) - np.roll(w, 1, 1)) / (2 * steps[0])
        reaction = np.stack([0.4 * u * (1 - u) - 0.8 * u * v, 0.8 * u * v - 0.3 * v])
        return np.array([0.01, 0.006])[:, None, None] * _laplacian(w, steps, True) + drift + reaction

    starts = [np.array([0.6, 0.4])[:, None, None] + 0.3 * np.tanh(_smooth(generator, shape, 6, "wrap"))
              for _ in range(count)]
    paths = np.stack([stepped(rate, start, 0.2, 40) for start in starts])
    x = np.stack(np.meshgrid(np.arange(128) * steps[0], np.linspace(0, 1, 65), indexing="ij"), -1)
    return (np.arange(FRAMES) * 0.2, x.reshape(-1, 2),
            paths.reshape(count, FRAMES, 2, -1).swapaxes(2, 3).astype(np.float32),
            {"channels": ["u", "v"], "period": [4.0, 0.0]})
