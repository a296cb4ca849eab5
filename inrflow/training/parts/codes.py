"""Codes of the training trajectories and of their symmetry copies, within the time budget."""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from inrflow.data.transformations import Augmentation
from inrflow.decoders.base import AffineDecoder, Decoder
from inrflow.encoding.encode import CodeData
from inrflow.encoding.equivariance import code_action
from inrflow.encoding.posterior import GaussianPrior
from inrflow.training.run import Run

_FEWEST = 2
_COPIES_SHARE = 0.15  # share of the time budget


class TrainingCodes:
    """Codes of the trajectories of a run, and the means to copy them.

    Attributes:
        train, validation: codes of the training and of the validation trajectories, None without the latter.
        seconds: needed to encode all training trajectories.
        action: of symmetries on codes, if that is exact; None: copies are encoded.
    """

    def __init__(self, run: Run, decoder: Decoder, prior: GaussianPrior) -> None:
        self.run, self.decoder, self.prior, problem = run, decoder, prior, run.problem
        began = time.perf_counter()
        self.train = solve_codes(run, decoder, prior, problem.train)
        self.seconds = time.perf_counter() - began
        held = problem.validation
        self.validation = solve_codes(run, decoder, prior, held) if len(held) else None
        self.action = code_action(decoder, problem.source, problem.augmentation()) if isinstance(
            decoder, AffineDecoder) else None

    @property
    def wanted(self) -> int:
        """Number of copies of every trajectory for the symmetries of the run, without a time limit."""
        return copies_for(len(self.run.problem.train), len(self.run.problem.symmetries), self.run.config.data.copies)

    def affordable(self, name: str, wanted: int, share: float, passes: int = 1) -> int:
        """Number of copies of every trajectory, including the original: at most `wanted`, as many as can be encoded
        within a share of the budget, but at least two; recorded as a decision under `name`."""
        budget, most = self.run.budget, wanted
        if self.action is None and wanted > _FEWEST:
            each = passes * max(self.seconds, 1e-6)
            most = int(np.clip(1 + budget.seconds(share) / each, _FEWEST, wanted))
        return budget.decide(name, most)

    def with_copies(self, copies: int | None = None, augmentation: Augmentation | None = None) -> CodeData:
        """Originals first, then `copies` - 1 copies of each (default: as many as the budget allows), each moved by a
        random symmetry (default: of the problem)."""
        run = self.run
        copies = self.affordable("copies", self.wanted, _COPIES_SHARE) if copies is None else copies
        augmentation = run.problem.augmentation() if augmentation is None else augmentation
        if copies <= 1 or not augmentation:
            return self.train
        if self.action is None:
            repeated = np.tile(run.problem.train, copies - 1)
            return CodeData.join([self.train, solve_codes(run, self.decoder, self.prior, repeated, augmentation)])
        parts, codes = [self.train], self.train
        random = np.random.default_rng([run.config.seed, 17])
        for _ in range(copies - 1):
            moved = self.action(codes.codes, augmentation.sample(random, len(codes.codes)))
            parts.append(CodeData(torch.where(codes.observed[..., None], moved, codes.codes), codes.t, codes.observed))
        return CodeData.join(parts)


def solve_codes(
    run: Run, decoder: Decoder, prior: GaussianPrior, trajectories: np.ndarray,
    augmentation: Augmentation | None = None,
) -> CodeData:
    """Codes of some trajectories of a run, with a progress bar."""
    run.log.begin("encoded trajectories", len(trajectories))
    codes = run.problem.codes(decoder, prior, trajectories, augmentation, run.log.advance)
    run.log.end()
    return codes


def copies_for(trajectories: int, symmetries: int, wanted: int | None) -> int:
    """Number of copies of every training trajectory, including the original."""
    if not symmetries:
        return 1
    return wanted if wanted is not None else int(np.clip(math.ceil(1024 / trajectories), 4, 64))
