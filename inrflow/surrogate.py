"""The public face: a trained Surrogate, and the Solution it makes of observations, a field to be asked anywhere."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.assimilation import Dynamics, StateEstimate, StatePrior, assimilate_noisy
from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.data.frames import Frames
from inrflow.data.knots import Knots, is_scattered
from inrflow.data.normalisation import Normalisation
from inrflow.data.observations import Observations
from inrflow.decoders.base import Decoder
from inrflow.decoders.build import build_decoder, decoder_structure
from inrflow.devices import choose_device
from inrflow.dynamics.integrate import Integrator
from inrflow.dynamics.time_scale import TimeScale
from inrflow.dynamics.vector_field import FieldShape, VectorField
from inrflow.encoding.encode import Encoder
from inrflow.encoding.unseen import UnseenVariance
from inrflow.errors import UserError
from inrflow.files import load_tensors, save_tensors
from inrflow.solution import Solution

MODEL_FILE = "model.safetensors"
_KNOT_SPACING = 0.5  # internal time units between the knots of observations whose times all differ
FORMAT = "inrflow-surrogate"
VERSION = 1


@dataclass
class Surrogate:
    """A decoder, a vector field, and what both need to meet data: normalisation, time scale and priors.

    Attributes:
        description: of the training data (names, units, domain).
        normalisation: per channel.
        decoder: u = D(x; z), normalised units.
        field: ds/dtau = f(tau, s) of states [code, memory], internal time.
        integrator: how the field is integrated.
        prior: of states, of observed values around decoded ones, and of the field's error.
        scale: internal time from the data's time.
        box: lowest and highest coordinates of the training data, (2, d).
        horizon: time from the first to the last training frame, in the data's units.
        training: what else is known of the training, plain values (seed, fraction of points, ...).
        encoder: how the first observed frame is encoded; the solve, but for the published baselines.
    """

    description: Description
    normalisation: Normalisation
    decoder: Decoder
    field: VectorField
    integrator: Integrator
    prior: StatePrior
    scale: TimeScale
    box: np.ndarray
    horizon: float
    training: dict[str, Any]
    encoder: Encoder = Encoder()

    @property
    def code_size(self) -> int:
        """Z, without memory."""
        return self.decoder.code_size

    @property
    def parameters(self) -> int:
        """Number of trained or fitted numbers of decoder and vector field."""
        return sum(p.numel() for m in (self.decoder, self.field) for p in m.parameters())

    @property
    def dynamics(self) -> Dynamics:
        """The vector field with its integrator and error."""
        return Dynamics(self.field, self.integrator, self.prior.process)

    # ---- storing ----

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write `model.safetensors` into the directory: all tensors, and the structure as JSON in its header."""
        state = {
            "decoder": self.decoder.state_dict(),
            "field": self.field.state_dict(),
            "normalisation": {"mean": self.normalisation.mean, "scale": self.normalisation.scale},
            "prior": asdict(self.prior),
            "box": torch.as_tensor(self.box),
        }
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "description": self.description.to_dict(),
            "decoder": decoder_structure(self.decoder),
            "field": self.field.shape.to_dict(),
            "integrator": vars(self.integrator),
            "scale": vars(self.scale),
            "horizon": self.horizon,
            "training": self.training,
            "encoder": vars(self.encoder),
        }
        return save_tensors(Path(directory) / MODEL_FILE, state, metadata)

    @classmethod
    def load(cls, directory: str | os.PathLike[str], device: str = "cpu") -> Surrogate:
        """Read a run directory; the decoder computes on `device` ("auto", "cpu" or "cuda").

        Raises UserError where the device does not exist, or no finished model of this format is in the directory.
        """
        home, directory = choose_device(device), Path(directory)
        path = directory / MODEL_FILE
        if not path.exists():
            if not directory.exists():
                raise UserError(f"run directory {directory} does not exist; give one that inrflow train has written")
            if (directory / "config.yaml").exists():
                raise UserError(
                    f"{directory} holds a training run that has not finished: continue it with "
                    f"inrflow train resume={directory}"
                )
            raise UserError(f"{directory} holds no {MODEL_FILE}; give a run directory that inrflow train has written")
        state, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
            raise UserError(
                f"{path} has format {metadata.get('format')!r} version {metadata.get('version')!r}; this inrflow reads "
                f"{FORMAT} version {VERSION}: train again with it"
            )
        try:
            decoder = build_decoder(metadata["decoder"])
            decoder.load_state_dict(state["decoder"])
            field = VectorField(FieldShape(**metadata["field"])).double()
            field.load_state_dict(state["field"])
            return cls(
                description=Description.from_dict(metadata["description"]),
                normalisation=Normalisation(**state["normalisation"]),
                decoder=decoder.eval().to(home),
                field=field.eval(),
                integrator=Integrator(**metadata["integrator"]),
                prior=_state_prior(state["prior"]),
                scale=TimeScale(**metadata["scale"]),
                box=state["box"].numpy(),
                horizon=metadata["horizon"],
                training=metadata["training"],
                encoder=Encoder(**metadata["encoder"]),
            )
        except (KeyError, TypeError, RuntimeError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} is of another version of inrflow ({reason}); train again with this one") from error

    # ---- using ----

    def estimate(self, window: TrajectoryBatch, covariance: bool = True) -> StateEstimate:
        """States of a window of frames in data units: t (S, K), x (S or 1, K or 1, N, d), u (S, K, N, C)."""
        delay = None if window.delay is None else window.delay / self.scale.unit
        inner = TrajectoryBatch(self.scale.internal(window.t), window.x, self.normalisation.apply(window.u), delay)
        return assimilate_noisy(self.decoder, self.dynamics, self.prior, inner, covariance, encoder=self.encoder)

    def assimilate(
        self, observations: Observations | Sequence[Observations] | Mapping[int, Observations]
    ) -> Any:
        """The solution that explains observations of one trajectory, a `Solution`.

        A sequence or a mapping of observations gives a list or a dict of solutions. Warns where the observations lie
        outside what the surrogate was trained on. Raises UserError where they do not fit its channels or coordinates.
        """
        if isinstance(observations, Mapping):
            return {key: self.assimilate(value) for key, value in observations.items()}
        if not isinstance(observations, Observations):
            return [self.assimilate(value) for value in observations]
        frames = observations.frames()
        d, channels = len(self.description.coordinates), len(self.description.channels)
        if frames.x.shape[-1] != d or frames.u.shape[-1] != channels:
            raise UserError(
                f"the observations have {frames.x.shape[-1]} coordinates and {frames.u.shape[-1]} channels; the "
                f"surrogate of {self.description.name} has {d} ({', '.join(self.description.coordinates)}) and "
                f"{channels} ({', '.join(self.description.channels)})"
            )
        window = self._window(frames, len(observations))
        self.warn_outside(self.outside(frames.x))
        estimate = self.estimate(window)
        size = self.code_size
        distance = float(self.prior.codes(size).mahalanobis(estimate.mean[0, :, :size]).max())
        if distance > 25.0:
            warnings.warn(
                f"the observed field is unlike the training data (its code lies {distance**0.5:.1f} standard "
                "deviations from them): do not trust the forecast without checking it",
                stacklevel=2,
            )
        return Solution(self, estimate, as_torch=observations.kind == "torch")

    def _window(self, frames: Frames, rows: int) -> TrajectoryBatch:
        """Frames of one trajectory as a batch; rows that each have a time of their own are gathered around knots."""
        x, u = torch.as_tensor(frames.x), torch.as_tensor(frames.u)
        if not (self.decoder.affine and is_scattered(rows, len(frames))):
            return TrajectoryBatch(torch.as_tensor(frames.t)[None], x[None] if x.dim() == 3 else x[None, None], u[None])
        seen = np.isfinite(frames.u).any(-1)
        t = np.broadcast_to(frames.t[:, None], seen.shape)[seen]
        places = np.broadcast_to(frames.x, (*seen.shape, frames.x.shape[-1]))[seen]
        knots = Knots.spaced(float(t.min()), float(t.max()), _KNOT_SPACING * self.scale.unit)
        place, values, delay, _ = knots.gather(t, places, frames.u[seen])
        return TrajectoryBatch(*(torch.as_tensor(v)[None] for v in (knots.times, place, values, delay.astype(float))))

    def outside(self, x: np.ndarray | Tensor) -> np.ndarray:
        """Which of the points (..., d) leave the box of the training data along coordinates that are not periodic."""
        points = np.asarray(x)
        if self.description.geometry == "sphere":
            return np.zeros(points.shape[:-1], bool)
        margin = 1e-6 * (self.box[1] - self.box[0] + 1e-300)
        beyond = (points < self.box[0] - margin) | (points > self.box[1] + margin)
        if self.description.period is not None:
            beyond &= np.asarray(self.description.period) == 0
        return beyond.any(-1)

    def warn_outside(self, outside: np.ndarray) -> None:
        """Warn, once, where any of the points asked for is `outside` the box of the training data."""
        if not outside.any():
            return
        box = ", ".join(
            f"{name} {low:.4g} to {high:.4g}"
            for name, low, high in zip(self.description.coordinates, *self.box, strict=True)
        )
        warnings.warn(
            f"{100 * outside.mean():.3g} % of the points lie outside the box of the training data ({box}): values "
            "there are extrapolated",
            stacklevel=3,
        )


def _state_prior(state: dict[str, Any]) -> StatePrior:
    unseen = state.get("unseen")
    return StatePrior(**{**state, "unseen": None if unseen is None else UnseenVariance(**unseen)})
