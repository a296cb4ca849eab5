"""Recipe: auto-decoding, codes of training frames optimised with their decoder (Park et al. 2019; CORAL 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import Decoder, decoder_class, device_of
from inrflow.decoders.filter_net import FourierFilterNet
from inrflow.decoders.siren import ModulatedSiren
from inrflow.encoding.adam import frame_errors
from inrflow.encoding.encode import GRADIENT_RATE, METHODS, CodeData
from inrflow.encoding.gauss_newton import gauss_newton, negative_log_posterior
from inrflow.encoding.gradient_steps import gradient_steps_encode
from inrflow.encoding.posterior import GaussianPrior, condition
from inrflow.numerics.levenberg_marquardt import levenberg_marquardt
from inrflow.training.candidate import Candidate
from inrflow.training.loop import OptimiserSettings, Stage, run_stage
from inrflow.training.parts.codes import solve_codes
from inrflow.training.parts.linear import choose_linear
from inrflow.training.parts.rollouts import network_candidate
from inrflow.training.parts.trunk import split_points
from inrflow.training.problem import Problem
from inrflow.training.recipes.reduced_order import closed_form_candidate
from inrflow.training.run import Run

DEFAULT_CODE_SIZE = 50
_SHARE = 0.45  # share of the time budget
_RATE = 3e-3
_TRAJECTORIES_PER_STEP = 16
_FRAMES_PER_STEP = 64
_PAIRS_PER_STEP = 2**14  # pairs of frame and point in a step
_PAIRS_OF_GRADIENT_STEPS = 2**12  # fewer, since each costs several passes forward and back
_RIDGE = 1e-3
_SCORED_FRAMES = 32
SMALLEST_NOISE = 1e-8


class AutoDecodingRecipe:
    """Modulated SIREN or filter network trained with the codes of its frames, then dynamics of these codes.

    With dynamics.linear they are fitted in closed form, else they are a network alone, as in CORAL (Serrano et al.,
    NeurIPS 2023). Symmetries are not used: codes belong to single frames.
    """

    name = "auto_decoding"

    def applies(self, problem: Problem, best: Candidate | None) -> str | None:
        """None, or why codes are not optimised with the decoder."""
        if problem.has_solved_codes:
            return "the configured codes are a linear solve"
        if problem.config.training.joint:
            return "training.joint=true trains decoder and dynamics together"
        return None

    def propose(self, run: Run) -> Iterator[Candidate]:
        """Candidates on auto-decoded codes."""
        run = run.without_symmetries()
        decoder, prior, train, validation = auto_decode(run)
        if not run.config.dynamics.linear:
            yield network_candidate(run, self.name, decoder, prior, train, validation)
            return
        floor = float(prior.noise.mean())
        chosen = choose_linear(run, train, validation, floor, [decoder.code_size], self.name)
        yield closed_form_candidate(run, self.name, decoder, prior, chosen)


def make_decoder(problem: Problem) -> Decoder:
    """A decoder of the configured kind and code size, with weights initialised by the seed."""
    torch.manual_seed(problem.config.seed)
    settings, embedding, channels = problem.config.decoder, problem.embedding(), len(problem.description.channels)
    size = settings.code_size or DEFAULT_CODE_SIZE * channels
    own, depth = decoder_class(settings.name), settings.depth or 3
    if issubclass(own, FourierFilterNet):
        return own(embedding, channels, size, settings.width, depth, settings.filter_scale)
    if issubclass(own, ModulatedSiren):
        w0 = settings.w0 or (2.0 if embedding.oscillates else 5.0)
        return own(embedding, channels, size, settings.width, depth, w0, settings.modulation)
    return own(embedding, channels, size)


def auto_decode(run: Run, share: float = _SHARE) -> tuple[Decoder, GaussianPrior, CodeData, CodeData | None]:
    """A decoder trained with its codes; their prior, and the codes of training and validation trajectories."""
    problem, config, training, encoding = run.problem, run.config, run.config.training, run.config.encoding
    decoder = make_decoder(problem)
    frames = AutoDecoderTraining(problem.source, problem.train, problem.validation)
    module = frames.make(decoder, encoding.method, inner_rate=encoding.rate or GRADIENT_RATE,
                         inner_steps=encoding.iterations or 3).to(problem.device)
    optimiser = OptimiserSettings(training.optimiser, training.decoder_rate or _RATE, training.weight_decay)
    stage = Stage("decoder", module, frames.loss, frames.score, optimiser=optimiser, seed=config.seed, validations=10,
                  title="auto-decoder", shared=encoding.method != "gauss_newton")  # which updates codes itself
    steps = run.steps("decoder", stage, share, 100_000)
    error = run_stage(stage, steps, run.log)
    run.log.say(f"auto-decoder: {steps} steps, error at held-out points {error:.2e} of the variance")
    decoder, prior, batch = decoder.eval(), frames.prior(module), problem.source.batch(problem.train)
    train = CodeData(frames.codes(module).double(), problem.scale.internal(batch.t), batch.observed)
    validation = solve_codes(run, decoder, prior, problem.validation) if len(problem.validation) else None
    return decoder, prior, train, validation


class AutoDecoder(nn.Module):
    """A decoder and the codes of its training frames: the module of a stage and its checkpoint.

    Args:
        decoder: any decoder.
        trajectories, frames: size of the table of codes.
        method: one of METHODS.
        code_rate: learning rate of the codes relative to the decoder's ("adam"; DINo: 1e-3 against 1e-2).
        inner_rate, inner_steps: of "gradient_steps"; encoding must use the same.
    """

    table: Tensor
    damping: Tensor

    def __init__(
        self, decoder: Decoder, trajectories: int, frames: int, method: str, code_rate: float = 0.1,
        inner_rate: float = 1.0, inner_steps: int = 3
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
        self.decoder, self.method = decoder, method
        self.code_rate, self.inner_rate, self.inner_steps = code_rate, inner_rate, inner_steps
        self.shape = (trajectories, frames, decoder.code_size)
        if method == "adam":
            # Adam steps have about the size of the learning rate for any scale of the gradient, so codes defined as
            # `code_rate` times the parameter have their own rate. A flat parameter: SOAP then acts as Adam.
            self.table = nn.Parameter(torch.zeros(trajectories * frames * decoder.code_size))
        elif method == "gauss_newton":
            self.register_buffer("table", torch.zeros(self.shape))
            self.register_buffer("damping", torch.full(self.shape[:2], 1e-2))

    def codes(self, rows: Tensor, frames: Tensor) -> Tensor:
        """Codes (B, Z) of frames `frames` (B,) of table rows `rows` (B,)."""
        if self.method == "adam":
            return self.code_rate * self.table.view(self.shape)[rows, frames]
        return self.table[rows, frames]


class AutoDecoderTraining:
    """Loss, score and statistics of an `AutoDecoder` on a source of trajectories.

    Row i of the table is trajectory `training[i]`. Frames of one step may have their own points and missing values.

    Args:
        source: normalised trajectories.
        training, validation: their indices; without validation trajectories, held-out points of training ones are
            scored.
    """

    def __init__(self, source: TrajectorySource, training: np.ndarray, validation: np.ndarray) -> None:
        self.source, self.training, self.validation = source, training, validation

    @cached_property
    def observed(self) -> Tensor:
        """Mask (S, T) of training frames with values."""
        return torch.cat([self.source.batch([int(i)]).observed for i in self.training])

    def make(self, decoder: Decoder, method: str, **options: float) -> AutoDecoder:
        """The module to train: the decoder with codes for all training frames."""
        trajectories, frames = self.observed.shape
        return AutoDecoder(decoder, trajectories, frames, method, **options)  # type: ignore[arg-type]

    # ---- losses ----

    def loss(
        self, module: nn.Module, step: int, steps: int, random: np.random.Generator, part: slice = slice(None)
    ) -> Tensor:
        """Mean squared error of a random batch of frames, normalised units; updates the table of "gauss_newton"."""
        assert isinstance(module, AutoDecoder)
        rows = random.permutation(len(self.training))[:_TRAJECTORIES_PER_STEP]
        batch = self.source.batch(self.training[rows])
        seen = batch.observed.nonzero()
        chosen = seen[torch.as_tensor(random.permutation(len(seen))[:_FRAMES_PER_STEP])]
        x, u = batch.gathered(chosen)
        kept = split_points(u.shape[1])[0]
        pairs = _PAIRS_OF_GRADIENT_STEPS if module.method == "gradient_steps" else _PAIRS_PER_STEP
        limit = max(64, pairs // max(1, len(chosen)))
        if len(kept) > limit:
            kept = kept[torch.as_tensor(random.permutation(len(kept))[:limit])]
        home = device_of(module)
        every, chosen = len(chosen), chosen[part]
        x, u = (x if x.dim() == 2 else x[part])[..., kept, :].to(home), u[part][:, kept].to(home)
        at = torch.as_tensor(rows)[chosen[:, 0]], chosen[:, 1]
        if module.method == "gradient_steps":
            codes = self._inner_steps(module, x, u, create_graph=True)
        else:
            if module.method == "gauss_newton":
                _gauss_newton_step(module, x, u, *at)
            codes = module.codes(*at)
        return frame_errors(module.decoder, x, u, codes).sum() / every

    @staticmethod
    def _inner_steps(module: AutoDecoder, x: Tensor, u: Tensor, create_graph: bool = False) -> Tensor:
        return gradient_steps_encode(module.decoder, x, u, module.inner_steps, module.inner_rate, create_graph)

    # ---- judging ----

    @torch.no_grad()
    def score(self, module: nn.Module) -> float:
        """Error at held-out points of validation frames whose codes are solved from the other points, normalised units.

        Codes come from the inner steps for "gradient_steps", else from least squares with the prior of the table's
        codes."""
        assert isinstance(module, AutoDecoder)
        judged = self.validation if len(self.validation) else self.training
        batch = self.source.batch(judged[:8])
        x, u, _ = batch.some_frames(_SCORED_FRAMES)
        decoder, (kept, held) = module.decoder, split_points(u.shape[1])
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
    def codes(self, module: AutoDecoder) -> Tensor:
        """Codes (S, T, Z) of all training frames, in the order of `training`; zero for unobserved frames."""
        if module.method == "adam":
            return module.code_rate * module.table.detach().cpu().view(module.shape)
        if module.method == "gauss_newton":
            return module.table.cpu().clone()
        codes = torch.zeros(module.shape)
        for row, trajectory in enumerate(self.training):
            batch = self.source.batch([int(trajectory)])
            seen = batch.observed.nonzero()
            x, u = batch.gathered(seen)
            codes[row, seen[:, 1]] = self._inner_steps(module, x, u)
        return codes

    @torch.no_grad()
    def prior(self, module: AutoDecoder) -> GaussianPrior:
        """Gaussian prior of the codes of observed training frames, and their residual noise; float64."""
        parts = module.decoder.channels if module.decoder.code_per_channel else 1
        return prior_of(self.source, self.training, module.decoder, self.codes(module), self.observed, parts)


@torch.no_grad()
def prior_of(
    source: TrajectorySource, trajectories: np.ndarray, decoder: Decoder, codes: Tensor, observed: Tensor,
    parts: int = 1,
) -> GaussianPrior:
    """Gaussian prior of codes (S, T, Z) of trajectories at `observed` frames (S, T), with the residual noise in some of
    these; float64. `parts`: number of independent blocks of codes."""
    rows = np.unique(np.linspace(0, len(trajectories) - 1, 8).astype(int))
    x, u, seen = source.batch(trajectories[rows]).some_frames(_SCORED_FRAMES)
    error = (decoder(x, codes[torch.as_tensor(rows)[seen[:, 0]], seen[:, 1]].float()) - u).square()
    total, count = error.nan_to_num().sum((0, 1)), torch.isfinite(u).sum((0, 1))
    noise = (total / count.clamp(min=1)).clamp(min=SMALLEST_NOISE).double()
    return GaussianPrior.shrunk(codes[observed].double(), noise, parts)


@torch.no_grad()
def _gauss_newton_step(module: AutoDecoder, x: Tensor, u: Tensor, rows: Tensor, frames: Tensor) -> None:
    """One Levenberg-Marquardt step for rows of the table; a step that increases the error of its frame is rejected."""
    ones, count = torch.ones(module.decoder.code_size, dtype=torch.float64), torch.isfinite(u).sum((1, 2), True)
    prior = GaussianPrior(0 * ones, ones.diag() / _RIDGE, count.clamp(min=1).double()).to(device_of(module))  # of means
    moved = levenberg_marquardt(
        module.table[rows, frames].double(), *negative_log_posterior(module.decoder, x, u, prior), steps=1,
        damping=module.damping[rows, frames].double(), lowered=0.3, bounds=(1e-4, 1e4),
    )
    module.table[rows, frames], module.damping[rows, frames] = moved.point.to(u), moved.damping.to(u)
