"""Recipe: DINo, in which codes, decoder and vector field are trained in the same iterations (Yin et al., ICLR 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.data.batch import TimeScale, TrajectoryBatch
from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.adam import adam_path
from inrflow.encoding.encode import ADAM_RATE, CodeData, Encoder
from inrflow.training.candidate import Candidate, Score
from inrflow.training.judge import rollout_error
from inrflow.training.loop import OptimiserSettings, Stage, run_stage
from inrflow.training.problem import Problem
from inrflow.training.recipes.auto_decoding import make_decoder, prior_of
from inrflow.training.run import Run

ENCODING_STEPS = (60, 100, 300, 500, 1000)
_JUDGED = 16  # validation trajectories on which the number of encoding steps is chosen
_SHARE = 0.95  # share of the time budget
_RATE = 3e-3
_FORCING, _FORCING_DECAY, _FORCING_EVERY = 0.99, 0.99, 100
_PAIRS = 2**14  # pairs of frame and point decoded at once


class JointRecipe:
    """DINo: a table of codes, a decoder and a network field, all by descent; without closed form and validation.

    Symmetries are not used: codes belong to single frames, and copies of trajectories would leave fewer steps for each.
    """

    name = "dino"

    def applies(self, problem: Problem, best: Candidate | None) -> str | None:
        """None, or why decoder and dynamics are not trained together."""
        return None if problem.config.training.joint else "training.joint=false"

    def propose(self, run: Run) -> Iterator[Candidate]:
        """The jointly trained model."""
        run = run.without_symmetries()
        problem, config = run.problem, run.config
        decoder = make_decoder(problem)
        parts, settings = config.dynamics, config.training
        field = VectorField.of(decoder.code_size, linear=False, width=parts.width, depth=parts.depth, swish=True)
        joint = JointTraining(problem.source, problem.train, problem.scale, settings.batch, config.seed)
        module = JointModule(decoder, field, len(joint.trajectories), problem.source.times.shape[1])
        stage = JointStage(
            "joint", module, loss=lambda *unused: torch.zeros(()),
            optimiser=OptimiserSettings(settings.optimiser, settings.decoder_rate or _RATE), seed=config.seed,
            training=joint, code_rate=settings.rollout_rate, title="joint training", shared=True,
        )
        steps = run.steps("decoder", stage, _SHARE, 1_000_000)
        run_stage(stage, steps, run.log)
        run.log.say(f"joint training: {steps} iterations, {len(joint.trajectories)} sequences, {joint.batch} in each")
        batch = joint.source.batch(joint.trajectories)
        codes = CodeData(module.codes().double(), joint.scale.internal(batch.t), batch.observed)
        prior = prior_of(problem.source, problem.train, decoder, codes.codes, codes.observed)
        iterations = _choose_iterations(run, module, joint)
        run.log.say(f"encoding: {iterations} Adam steps")
        field, integrator = module.field.double(), Integrator()
        error = rollout_error(field, integrator, codes, codes, 0, decoder.code_size)
        yield Candidate(
            problem, self.name, "trained network", decoder.eval(), prior, field, integrator, codes, codes, 0,
            Score(error, float(prior.noise.mean()), sum(p.numel() for p in field.parameters())),
            encoder=Encoder.of("adam", iterations, config.encoding.rate),
        )


def _choose_iterations(run: Run, module: JointModule, joint: JointTraining) -> int:
    """The number of Adam steps whose codes of first frames give the best rollouts of validation trajectories, compared
    in the data. More steps fit a frame better, but may leave the region of codes where the field was trained."""
    config, source, validation = run.config, run.problem.source, run.problem.validation
    if config.encoding.iterations:
        return config.encoding.iterations
    batch = source.batch((validation if len(validation) else joint.trajectories)[:_JUDGED])
    times, observed = joint.scale.internal(batch.t), torch.isfinite(batch.u)
    x = batch.x[:, 0].float()
    starts = adam_path(
        module.decoder, x[0] if len(x) == 1 else x, batch.u[:, 0], ENCODING_STEPS, config.encoding.rate or ADAM_RATE
    )

    def error(start: torch.Tensor) -> float:
        with torch.no_grad():
            codes = joint.integrator(module.field, start, times, check=False)
            decoded = module.decoder(batch.x.float(), codes)
        missed = torch.where(observed, decoded - torch.nan_to_num(batch.u), 0.0).square().sum() / observed.sum()
        return float(missed.nan_to_num(float("inf")))

    return ENCODING_STEPS[int(np.argmin([error(start) for start in starts]))]


class JointModule(nn.Module):
    """A decoder, a field and the table of codes: the module of the stage and its checkpoint.

    Attributes:
        table: one parameter (T, Z) for each trajectory, so that an optimiser changes only those of the batch.
    """

    def __init__(self, decoder: Decoder, field: VectorField, trajectories: int, frames: int) -> None:
        super().__init__()
        self.decoder, self.field = decoder, field
        self.table = nn.ParameterList(torch.zeros(frames, decoder.code_size) for _ in range(trajectories))

    @torch.no_grad()
    def codes(self) -> Tensor:
        """All codes, (S, T, Z)."""
        return torch.stack([row.detach() for row in self.table])


class JointTraining:
    """Losses of an iteration and their gradients.

    Args:
        source: normalised trajectories.
        trajectories: indices of the training trajectories.
        scale: internal time.
        batch: number of trajectories in an iteration.
    """

    def __init__(
        self, source: TrajectorySource, trajectories: np.ndarray, scale: TimeScale, batch: int = 32, seed: int = 0
    ) -> None:
        self.source, self.trajectories, self.scale, self.seed = source, trajectories, scale, seed
        self.integrator = Integrator()  # one step of rk4 a frame
        self.batch = min(batch, len(trajectories))

    def rows_of(self, step: int) -> np.ndarray:
        """Rows of the batch of iteration `step`: each epoch visits all rows once, in a new random order."""
        batches = -(-len(self.trajectories) // self.batch)
        order = np.random.default_rng([self.seed, 29, step // batches]).permutation(len(self.trajectories))
        return np.sort(order[step % batches :: batches])

    def accumulate(self, module: JointModule, step: int, random: np.random.Generator, part: slice = slice(None)
                   ) -> tuple[float, float]:
        """Add the gradients of a part of iteration `step`; returns its contributions to the errors of decoded frames
        and of rollouts of codes."""
        rows = self.rows_of(step)
        batch = self.source.batch(self.trajectories[rows])
        whole = int(torch.isfinite(batch.u).sum()), int(batch.observed.sum())
        rows, batch = rows[part], batch.select(part)
        if not len(rows):
            return 0.0, 0.0
        return (self.decoded_error(module, batch, rows, whole[0]),
                self.rollout_error(module, batch, rows, step, random, whole[1]))

    @staticmethod
    def decoded_error(module: JointModule, batch: TrajectoryBatch, rows: np.ndarray, count: int) -> float:
        """Sum of squared errors of decoded frames over `count`, the number of values, normalised units; adds the
        gradients of decoder and codes."""
        together, total = max(1, _PAIRS // (batch.u.shape[1] * batch.u.shape[2])), 0.0
        for start in range(0, len(rows), together):
            part = slice(start, start + together)
            codes, some = torch.stack([module.table[row] for row in rows[part]]), batch.select(part)
            decoded = module.decoder(some.x.float(), codes)
            error = torch.where(torch.isfinite(some.u), decoded - torch.nan_to_num(some.u), 0.0)
            loss = error.square().sum() / max(count, 1)
            loss.backward()
            total += float(loss.detach())
        return total

    def rollout_error(
        self, module: JointModule, batch: TrajectoryBatch, rows: np.ndarray, step: int, random: np.random.Generator,
        count: int,
    ) -> float:
        """Squared error of rollouts of codes with teacher forcing, mean over codes and `count` frames; adds the
        gradient of the field."""
        codes = torch.stack([module.table[row].detach() for row in rows])
        seen, times = batch.observed, self.scale.internal(batch.t)
        forced = random.random(codes.shape[1]) < teacher_forcing(step)
        state, total = codes[:, 0], codes.new_zeros(())
        for frame in range(codes.shape[1] - 1):
            if forced[frame]:
                state = torch.where(seen[:, frame, None], codes[:, frame], state)
            state = self.integrator(module.field, state, times[:, frame : frame + 2], check=False)[:, 1]
            error = torch.where(seen[:, frame + 1, None], state - codes[:, frame + 1], 0.0)
            total = total + error.square().sum()
            state = torch.where(torch.isfinite(state), state, codes[:, frame])  # past the end of a short trajectory
        loss = total / (codes.shape[-1] * max(count, 1))
        loss.backward()
        return float(loss.detach())


def teacher_forcing(step: int) -> float:
    """Probability that a rollout of iteration `step` is reset to the codes at a frame."""
    return _FORCING * _FORCING_DECAY ** (step // _FORCING_EVERY)


@dataclass
class JointStage(Stage):
    """A stage whose step is one iteration of DINo.

    Attributes:
        training: computes the losses of an iteration.
        code_rate: learning rate of codes and field; `optimiser.rate` is that of the decoder.
    """

    training: JointTraining | None = None
    code_rate: float = 1e-3

    def make_optimiser(self, module: nn.Module) -> torch.optim.Optimizer:
        """The configured optimiser, with a separate learning rate for the decoder."""
        assert isinstance(module, JointModule)
        slow = [*module.field.parameters(), *module.table]
        return self.optimiser.make([
            {"params": list(module.decoder.parameters()), "lr": self.optimiser.rate},
            {"params": slow, "lr": self.code_rate},
        ])

    def advance(self, module: nn.Module, optimiser: torch.optim.Optimizer, step: int, steps: int) -> float:
        """One iteration at constant learning rates; returns the error of decoded frames."""
        assert isinstance(module, JointModule) and self.training is not None
        optimiser.zero_grad(set_to_none=True)
        decoded, rollout = self.gradients(self.training.accumulate, module, step)
        if decoded + rollout < float("inf"):
            optimiser.step()
        return decoded
