"""Training of decoders whose codes are not solved in closed form: the published recipes, and Gauss-Newton.

    adam            a table of codes, one row per training frame, moved by the optimiser together with the decoder
                    (auto-decoding; DINo, Yin et al. 2023)
    gauss_newton    the same table, its visited rows moved by one damped Gauss-Newton step each time they are visited
    gradient_steps  no table: codes come from a few gradient steps from zero, and the decoder is trained through those
                    steps (second-order meta-learning; CORAL, Serrano et al. 2023)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.data.augmentation import Augmentation, moved_batch
from inrflow.data.batch import TrajectoryBatch
from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import Decoder
from inrflow.encoding.adam import frame_errors
from inrflow.encoding.gauss_newton import gauss_newton
from inrflow.encoding.gradient_steps import gradient_steps_encode
from inrflow.encoding.posterior import GaussianPrior, condition
from inrflow.numerics.levenberg_marquardt import levenberg_marquardt
from inrflow.runtime.devices import device_of

METHODS = ("adam", "gauss_newton", "gradient_steps")
_TRAJECTORIES_PER_STEP = 16
_FRAMES_PER_STEP = 64
_PAIRS_PER_STEP = 2**14  # pairs of frame and point
_PAIRS_OF_GRADIENT_STEPS = 2**12  # each costs several passes forward and back: more steps are worth more than points
_RIDGE = 1e-3
_HELD_OUT = 0.1
_SCORED_FRAMES = 32
_SHRINKAGE = 0.1
SMALLEST_NOISE = 1e-8


class TableDecoder(nn.Module):
    """A decoder and the codes of its training frames: what a stage trains and its checkpoint holds.

    Args:
        decoder: any decoder.
        trajectories, frames: size of the table.
        method: one of METHODS.
        code_rate: rate of the codes as a share of the decoder's ("adam"; DINo: 1e-3 against 1e-2).
        inner_rate, inner_steps: of "gradient_steps"; encoding must use the same.
    """

    table: Tensor
    damping: Tensor

    def __init__(
        self,
        decoder: Decoder,
        trajectories: int,
        frames: int,
        method: str,
        code_rate: float = 0.1,
        inner_rate: float = 1.0,
        inner_steps: int = 3,
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
        self.decoder, self.method = decoder, method
        self.code_rate, self.inner_rate, self.inner_steps = code_rate, inner_rate, inner_steps
        self.shape = (trajectories, frames, decoder.code_size)
        if method == "adam":
            # Adam moves every number by about its rate, whatever the gradient's scale, so codes that are `code_rate`
            # times the parameter have their own rate. One dimension: SOAP then treats it as Adam does.
            self.table = nn.Parameter(torch.zeros(trajectories * frames * decoder.code_size))
        elif method == "gauss_newton":
            self.register_buffer("table", torch.zeros(self.shape))
            self.register_buffer("damping", torch.full(self.shape[:2], 1e-2))

    def codes(self, rows: Tensor, frames: Tensor) -> Tensor:
        """Codes (B, Z) of frames `frames` (B,) of table rows `rows` (B,)."""
        if self.method == "adam":
            return self.code_rate * self.table.view(self.shape)[rows, frames]
        return self.table[rows, frames]


class TableTraining:
    """Losses, score and statistics of a `TableDecoder` on a source of trajectories.

    Row i of the table is trajectory `training[i]`. Frames of one step may have points of their own and miss values.

    Args:
        source: normalised trajectories.
        training, validation: their indices; without validation trajectories the score is that of held-out points of
            training trajectories.
        augmentation: random symmetry copies; only for "gradient_steps", because a row of a table belongs to one frame.
    """

    def __init__(
        self,
        source: TrajectorySource,
        training: np.ndarray,
        validation: np.ndarray,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.source, self.training, self.validation, self.augmentation = source, training, validation, augmentation
        self.all_points = False  # a last part of the stage may see the held-out points too
        first = source.batch(training[:1])
        self.frames = first.u.shape[1]

    def make(self, decoder: Decoder, method: str, **options: float) -> TableDecoder:
        """The module to train: the decoder with codes for all training frames."""
        if method != "gradient_steps" and self.augmentation:
            raise ValueError(f"symmetry copies need codes that are not kept in a table, found method {method!r}")
        return TableDecoder(decoder, len(self.training), self.frames, method, **options)  # type: ignore[arg-type]

    # ---- batches ----

    @staticmethod
    def _split(points: int) -> tuple[Tensor, Tensor]:
        """Indices of kept and held-out points; the same for a point whatever the width to which its batch is padded."""
        held = torch.as_tensor(np.random.default_rng([0]).random(points) < _HELD_OUT)
        return (~held).nonzero()[:, 0], held.nonzero()[:, 0]

    def _batch(self, trajectories: np.ndarray, random: np.random.Generator | None = None) -> TrajectoryBatch:
        """Normalised trajectories, moved by symmetries where a random generator is given."""
        if random is None:
            return self.source.batch(trajectories)
        return moved_batch(self.source, trajectories, self.augmentation, random)

    @staticmethod
    def _frames(batch: TrajectoryBatch, index: Tensor) -> tuple[Tensor, Tensor]:
        """Points (N, d) where all share them, else (B, N, d), and values (B, N, C) of frames `index` (B, 2)."""
        s, t = index.T
        u = batch.u[s, t].float()
        if batch.x.shape[:2] == (1, 1):
            return batch.x[0, 0].float(), u
        rows = s if len(batch.x) > 1 else torch.zeros_like(s)
        return batch.x[rows, t if batch.x.shape[1] > 1 else torch.zeros_like(t)].float(), u

    # ---- losses ----

    def loss(self, module: nn.Module, step: int, steps: int, random: np.random.Generator) -> Tensor:
        """Mean squared error of a random batch of frames, normalised units; moves the table of "gauss_newton"."""
        assert isinstance(module, TableDecoder)
        rows = random.permutation(len(self.training))[:_TRAJECTORIES_PER_STEP]
        batch = self._batch(self.training[rows], random)
        seen = batch.observed.nonzero()
        chosen = seen[torch.as_tensor(random.permutation(len(seen))[:_FRAMES_PER_STEP])]
        x, u = self._frames(batch, chosen)
        kept = torch.arange(u.shape[1]) if self.all_points else self._split(u.shape[1])[0]
        pairs = _PAIRS_OF_GRADIENT_STEPS if module.method == "gradient_steps" else _PAIRS_PER_STEP
        limit = max(64, pairs // max(1, len(chosen)))
        if len(kept) > limit:
            kept = kept[torch.as_tensor(random.permutation(len(kept))[:limit])]
        home = device_of(module)
        x, u = x[..., kept, :].to(home), u[:, kept].to(home)
        at = torch.as_tensor(rows)[chosen[:, 0]], chosen[:, 1]
        if module.method == "gradient_steps":
            codes = self._inner_steps(module, x, u, create_graph=True)
        else:
            if module.method == "gauss_newton":
                _gauss_newton_step(module, x, u, *at)
            codes = module.codes(*at)
        return frame_errors(module.decoder, x, u, codes).mean()

    @staticmethod
    def _inner_steps(module: TableDecoder, x: Tensor, u: Tensor, create_graph: bool = False) -> Tensor:
        return gradient_steps_encode(module.decoder, x, u, module.inner_steps, module.inner_rate, create_graph)

    # ---- judging ----

    @torch.no_grad()
    def score(self, module: nn.Module) -> float:
        """Error at held-out points of validation frames whose codes see the other points, normalised units.

        Codes come from the inner steps for "gradient_steps", else from the solve with the prior of the table's codes.
        """
        assert isinstance(module, TableDecoder)
        judged = self.validation if len(self.validation) else self.training
        batch = self.source.batch(judged[:8])
        seen = batch.observed.nonzero()
        seen = seen[torch.linspace(0, len(seen) - 1, min(len(seen), _SCORED_FRAMES)).long()]
        x, u = self._frames(batch, seen)
        decoder, (kept, held) = module.decoder, self._split(u.shape[1])
        held = held if len(held) else kept
        x_seen, u_seen = x[..., kept, :], u[:, kept]
        if module.method == "gradient_steps":
            codes = self._inner_steps(module, x_seen, u_seen)
        elif decoder.affine and x.dim() == 2:
            codes = condition(*decoder.basis(x_seen), u_seen, self.prior(module))[0]
        else:
            codes = gauss_newton(decoder, x_seen, u_seen, self.prior(module))[0]
        count = torch.isfinite(u[:, held]).flatten(1).sum(1)
        errors = frame_errors(decoder, x[..., held, :], u[:, held], codes.float())
        return float((errors * count).sum() / count.sum().clamp(min=1))

    @torch.no_grad()
    def codes(self, module: TableDecoder) -> Tensor:
        """Codes (S, T, Z) of all training frames, in the order of `training`; zero for frames that nobody observed."""
        if module.method == "adam":
            return module.code_rate * module.table.detach().cpu().view(module.shape)
        if module.method == "gauss_newton":
            return module.table.cpu().clone()
        codes = torch.zeros(module.shape)
        for row, trajectory in enumerate(self.training):
            batch = self.source.batch([int(trajectory)])
            seen = batch.observed.nonzero()
            x, u = self._frames(batch, seen)
            codes[row, seen[:, 1]] = self._inner_steps(module, x, u)
        return codes

    @torch.no_grad()
    def prior(self, module: TableDecoder) -> GaussianPrior:
        """Gaussian prior fitted on the codes of the observed training frames, and the noise that they leave; float64.

        The covariance is shrunk towards its diagonal: there may be fewer frames than code dimensions.
        """
        every = self.codes(module)
        observed = torch.cat([self.source.batch([int(i)]).observed for i in self.training])
        parts = module.decoder.channels if module.decoder.code_per_channel else 1
        mean, covariance = shrunk_moments(every[observed].double(), parts)
        rows = np.unique(np.linspace(0, len(self.training) - 1, 8).astype(int))
        batch = self.source.batch(self.training[rows])
        seen = batch.observed.nonzero()
        seen = seen[torch.linspace(0, len(seen) - 1, min(len(seen), _SCORED_FRAMES)).long()]
        x, u = self._frames(batch, seen)
        error = (module.decoder(x, every[torch.as_tensor(rows)[seen[:, 0]], seen[:, 1]]) - u).square()
        total, count = error.nan_to_num().sum((0, 1)), torch.isfinite(u).sum((0, 1))
        noise = (total / count.clamp(min=1)).clamp(min=SMALLEST_NOISE).double()
        return GaussianPrior(mean, covariance, noise)


def shrunk_moments(codes: Tensor, parts: int = 1, shrinkage: float = _SHRINKAGE) -> tuple[Tensor, Tensor]:
    """Mean (Z,) and covariance (Z, Z), shrunk towards its diagonal, of codes (F, Z) of which there may be few.

    The `parts` of equal size that a code consists of are taken as independent.
    """
    centred = codes - codes.mean(0)
    covariance = centred.T @ centred / max(1, len(codes) - 1)
    diagonal = covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(len(covariance), dtype=codes.dtype)
    owner = torch.arange(codes.shape[1]) // (codes.shape[1] // parts)
    covariance = torch.where(owner[:, None] == owner, covariance, 0.0)
    shrunk = (1 - shrinkage) * covariance + shrinkage * (torch.diag(covariance.diagonal()) + 1e-3 * diagonal)
    return codes.mean(0), shrunk


@torch.no_grad()
def _gauss_newton_step(module: TableDecoder, x: Tensor, u: Tensor, rows: Tensor, frames: Tensor) -> None:
    """One Levenberg-Marquardt step on the table's rows; a step that makes its frame worse is refused."""
    decoder, observed = module.decoder, torch.isfinite(u).flatten(1)
    count = observed.sum(1).clamp(min=1)

    def objective(z: Tensor) -> Tensor:
        return frame_errors(decoder, x, u, z) + _RIDGE * z.square().sum(1)

    def linearise(z: Tensor) -> tuple[Tensor, Tensor]:
        decoded, jacobian = decoder.linearise(x, z)
        residual = torch.where(observed, (u - decoded).flatten(1), 0.0)
        design = jacobian.flatten(1, 2) * observed[..., None]
        eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        curvature = design.transpose(1, 2) @ design / count[:, None, None] + _RIDGE * eye
        return curvature, (residual[:, None] @ design)[:, 0] / count[:, None] - _RIDGE * z

    moved = levenberg_marquardt(
        module.table[rows, frames], objective, linearise, steps=1, damping=module.damping[rows, frames],
        lowered=0.3, bounds=(1e-4, 1e4),
    )
    module.table[rows, frames], module.damping[rows, frames] = moved.point, moved.damping
