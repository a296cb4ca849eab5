"""Recipe: a modulated SIREN and a network vector field, trained by descent through the integrator."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.sum import VectorField
from inrflow.training.candidate import Candidate
from inrflow.training.parts.codes import TrainingCodes
from inrflow.training.parts.decoder import FittedDecoder, fit_trunk
from inrflow.training.parts.rollouts import network_candidate
from inrflow.training.problem import Problem
from inrflow.training.recipes.auto_decoding import auto_decode
from inrflow.training.run import Run

_TAIL = 1e-4  # share of the variance of the codes that are left out


class NeuralRecipe:
    """A modulated SIREN with a network vector field, without a search for closed-form dynamics.

    Codes of output modulation are solved (variable projection), those of other modulations descended with the decoder.
    The field is trained on rollouts through torchdiffeq.

    Args:
        field: function of the code size to the vector field to train, by default a network as configured.
        decoder: function of the run to the fitted affine decoder, by default a SIREN trunk.
    """

    name = "neural"

    def __init__(
        self, field: Callable[[int], VectorField] | None = None, decoder: Callable[[Run], FittedDecoder] = fit_trunk
    ) -> None:
        self.field, self.decoder = field, decoder

    def applies(self, problem: Problem, best: Candidate | None) -> str | None:
        """None, or why it is not tried beside closed forms."""
        asked = problem.config.recipe == self.name or self.field is not None
        if asked or (problem.has_solved_codes and not problem.config.dynamics.linear):
            return None
        return "closed-form dynamics are sought instead; give recipe=neural to train a network"

    def propose(self, run: Run) -> Iterator[Candidate]:
        """The trained model."""
        decoder: Decoder
        unseen = None
        if run.problem.has_solved_codes:
            fitted = self.decoder(run)
            sizes, fixed = fitted.modes.variances, run.config.decoder.code_size  # or by variance
            large = int((sizes.flip(0).cumsum(0).flip(0) / sizes.sum() > _TAIL).sum())
            fitted = fitted.leading(min(len(sizes), fixed or max(1, large)))
            decoder, prior, unseen = fitted.decoder, fitted.modes.prior(), fitted.interpolation_error
            codes = TrainingCodes(run, decoder, prior)
            train, validation = codes.with_copies(), codes.validation
        else:
            run = run.without_symmetries()
            decoder, prior, train, validation = auto_decode(run)
        field = None if self.field is None else self.field(decoder.code_size)
        yield network_candidate(run, self.name, decoder, prior, train, validation, unseen, field)
