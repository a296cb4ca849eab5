"""The learning problem: data, split, symmetries, environments and settings of one training run. Immutable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inrflow.config.resolve import resolve
from inrflow.config.schema import Config
from inrflow.data.batch import TimeScale, TrajectoryBatch
from inrflow.data.description import Description, Symmetries
from inrflow.data.formats.trajectory_file import Environments, TrajectoryFile, environments_of
from inrflow.data.plausible import check_plausible
from inrflow.data.source import TrajectorySource, affordable, choose_split
from inrflow.data.transformations import Augmentation
from inrflow.decoders.base import AffineDecoder, Decoder, choose_device, decoder_class, decoder_names
from inrflow.decoders.embeddings import Embedding, make_embedding
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.states import series_windows
from inrflow.encoding.encode import METHODS, CodeData, Encoder, encode
from inrflow.encoding.posterior import GaussianPrior
from inrflow.encoding.prior.interpolation_error import InterpolationError
from inrflow.errors import UserError
from inrflow.evaluation.place import seen_of
from inrflow.numerics.effort import effort

if TYPE_CHECKING:
    from inrflow.domains import Domain

HARMONIC_FEATURES = (200, 300)  # functions of the domain's harmonics: few, then as many as are ever used
_LARGEST_MESH = 20_000  # nodes of a mesh that is kept with the model
WINDOWS, _PAST = 64, 10  # of one series, that judge and calibrate, and frames that these begin with at least
_BLOCK = 16  # trajectories that are encoded at a time
_LINEAR_STEP = 1 / 16  # of rk4, internal time
_FRAMES_TO_SPARE = 5  # frames from which on the last ones can be held out
_FAR = 8.0  # deviations from 0, beyond which laws are those of what channels differ from their means by


@dataclass(frozen=True)
class Problem:
    """What is to be learned. Variants (a completed source, fewer symmetries, another split) come from `replace`.

    Attributes:
        config: settings of the run; never written.
        file: the open data file.
        source: trajectories that the decoder is trained on; observed: the same before anything was filled in.
        train, validation: indices of trajectories. Without validation trajectories the last frames are held out.
        symmetries: those that are used; environments: groups of trajectories with a context of their own.
        interpolation_error: variance between the observed points, where it is known before training.
        noise: (C,) variance of observed values around those of the source, normalised; None: they are the same.
        white: whether all of it is noise of single values.
        domain: where the source's fields live, where observed rows told; None: its points say.
    """

    config: Config
    file: TrajectoryFile
    source: TrajectorySource
    observed: TrajectorySource
    train: np.ndarray
    validation: np.ndarray
    symmetries: Symmetries
    environments: Environments | None
    scale: TimeScale
    device: torch.device
    interpolation_error: InterpolationError | None = None
    noise: torch.Tensor | None = None
    white: bool = False
    domain: Domain | None = None

    @classmethod
    def of(cls, config: Config, file: TrajectoryFile, trajectories: int | None = None) -> Problem:
        """The problem that a configuration poses on an open file.

        Args:
            trajectories: only the first ones of the file, None for all.
        Raises:
            UserError: for data that show no dynamics.
        """
        data = config.data
        if data.points == 1.0 and not file.declares_domain:
            file.take_apparent_domain(data.frames)
        source = TrajectorySource(file, data.frames, data.points, data.same_points, config.seed)
        environments = environments_of(file, config.dynamics.context)
        groups = None if environments is None else environments.index
        symmetries = Symmetries.asked(data.symmetries, file.description, file.box)
        # Moved copies make much of few trajectories, so that they can spare one.
        alone = groups is None and not len(symmetries)
        in_time = alone and source.times.shape[1] >= _FRAMES_TO_SPARE
        if trajectories is None:
            train, validation = choose_split(len(source), data.validation, config.seed, groups, in_time)
        else:
            train, validation = choose_split(min(trajectories, len(source)), data.validation, config.seed)
        if config.encoding.method == "closed_form":
            source, train, validation = affordable(source, train, validation, groups, config.training.minutes)
        source.fit_normalisation(train)
        check_plausible(source, train, data.faults == "kept")
        return cls(config, file, source, source, train, validation, symmetries, environments,
                   TimeScale.of(source.times), choose_device(config.device))

    @classmethod
    def open(cls, path: str | Path, *settings: str) -> Problem:
        """The problem of a data file, which stays open, with settings as on the command line ("data.frames=10").

        Raises UserError for settings that do not exist or do not go together, and for a file that cannot be read or
        trained on.
        """
        config: Config = resolve("train", Config, [*settings, f"data.train={path}"])
        check_settings(config)
        return cls.of(config, TrajectoryFile(path))

    # ---- what the data are ----

    @property
    def description(self) -> Description:
        """Names, units, periods and geometry."""
        return self.file.description

    @cached_property
    def box(self) -> np.ndarray:
        """(2, d) corners of the data's bounding box."""
        return self.file.box

    @cached_property
    def seen(self) -> dict[str, Any] | None:
        """Where on a sphere the data lie."""
        return seen_of(self.file) if self.description.geometry == "sphere" else None

    @property
    def forcing_period(self) -> float:
        """Period of the declared forcing, internal time; 0 for none. Raises UserError where it is asked for in vain."""
        wanted, period = self.config.dynamics.forcing, self.description.time_period
        if wanted and period is None:
            raise UserError("dynamics.forcing=true, but the data declare no time_period; add the attribute to the file")
        return 0.0 if period is None or wanted is False else period / self.scale.unit

    @property
    def unexplained(self) -> float:
        """Share of the variance by which values of the source miss observed ones."""
        return 0.0 if self.noise is None else float(self.noise.mean())

    @property
    def has_harmonics(self) -> bool:
        """Whether the domain is a box that is periodic in all coordinates."""
        period = self.description.period
        return period is not None and all(value > 0 for value in period) and self.description.geometry is None

    @property
    def has_solved_codes(self) -> bool:
        """Whether codes are weights of an affine decoder, solved by least squares."""
        return has_solved_codes(self.config)

    @property
    def asks_for_other_dynamics(self) -> str | None:
        """The first setting that asks for other dynamics than a law, in words; None where there is none."""
        dynamics = self.config.dynamics
        settings = {"dynamics.equation": not dynamics.equation, "dynamics.linear": not dynamics.linear,
                    "dynamics.memory": dynamics.memory}
        return next((f"{key} asks for other dynamics" for key, asked in settings.items() if asked), None)

    def augmentation(self, symmetries: Symmetries | None = None) -> Augmentation:
        """Random symmetry copies, under the symmetries in use or others."""
        symmetries = self.symmetries if symmetries is None else symmetries
        extent = self.box[1] - self.box[0]
        return Augmentation(symmetries, extent, self.description.period)

    def judged_in_time(self) -> Problem:
        """The problem that trains on all trajectories, and is judged by their last frames."""
        every = np.sort(np.concatenate([self.train, self.validation]))
        return replace(self, train=every, validation=every[:0])

    # ---- codes ----

    def embedding(self, features: int = HARMONIC_FEATURES[0], harmonics: int | None = None) -> Embedding:
        """The coordinate embedding, with at most `features` harmonics of the domain, or all up to a wavenumber."""
        return make_embedding(
            self.box[0].tolist(), self.box[1].tolist(),
            self.description.period if self.config.decoder.periodic else None, self.description.geometry,
            self.config.decoder.wavenumbers, self._harmonics(features) if harmonics is None else harmonics,
        )

    def _harmonics(self, features: int) -> int:
        wanted, d = self.config.decoder.harmonics, len(self.description.coordinates)
        if wanted is not None:
            return wanted
        points = round(self.source.points * self.config.data.points)
        if not self.source.shared_points or len(self.symmetries):
            points *= len(self.train)
        largest = min(features, 0.7 * points)
        return max(0, int((largest ** (1 / d) - 1) // 2))

    def codes(
        self, decoder: Decoder, prior: GaussianPrior, rows: np.ndarray, augmentation: Augmentation | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> CodeData:
        """Codes of whole trajectories, moved by a random symmetry each if an augmentation is given; block by block."""
        parts, random = [], np.random.default_rng([self.config.seed, 17])
        for start in range(0, len(rows), _BLOCK):
            effort.check()
            batch = self.source.moved(rows[start : start + _BLOCK], augmentation, random)
            parts.append(CodeData(encode(decoder, batch, prior), self.scale.internal(batch.t), batch.observed))
            progress(min(start + _BLOCK, len(rows)))
        return CodeData.join(parts)

    def judging(self, train: CodeData, validation: CodeData | None) -> tuple[CodeData, CodeData, int]:
        """Codes to fit to, codes to judge by, and the frame from which forecasts of the latter begin.

        Without validation trajectories the last fifth of the frames of the training ones is held out.
        """
        if validation is not None:
            return train, validation, 0
        cut = self.fitted_frames
        return train.frames(cut), train.first(len(self.train)), cut - 1

    @property
    def fitted_frames(self) -> int:
        """Frames of the training trajectories that models are fitted to before the judge has chosen."""
        frames = self.source.times.shape[1]
        return frames if len(self.validation) else max(2, int(0.8 * frames))

    @property
    def fewest_observed(self) -> int:
        """Frames that windows of `held_out` begin with at least: of a series the past is known."""
        return 1 if len(self.validation) else min(_PAST, self.fitted_frames)

    @property
    def centre(self) -> torch.Tensor:
        """Means (C,) of the channels over their deviations, where these are far from 0; 0 elsewhere.

        Of temperatures in kelvin, say, powers are all alike, and what is a step for them is none for the field.
        """
        normal = self.source.normalisation
        mean = normal.mean.double().flatten() / normal.scale.double().flatten()
        return torch.where(mean.abs() > _FAR, mean, 0.0)

    @property
    def differences(self) -> list[str]:
        """The channels' names, less their centres in the data's units."""
        means = self.centre * self.source.normalisation.scale.double().flatten()
        return [f"({name}{-mean:+.6g})" if mean else name
                for name, mean in zip(self.description.channels, means.tolist(), strict=True)]

    def fields(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Numbers (S,), internal times (S, T), points (S, N, d) and values (S, T, N, C), over the channels' deviations,
        less their `centre`, of trajectories whose times are all known, at frames that are fitted to and points of which
        some trajectory has values: others are land, or a body in a flow. None where points move."""
        batch, scale = self.source.batch(rows, normalised=False), self.source.normalisation.scale.double().flatten()
        if batch.x.shape[1] != 1:
            return None
        t = self.scale.internal(batch.t).numpy()[:, : self.fitted_frames]
        x, u = batch.x[:, 0].double().numpy(), (batch.u[:, : self.fitted_frames].double() / scale - self.centre).numpy()
        whole, x = ~np.isnan(t).any(1), np.broadcast_to(x, (len(t), *x.shape[1:]))
        seen = np.isfinite(u).any((0, 1, 3)) if np.equal(x, x[:1]).all() else np.ones(x.shape[1], dtype=bool)
        return rows[whole], t[whole], x[whole][:, seen], u[whole][:, :, seen]

    def domains(self, x: np.ndarray) -> list[Domain]:
        """Plausible domains of the points (S, N, d) of trajectories. Raises UserError where there are none."""
        from inrflow.domains import domains_of  # finite elements take a second to import

        if self.domain is not None:
            return [self.domain]
        about, cells = self.description, self.file.cells
        places = x if cells is None else self.file.read(0, slice(0, 1)).x
        return domains_of(np.asarray(places, dtype=np.float64), about.period, about.geometry, cells)

    def fitted(self, most: int) -> TrajectoryBatch:
        """The first training trajectories, at most so many, normalised."""
        return self.source.batch(self.train[:most])

    def held_out(self, past: int, most: int | None = None, cut: int | None = None) -> TrajectoryBatch:
        """Validation trajectories in data units or, without any, windows of the training ones: `past` frames, and leads
        after them, which are all of the frames from `cut` on, by default the last fifth. At most so many; None: all
        trajectories, or 64 windows."""
        if len(self.validation):
            source = self.source if self.noise is None else self.observed
            return source.batch(self.validation[:most], normalised=False)
        batch, cut = self.source.batch(self.train, normalised=False), cut or self.fitted_frames
        leads, starts = series_windows(batch.u.shape[1], cut, past, max(1, (most or WINDOWS) // len(batch)))
        return batch.windows(starts, past + leads)

    # ---- the result ----

    def integrator(self, linear: bool = False) -> Integrator:
        """The configured integrator; of linear fields with a step that follows the fastest codes, which turn half
        around from frame to frame, to 4e-5 a frame."""
        settings = self.config.dynamics
        step = min(settings.step, _LINEAR_STEP) if linear else settings.step
        return Integrator(settings.method, step, settings.rtol, settings.atol, settings.adjoint)

    def encoder(self) -> Encoder:
        """The configured encoder: least squares, or steps of descent."""
        encoding = self.config.encoding
        return Encoder.of(encoding.method, encoding.iterations, encoding.rate)

    @property
    def metadata(self) -> dict[str, Any]:
        """What models of it keep of data and settings, plain values."""
        config, data = self.config, self.config.data
        return {"seed": config.seed, "points": data.points, "same_points": data.same_points, "test": data.test,
                "frames": self.source.times.shape[1], "trajectories": len(self.train) + len(self.validation),
                "symmetries": list(self.symmetries.names), "seen": self.seen, "faults": data.faults,
                "parameters": self.file.parameter_ranges, "apparent_domain": not self.file.declares_domain}

    @property
    def mesh(self) -> dict[str, Any] | None:
        """The mesh of the file, as the state of a region in plain values; None where it has none, or a huge one."""
        cells = self.file.cells if self.file.points <= _LARGEST_MESH else None
        if cells is None or cells.shape[1] != self.box.shape[1] + 1:
            return None
        x = self.file.read(0, slice(0, 1)).x
        return {"kind": "region", "nodes": x.tolist(), "cells": cells.tolist(), "order": 1}


def check_settings(config: Config) -> None:
    """Raise UserError for settings that do not go together, or not with this machine."""
    choose_device(config.device)
    settings, method = config.decoder, config.encoding.method
    if settings.name not in decoder_names():
        raise UserError(f"decoder.name={settings.name!r}; choose from {', '.join(decoder_names())}, or import the "
                        "module that registers it")
    if not settings.modulation or set(settings.modulation) - {"shift", "scale", "output"}:
        raise UserError(f"decoder.modulation={list(settings.modulation)}; give a subset of [shift, scale, output]")
    if method not in ("closed_form", *METHODS):
        raise UserError(f"encoding.method={method!r}; choose from closed_form, {', '.join(METHODS)}")
    if method == "closed_form" and not has_solved_codes(config):
        raise UserError(
            "encoding.method=closed_form needs a siren with output modulation or another decoder with a linear output "
            f"layer, found decoder {settings.name} with modulation {list(settings.modulation)}; give "
            "encoding.method=gauss_newton, adam or gradient_steps"
        )
    if config.training.joint and (method != "adam" or config.dynamics.linear or not config.dynamics.depth):
        raise UserError(
            f"training.joint=true moves codes by Adam and trains a network alone as field, found encoding.method="
            f"{method}, dynamics.linear={str(config.dynamics.linear).lower()}, dynamics.depth={config.dynamics.depth}; "
            "give adam, false and 1 or more"
        )


def has_solved_codes(config: Config) -> bool:
    """Whether a configuration has an affine decoder with codes in closed form."""
    decoder = config.decoder
    affine = issubclass(decoder_class(decoder.name), AffineDecoder) and list(decoder.modulation) == ["output"]
    return affine and config.encoding.method == "closed_form"
