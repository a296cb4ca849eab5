"""Environments: groups of trajectories of one system, by parameters, environment number or trajectory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

KINDS = ("auto", "none", "environment", "trajectory", "parameters")


@dataclass(frozen=True)
class Environments:
    """Systems of a trajectory file, numbered from 0.

    kind: what distinguishes them, "parameters", "environment" or "trajectory". index: (S,) the environment of each
    trajectory. labels: (E,) the file's own numbers ("environment"), else 0, 1, .... parameters: (E, Q) the values of
    parameters that vary, None where unknown or not used. names: their Q names.
    """

    kind: str
    index: np.ndarray
    labels: np.ndarray
    parameters: np.ndarray | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """The number E of environments."""
        return len(self.labels)


def environments_of(file: TrajectoryFile, wanted: str = "auto") -> Environments | None:
    """The environments of a file; None where all trajectories belong to one, or `wanted` is "none".

    "auto": by parameters where the file holds some that vary, else by environment where it has several. Raises
    UserError where the file does not hold what is wanted.
    """
    if wanted not in KINDS:
        raise UserError(f"dynamics.context={wanted!r}; choose from {', '.join(KINDS)}")
    if wanted == "none" or (wanted == "trajectory" and file.trajectories < 2):
        return None
    if wanted == "trajectory":
        return Environments("trajectory", np.arange(file.trajectories), np.arange(file.trajectories))
    names, values = varying_parameters(file)
    if wanted in ("auto", "parameters") and len(names):
        rows, index = np.unique(values, axis=0, return_inverse=True)
        return Environments("parameters", index.reshape(-1), np.arange(len(rows)), rows, names)
    if wanted == "parameters":
        raise UserError(f"dynamics.context=parameters, but {file.path} holds no parameters that vary between its "
                        "trajectories; give dynamics.context=environment or trajectory")
    if file.environment is not None and len(np.unique(file.environment)) > 1:
        labels, index = np.unique(file.environment, return_inverse=True)
        return Environments("environment", index.reshape(-1), labels)
    if wanted == "environment":
        raise UserError(f"dynamics.context=environment, but {file.path} holds one environment; give "
                        "dynamics.context=trajectory or none")
    return None


def varying_parameters(file: TrajectoryFile) -> tuple[tuple[str, ...], np.ndarray]:
    """Names (Q,) and values (S, Q) of the parameters that are not the same for all trajectories."""
    if file.parameters is None:
        return (), np.zeros((file.trajectories, 0))
    values = file.parameters
    varies = np.ptp(values, axis=0) > 1e-12 * np.abs(values).max(0)
    names = tuple(name for name, kept in zip(file.description.parameter_names, varies, strict=True) if kept)
    return names, values[:, varies]


def named_parameters(file: TrajectoryFile, names: tuple[str, ...]) -> np.ndarray | None:
    """Values (S, Q) of the named parameters, None where the file lacks one of them."""
    available = file.description.parameter_names
    if file.parameters is None or not names or not set(names) <= set(available):
        return None
    return file.parameters[:, [available.index(name) for name in names]]
