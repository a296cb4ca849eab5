"""The learning problem of one training run: data, split, symmetries, environments and settings. Immutable."""

from __future__ import annotations

import warnings
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
from inrflow.errors import UserError
from inrflow.evaluation.place import seen_of
from inrflow.numerics.effort import effort

if TYPE_CHECKING:
    from inrflow.domains import Domain

HARMONIC_FEATURES = (200, 300)  # numbers of harmonics that are tried, the largest last
_LARGEST_MESH = 20_000  # largest number of nodes of a mesh stored with the model
WINDOWS, _PAST = 64, 10  # windows of one series for validation and calibration, and their observed frames
_BLOCK = 16  # trajectories that are encoded at a time
_LINEAR_STEP = 1 / 16  # of rk4, internal time
_FRAMES_TO_SPARE = 5  # number of frames from which the last ones can be held out
_FAR = 8.0  # means in standard deviations beyond which laws use differences from the mean


@dataclass(frozen=True)
class Problem:
    """A learning problem. Variants (a completed source, fewer symmetries, another split) are made by `replace`.

    Attributes:
        config: settings of the run; never modified.
        file: the open data file.
        source: trajectories that the decoder is trained on; observed: the same before missing values were filled in.
        train, validation: indices of trajectories. Without validation trajectories the last frames are held out.
        symmetries: those in use; environments: groups of trajectories with a common context.
        noise: (C,) variance of observed values about those of the source, normalised; None: they are identical.
        white: whether this variance is white noise of single values.
        domain: of the fields of the source, if it is known from observed rows; None: it follows from the points.
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
    noise: torch.Tensor | None = None
    white: bool = False
    domain: Domain | None = None

    @classmethod
    def of(cls, config: Config, file: TrajectoryFile, trajectories: int | None = None) -> Problem:
        """The problem of a configuration and an open file.

        Args:
            trajectories: only the first ones of the file, None for all.
        Raises:
            UserError: for data without dynamics.
        """
        data = config.data
        if data.points == 1.0 and not file.declares_domain:
            file.take_apparent_domain(data.frames)
        source = TrajectorySource(file, data.frames, data.points, data.same_points, config.seed)
        environments = environments_of(file, config.dynamics.context)
        groups = None if environments is None else environments.index
        symmetries = Symmetries.asked(data.symmetries, file.description, file.box)
        # With symmetry copies, even few trajectories can spare one for validation.
        alone = groups is None and not len(symmetries)
        in_time = alone and source.times.shape[1] >= _FRAMES_TO_SPARE
        if trajectories is None:
            train, validation = choose_split(len(source), data.validation, config.seed, groups, in_time)
        else:
            train, validation = choose_split(min(trajectories, len(source)), data.validation, config.seed)
        if config.encoding.method == "closed_form":
            source, train, validation = affordable(source, train, validation, groups, config.training.minutes)
        source.fit_normalisation(train)
        if clash := file.description.clash:
            warnings.warn(f"{file.path}: {clash}", stacklevel=2)
        check_plausible(source, train, data.faults == "kept")
        return cls(config, file, source, source, train, validation, symmetries, environments,
                   TimeScale.of(source.times), choose_device(config.device))

    @classmethod
    def open(cls, path: str | Path, *settings: str) -> Problem:
        """The problem of a data file, which stays open, with settings as on the command line ("data.frames=10").

        Raises UserError for unknown or incompatible settings, and for a file that cannot be read or trained on.
        """
        config: Config = resolve("train", Config, [*settings, f"data.train={path}"])
        check_settings(config)
        return cls.of(config, TrajectoryFile(path))

    # ---- properties of the data ----

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
        """Region of a sphere that the data cover."""
        return seen_of(self.file) if self.description.geometry == "sphere" else None

    @property
    def forcing_period(self) -> float:
        """Period of the declared forcing, internal time; 0 for none. Raises UserError if required but not declared."""
        wanted, period = self.config.dynamics.forcing, self.description.time_period
        if wanted and period is None:
            raise UserError("dynamics.forcing=true, but the data declare no time_period; add the attribute to the file")
        return 0.0 if period is None or wanted is False else period / self.scale.unit

    @property
    def unexplained(self) -> float:
        """Variance of observed values about those of the source, relative to the variance."""
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
    def setting_excluding_laws(self) -> str | None:
        """The first setting that excludes laws, in words; None if there is none."""
        dynamics = self.config.dynamics
        settings = {"dynamics.equation": not dynamics.equation, "dynamics.linear": not dynamics.linear,
                    "dynamics.memory": dynamics.memory}
        return next((f"{key} sets other dynamics" for key, asked in settings.items() if asked), None)

    def augmentation(self, symmetries: Symmetries | None = None) -> Augmentation:
        """Random symmetry copies, for the symmetries in use or others."""
        symmetries = self.symmetries if symmetries is None else symmetries
        extent = self.box[1] - self.box[0]
        return Augmentation(symmetries, extent, self.description.period)

    def validated_in_time(self) -> Problem:
        """The problem that trains on all trajectories and is validated by their last frames."""
        every = np.sort(np.concatenate([self.train, self.validation]))
        return replace(self, train=every, validation=every[:0])

    # ---- codes ----

    def embedding(self, features: int = HARMONIC_FEATURES[0], harmonics: int | None = None) -> Embedding:
        """The coordinate embedding, with at most `features` harmonics of the domain, or all up to a wavenumber."""
        settings, about = self.config.decoder, self.description
        wanted = settings.harmonics if harmonics is None else harmonics
        if wanted is None:
            points = round(self.source.points * self.config.data.points)
            if not self.source.shared_points or len(self.symmetries):
                points *= len(self.train)
            wanted = max(0, int((min(features, 0.7 * points) ** (1 / len(about.coordinates)) - 1) // 2))
        return make_embedding(self.box[0].tolist(), self.box[1].tolist(), about.period if settings.periodic else None,
                              about.geometry, settings.wavenumbers, wanted)

    def codes(
        self, decoder: Decoder, prior: GaussianPrior, rows: np.ndarray, augmentation: Augmentation | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> CodeData:
        """Codes of whole trajectories, block by block; with an augmentation each is moved by a random symmetry."""
        parts, random = [], np.random.default_rng([self.config.seed, 17])
        for start in range(0, len(rows), _BLOCK):
            effort.check()
            batch = self.source.moved(rows[start : start + _BLOCK], augmentation, random)
            parts.append(CodeData(encode(decoder, batch, prior), self.scale.internal(batch.t), batch.observed))
            progress(min(start + _BLOCK, len(rows)))
        return CodeData.join(parts)

    def judging(self, train: CodeData, validation: CodeData | None) -> tuple[CodeData, CodeData, int]:
        """Codes to fit to, codes for validation, and the frame from which forecasts of the latter start.

        Without validation trajectories the last fifth of the frames of the training ones is held out.
        """
        if validation is not None:
            return train, validation, 0
        cut = self.fitted_frames
        return train.frames(cut), train.first(len(self.train)), cut - 1

    @property
    def fitted_frames(self) -> int:
        """Number of frames of the training trajectories that models are fitted to before one is chosen."""
        frames = self.source.times.shape[1]
        return frames if len(self.validation) else max(2, int(0.8 * frames))

    @property
    def fewest_observed(self) -> int:
        """Least number of observed frames at the start of windows of `held_out`: the past of a series is known."""
        return 1 if len(self.validation) else min(_PAST, self.fitted_frames)

    @property
    def centre(self) -> torch.Tensor:
        """Means (C,) of the channels over their standard deviations if larger than 8 in size, else 0.

        Of temperatures in kelvin, for example, powers are nearly collinear, and differences from the mean are used
        instead."""
        normal = self.source.normalisation
        mean = normal.mean.double().flatten() / normal.scale.double().flatten()
        return torch.where(mean.abs() > _FAR, mean, 0.0)

    @property
    def differences(self) -> list[str]:
        """Names of the channels minus their centres, in the units of the data."""
        means = self.centre * self.source.normalisation.scale.double().flatten()
        return [f"({name}{-mean:+.6g})" if mean else name
                for name, mean in zip(self.description.channels, means.tolist(), strict=True)]

    def fields(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Numbers (S,), internal times (S, T), points (S, N, d) and values (S, T, N, C) of trajectories at the fitted
        frames, or of windows of them where some are missing, at points with values in some trajectory (others are land,
        or a body in a flow). Values are divided by standard deviations of the channels, minus their `centre`. None if
        points move."""
        batch, scale = self.source.batch(rows, normalised=False), self.source.normalisation.scale.double().flatten()
        if batch.x.shape[1] != 1:
            return None
        t = self.scale.internal(batch.t).numpy()[:, : self.fitted_frames]
        x, u = batch.x[:, 0].double().numpy(), (batch.u[:, : self.fitted_frames].double() / scale - self.centre).numpy()
        u[np.isnan(t)], x = np.nan, np.broadcast_to(x, (len(t), *x.shape[1:]))
        seen = np.isfinite(u).any((0, 1, 3)) if np.equal(x, x[:1]).all() else np.ones(x.shape[1], dtype=bool)
        x, u, number = x[:, seen], u[:, :, seen], np.arange(len(rows))
        if np.isnan(u).any():
            from inrflow.encoding.harmonic.gaps import without_gaps

            number, t, u = without_gaps(t, x, u)
        whole = ~np.isnan(t).any(1)
        return rows[number[whole]], t[whole], x[number[whole]], u[whole]

    def domains(self, x: np.ndarray) -> list[Domain]:
        """Plausible domains of the points (S, N, d) of trajectories. Raises UserError if there are none."""
        from inrflow.domains import domains_of  # finite elements take a second to import

        if self.domain is not None:
            return [self.domain]
        about, cells = self.description, self.file.cells
        places = x if cells is None else self.file.read(0, slice(0, 1)).x
        return domains_of(np.asarray(places, dtype=np.float64), about.period, about.geometry, cells)

    def fitted(self, most: int) -> TrajectoryBatch:
        """The first training trajectories, at most `most`, normalised."""
        return self.source.batch(self.train[:most])

    def held_out(self, past: int, most: int | None = None, cut: int | None = None) -> TrajectoryBatch:
        """Validation trajectories from their first observed frames on, in data units, or, without any, windows of the
        training ones: `past` observed frames, then leads among the frames from `cut` on, by default the last fifth,
        without values of places that begin later, of which no model is known before. At most `most` of them; None: all
        trajectories, or 64 windows."""
        if len(self.validation):
            source = self.source if self.noise is None else self.observed
            return source.batch(self.validation[:most], normalised=False).begun()
        batch, cut = self.source.batch(self.train, normalised=False), cut or self.fitted_frames
        leads, starts = series_windows(batch.u.shape[1], cut, past, max(1, (most or WINDOWS) // len(batch)))
        begun = torch.isfinite(batch.u[:, :cut]).any((0, 1)) if self.source.shared_points else torch.ones(1, 1).bool()
        begun |= ~begun.any(0)  # of a channel of which no place has begun all are kept
        if not bool(begun.all()):
            batch = batch.with_values(batch.u.where(begun, torch.nan))
        return batch.windows(starts, past + leads)

    # ---- the result ----

    def integrator(self, linear: bool = False) -> Integrator:
        """The configured integrator; for linear fields with a step that integrates the fastest codes, which rotate by
        half a turn between frames, with an error of 4e-5 a frame."""
        settings = self.config.dynamics
        step = min(settings.step, _LINEAR_STEP) if linear else settings.step
        return Integrator(settings.method, step, settings.rtol, settings.atol, settings.adjoint)

    def encoder(self) -> Encoder:
        """The configured encoder: least squares, or descent."""
        encoding = self.config.encoding
        return Encoder.of(encoding.method, encoding.iterations, encoding.rate)

    @property
    def metadata(self) -> dict[str, Any]:
        """Data and settings stored with models, as plain values."""
        config, data = self.config, self.config.data
        return {"seed": config.seed, "points": data.points, "same_points": data.same_points, "test": data.test,
                "frames": self.source.times.shape[1], "trajectories": len(self.train) + len(self.validation),
                "symmetries": list(self.symmetries.names), "seen": self.seen, "faults": data.faults,
                "parameters": self.file.parameter_ranges, "apparent_domain": not self.file.declares_domain}

    @property
    def mesh(self) -> dict[str, Any] | None:
        """The mesh of the file as the state of a region in plain values; None if there is none, or a very large one."""
        cells = self.file.cells if self.file.points <= _LARGEST_MESH else None
        if cells is None or cells.shape[1] != self.box.shape[1] + 1:
            return None
        x = self.file.read(0, slice(0, 1)).x
        return {"kind": "region", "nodes": x.tolist(), "cells": cells.tolist(), "order": 1}


def check_settings(config: Config) -> None:
    """Raise UserError for settings that are incompatible with each other or with this machine."""
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
            f"training.joint=true needs encoding.method=adam, dynamics.linear=false and dynamics.depth of 1 or more; "
            f"found {method}, {str(config.dynamics.linear).lower()} and {config.dynamics.depth}"
        )


def has_solved_codes(config: Config) -> bool:
    """Whether a configuration has an affine decoder with codes in closed form."""
    decoder = config.decoder
    affine = issubclass(decoder_class(decoder.name), AffineDecoder) and list(decoder.modulation) == ["output"]
    return affine and config.encoding.method == "closed_form"
