"""The trunk of an affine decoder, trained through the solve of its codes (variable projection).

At each step the codes of a batch of frames are solved by ridge regression and held fixed while the trunk is updated: at
the solved code, the gradient of the (regularised) loss with respect to the weights is that of the residual alone (Golub
and Pereyra 1973). Some points of every trajectory are held out for early stopping. Finally the output layer, the code
dimensions, their prior and the noise are fitted in closed form to all points.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.source import TrajectorySource
from inrflow.data.transformations import Augmentation
from inrflow.decoders.base import AffineDecoder, device_of
from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.rbf_features import RadialFeatures
from inrflow.encoding.equivariance import FeatureAction, invariant_box
from inrflow.encoding.posterior import GaussianPrior, condition_groups
from inrflow.encoding.prior.interpolation_error import MOST_POINTS, InterpolationError, interpolation_error
from inrflow.encoding.prior.modes import OutputModes, fit_output_modes, refit_variances
from inrflow.encoding.prior.rbf_residual import error_between_points, principal_functions

_RIDGE = 1e-3
_POINTS_PER_STEP = 2048
_FRAMES_PER_STEP = 128
_HELD_OUT, _FEW_POINTS = 0.1, 20
_TRAJECTORIES_LEFT_OUT = 16
_LOOKED_AT = 64, 512  # numbers of trajectories and frames for principal components
_GROUP_ELEMENTS = 48
_FLOOR = 1e-13  # smallest variance of a mode relative to the largest


class DecoderTraining:
    """Loss and scores of the trunk on a source of trajectories.

    Batches are transformed by `augmentation` in data units, then normalised. Frames of one step share a trajectory's
    points."""

    def __init__(
        self, source: TrajectorySource, training: np.ndarray, validation: np.ndarray, augmentation: Augmentation
    ) -> None:
        self.source, self.augmentation = source, augmentation
        self.training, self.validation = training, validation
        self.all_points = False  # finally the held-out points are used too
        points = source.batch(training[:1]).u.shape[2]
        self.together = max(1, min(len(training), _POINTS_PER_STEP // points))
        scored = source.batch(validation[:8] if len(validation) else training[:8])
        frames = np.unique(np.linspace(0, scored.u.shape[1] - 1, 10).astype(int))
        x, u = scored.frames(torch.as_tensor(frames)).groups()
        self.scored = x.float(), u, *split_points(u.shape[2])

    def loss(
        self, module: nn.Module, step: int, steps: int, random: np.random.Generator, part: slice = slice(None)
    ) -> Tensor:
        """Residual of a batch at its solved codes, mean square in normalised units."""
        assert isinstance(module, AffineDecoder)
        shared = self.source.shared_points and not self.augmentation
        count = min(len(self.training), 16) if shared else self.together
        chosen = random.choice(self.training, count, replace=False)
        x, u = self.source.moved(chosen, self.augmentation, random).groups()  # (G, N, d) and (G, F, N, C)
        kept = torch.arange(u.shape[2]) if self.all_points else split_points(u.shape[2])[0]
        limit = max(64, _POINTS_PER_STEP // len(x))
        if len(kept) > limit:
            kept = kept[torch.as_tensor(random.permutation(len(kept))[:limit])]
        if u.shape[1] > _FRAMES_PER_STEP:
            u = u[:, torch.as_tensor(random.permutation(u.shape[1])[:_FRAMES_PER_STEP])]
        home, x, u = device_of(module), x[:, kept], u[:, :, kept]
        count = int(torch.isfinite(u).sum())
        x, u = (x, u[:, part]) if len(x) == 1 else (x[part], u[part])
        offset, basis = module.basis(x.float().to(home))
        residual = _residual(offset, basis, u.to(home), solve_ridge(offset, basis, u.to(home)))
        return residual.square().sum() / count

    @torch.no_grad()
    def score(self, module: nn.Module) -> float:
        """Error at held-out points of validation frames whose codes are solved from the other points."""
        assert isinstance(module, AffineDecoder)
        x, u = (part.to(device_of(module)) for part in self.scored[:2])
        offset, basis = module.basis(x)
        return self._missed(offset, basis, u, solve_ridge)

    def _missed(
        self, offset: Tensor, basis: Tensor, u: Tensor, solve: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> float:
        """Mean squared error at held-out points of frames u (G, F, N, C) whose codes are solved at the others."""
        *_, kept, held = self.scored
        codes = solve(offset[:, kept], basis[:, kept], u[:, :, kept])
        held = held if len(held) else kept
        residual = _residual(offset[:, held], basis[:, held], u[:, :, held], codes)
        return float(residual.square().sum() / torch.isfinite(u[:, :, held]).sum().clamp(min=1))

    def fixed_points(
        self, trajectories: int = _TRAJECTORIES_LEFT_OUT, most: int = _FRAMES_PER_STEP
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Points x (N, d) shared by all frames, at most `most` of the frames u (F, N, C), and the held-out points.

        None if trajectories have different points, symmetries move them, or there are too many.
        """
        first = self.source.batch(self.training[:1])
        fixed = first.x.shape[:2] == (1, 1) and (len(self.source) == 1 or self.source.shared_points)
        points = first.u.shape[2]
        _, held = split_points(points)
        if not fixed or self.augmentation or points > MOST_POINTS or not len(held):
            return None
        x, u = self.source.batch(self.training[:trajectories]).groups()
        pick = torch.linspace(0, u.shape[1] - 1, min(u.shape[1], most)).long()
        return x[0], u[0, pick], held

    def interpolation_error(self, module: AffineDecoder) -> InterpolationError | None:
        """Error of the decoder away from the points of the frames, before training on the held-out points.

        None if points are not fixed."""
        fixed = self.fixed_points()
        if fixed is None:
            return None
        x, u, held = fixed
        return interpolation_error(x, _features(module, x), u, held).known_also(x)

    def patterns(self, inner: Embedding, most: int) -> tuple[RadialFeatures, InterpolationError, float] | None:
        """Radial functions (at most `most`) through the principal components of frames at fixed points, their
        interpolation error, and its mean square at held-out points. None if points move, or no frame is complete."""
        fixed = self.fixed_points(*_LOOKED_AT)
        if fixed is None:
            return None
        x, u, held = fixed
        found = principal_functions(inner, x, u, most) if len(x.unique(dim=0)) == len(x) else None
        if found is None:
            return None
        kept = torch.ones(len(x), dtype=torch.bool)
        kept[held] = False
        values = found.evaluate_harmonics(x.double())
        without = RadialFeatures.through(inner, x[kept], values[kept]).evaluate_harmonics(x.double())
        error = interpolation_error(x, torch.cat([x.new_ones(len(x), 1), without], 1), u, held).known_also(x)
        return found, error, error_between_points(inner, x, u, held)

    @torch.no_grad()
    def held_out_error(self, module: AffineDecoder, modes: OutputModes) -> float:
        """Error at held-out points of validation frames with codes from the others, for the modes and their prior."""
        fitted, (x, u, *_) = copy.deepcopy(module).double(), self.scored
        fitted.set_output(modes.mean, modes.modes)
        offset, basis = fitted.basis(x.double())
        return self._missed(offset, basis, u.double(), lambda o, b, u: condition_groups(o, b, u, modes.prior())[0])

    def fit_modes(
        self, module: AffineDecoder, largest: int, trajectories: int = 96, iterations: int = 6,
        progress: Callable[[int], None] = lambda done: None,
    ) -> OutputModes:
        """Output layer, code dimensions, prior and noise for given features, in closed form from all points.

        At most `trajectories` are used (if points move, 4 frames for each); `progress` is called after each iteration.
        """
        random = np.random.default_rng([11])
        box = invariant_box(module, self.source, self.augmentation)
        average: Callable[[GaussianPrior, Tensor], GaussianPrior] | None = None
        if box is not None:  # average the prior over the group instead of fitting it to moved copies
            action = FeatureAction.of(module, self.source.normalisation, box)
            average = partial(action.averaged, transformations=self.augmentation.sample(random, _GROUP_ELEMENTS))
        if self.augmentation and box is None:
            chosen = random.choice(self.training, trajectories, replace=len(self.training) < trajectories)
        else:
            chosen = random.permutation(self.training)[: trajectories if not self.source.shared_points else None]
        moved = self.augmentation if box is None else None
        groups = _grouped(self.source.moved(chosen, moved, random), 4 * trajectories, random)

        known: list[tuple[Tensor, Tensor]] = []

        def features(points: Tensor) -> Tensor:  # cached for repeated points
            if not known or not torch.equal(known[0][0], points):
                with torch.no_grad():
                    known[:] = [(points, module.features(points.to(module.output.dtype)))]
            return known[0][1]

        # Keep all modes of a span that is invariant under symmetries: operators on it can be averaged over the group.
        floor = _FLOOR if box is None else -1.0
        modes = fit_output_modes(features, groups, iterations, floor, largest, progress, average)
        return refit_variances(modes, features, self._further_groups(trajectories))

    def _further_groups(self, trajectories: int) -> list[tuple[Tensor, Tensor]]:
        """Frames that the modes are not fitted to: of validation, and of new copies of all trajectories."""
        random = np.random.default_rng([13])
        every = np.concatenate([self.training, self.validation]) if self.augmentation else self.validation
        if not len(every):
            return []
        chosen = random.permutation(every)[:trajectories]
        return _grouped(self.source.moved(chosen, self.augmentation, random), 4 * trajectories, random)


def split_points(points: int) -> tuple[Tensor, Tensor]:
    """Indices of kept and held-out points (none if there are few), whatever the width to which a batch is padded."""
    held = torch.as_tensor(np.random.default_rng([0]).random(points) < _HELD_OUT)
    if points < _FEW_POINTS:
        held[:] = False
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]


def _features(module: AffineDecoder, x: Tensor) -> Tensor:
    with torch.no_grad():
        return module.features(x.to(module.output))


def _grouped(batch: TrajectoryBatch, most: int, random: np.random.Generator) -> list[tuple[Tensor, Tensor]]:
    """Frames grouped by shared points, at most `most` groups; if points move, every frame is its own group."""
    x, u = batch.groups()
    pick = torch.as_tensor(random.permutation(len(x))[:most]) if len(x) > most else slice(None)
    return list(zip(x[pick], u[pick], strict=True))


def _residual(offset: Tensor, basis: Tensor, u: Tensor, codes: Tensor) -> Tensor:
    """Decoded minus observed values (G, F, N, C), 0 where not observed."""
    decoded = offset[:, None] + torch.einsum("gncz,gfz->gfnc", basis, codes)
    return torch.where(torch.isfinite(u), decoded - torch.nan_to_num(u), 0.0)


def solve_ridge(offset: Tensor, basis: Tensor, u: Tensor) -> Tensor:
    """Ridge codes (G, F, Z), detached, of frames u (G, F, N, C); offset (G, N, C), basis (G, N, C, Z)."""
    offset, basis = offset.detach(), basis.detach()
    design = basis.flatten(1, 2)
    target = (u - offset[:, None]).flatten(2)
    observed = torch.isfinite(target)
    eye = torch.eye(design.shape[-1], dtype=design.dtype, device=design.device)
    if bool(observed.all()):
        gram = design.transpose(1, 2) @ design / design.shape[1] + _RIDGE * eye
        right = target @ design / design.shape[1]
        return torch.linalg.solve(gram, right.transpose(1, 2)).transpose(1, 2)
    weight = observed.to(design.dtype)
    share = weight.sum(-1).clamp(min=1.0)
    gram = torch.einsum("gpz,gfp,gpy->gfzy", design, weight, design) / share[..., None, None] + _RIDGE * eye
    right = (torch.nan_to_num(target) * weight) @ design / share[..., None]
    return torch.linalg.solve(gram, right[..., None])[..., 0]
