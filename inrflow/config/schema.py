"""Configurations of all commands: dataclasses against which overrides on the command line are checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inrflow.config.setting import setting
from inrflow.config.train_schema import Config, ObserveConfig, ReadConfig, StepsConfig

__all__ = ["SCHEMAS", "AdaptConfig", "Config", "ConvertConfig", "EvaluateConfig", "ExploreConfig", "ExportConfig",
           "ForecastConfig",
           "GenerateConfig", "NextConfig", "ObserveConfig", "PlotConfig", "QueryConfig", "StepsConfig", "UpdateConfig"]

_RUN = "Run directory of inrflow train."
_STATIONS = "Table with names and places of stations, where the observations have a column for each, or one of names."
_NO_RUN = "DIR is missing; give a run directory that inrflow train has written"
_DEVICE = "auto, cpu, cuda or cuda:N."
_PHYSICS = "Which physics, for a run on several. null: the one that the data belong to."


def _all_points() -> ObserveConfig:
    return ObserveConfig(points=1.0)


@dataclass
class TestDataConfig:
    """The file to forecast."""

    test: str | None = setting(None, "Data file. null: the one that the run was trained with.")


@dataclass
class EvaluateConfig:
    """Errors of forecasts beside those of the reference forecasts."""

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    physics: str | None = setting(None, _PHYSICS)
    data: TestDataConfig = field(default_factory=TestDataConfig)
    observe: ObserveConfig = field(default_factory=_all_points)
    device: str = setting("auto", _DEVICE)
    output: str | None = setting(
        None, "Folder of evaluation.json and pictures. null: outputs/evaluate/<date-time>."
    )


@dataclass
class AdaptDataConfig:
    """Trajectories of the new system."""

    train: str | None = setting(None, "Data file.", required="FILE is missing; give a file with trajectories of the "
                                "new system")
    test: str | None = setting(None, "File on which forecasts before and after are compared. null: none.")
    frames: int | None = setting(None, "Use the first frames of every trajectory. null: all.", least=2)
    points: float = setting(1.0, "Fraction of the points observed: a seeded random subset of each trajectory.",
                            above=0, most=1)
    same_points: bool = setting(False, "Observe the same subset of points in all trajectories.")
    trajectories: int | None = setting(None, "Use the first trajectories. null: all.", least=1)


@dataclass
class AdaptSettings:
    """How much of the model is fitted."""

    strength: str = setting("auto", "none: nothing, a law is moved to the domain of the new data. context: a few "
                            "numbers, everything else frozen. decoder: its output layer too. all: the affine part of "
                            "the vector field too, or the coefficients of a law. The last two are pulled towards the "
                            "pretrained values or left, as kept-back frames say. auto: all for laws, else context.")
    copies: int | None = setting(None, "Total copies of each trajectory under the symmetries of the run, counting the "
                                 "original. null: 1 for a context or a law, else 4.", least=1)
    scratch_minutes: float = setting(0.25, "With data.test: budget of training a model from scratch on the same "
                                     "frames, for comparison. 0: none.", least=0)
    minutes: float | None = setting(None, "Of a run on several physics: budget of training a further one. null: as "
                                    "much as each of them had.", above=0)


@dataclass
class AdaptConfig:
    """Adapt a run to a new system from a few of its trajectories; the result is a run directory."""

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    data: AdaptDataConfig = field(default_factory=AdaptDataConfig)
    adapt: AdaptSettings = field(default_factory=AdaptSettings)
    observe: ObserveConfig = field(default_factory=_all_points)
    seed: int = setting(0, "Seed of all random choices.", least=0)
    device: str = setting("auto", _DEVICE)
    output: str | None = setting(None, "The new run directory. null: outputs/adapt/<date-time>.")


@dataclass
class QueryConfig:
    """Values at any points and times, from observations of the same trajectories.

    Files are in any format that is read, with a column trajectory where there are several. The answer has, beside what
    is asked for, a column `extrapolated`: 1 outside of the box of the training data, or before the first observation or
    farther after it than training saw.
    """

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    physics: str | None = setting(None, _PHYSICS)
    observations: str | None = setting(
        None, "File with t, the coordinates and the channels.",
        required="FILE is missing; give a file with t, the coordinates and the channels")
    stations: str | None = setting(None, _STATIONS)
    points: str | None = setting(None, "File with t and the coordinates.",
                                 required="FILE is missing; give a file with t and the coordinates")
    to: str | None = setting(None, "The answer: .csv, .parquet, .h5, .nc, .zarr ... null: the name of points, in the "
                             "folder output.")
    std: bool = setting(False, "Add the standard deviation of each channel.")
    derivatives: bool = setting(False, "Add the derivatives of each channel by the coordinates and time.")
    overwrite: bool = setting(False, "Replace the file `to` if it exists.")
    device: str = setting("auto", _DEVICE)
    output: str | None = setting(None, "Folder of the answer without `to`. null: outputs/query/<date-time>.")


@dataclass
class ForecastConfig:
    """Quantiles of what comes after the observations, at their own places or at given ones.

    The answer has columns <channel>_q05, _q50 and _q95 (of values as they would be observed) and `extrapolated`: 1
    outside of the box of the training data, or farther from the first observation than training saw.
    """

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    observations: str | None = setting(
        None, "File with t, the coordinates and the channels.",
        required="FILE is missing; give a file with t, the coordinates and the channels")
    stations: str | None = setting(None, _STATIONS)
    until: str | None = setting(None, "Last time: a number in the data's units, or an ISO date.",
                                required="TIME is missing; give the last time of the forecast")
    every: float | None = setting(None, "Time between forecasts. null: the usual step of the training data.", above=0)
    points: str | None = setting(None, "File whose places are asked for. null: all that were observed.")
    observed: bool = setting(False, "Add the observed rows, and of these <channel>_z_score: by how many standard "
                             "deviations a value differs from what all observations let expect.")
    to: str | None = setting(None, "The answer: .csv, .parquet, .h5, .nc, .zarr ... null: forecast.csv in the folder "
                             "output.")
    physics: str | None = setting(None, _PHYSICS)
    overwrite: bool = setting(False, "Replace the file `to` if it exists.")
    device: str = setting("auto", _DEVICE)
    output: str | None = setting(None, "Folder of the answer without `to`. null: outputs/forecast/<date-time>.")


@dataclass
class NextConfig:
    """Where further sensors would tell most: the places that reduce the posterior variance at all candidates most.

    The answer has a row for each, the most telling first: `rank`, the coordinates, and `left`, the share of that
    variance that remains when this place and those before it are observed, too.
    """

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    observations: str | None = setting(
        None, "File with t, the coordinates and the channels.",
        required="FILE is missing; give a file with t, the coordinates and the channels")
    stations: str | None = setting(None, _STATIONS)
    points: str | None = setting(None, "File of candidates: the coordinates and t (not used), optionally a column "
                                 "weight: how much the variance there counts. null: random places of the box of the "
                                 "training data, inside of the domain.")
    count: int = setting(1, "Number of sensors.", least=1)
    at: str | None = setting(None, "Time: a number in the data's units, or an ISO date. null: the last observation's.")
    trajectory: int | None = setting(None, "Number of the trajectory. null: the first observed one.", least=0)
    to: str | None = setting(None, "The answer: .csv, .h5 or .nc. null: next.csv in the folder output.")
    physics: str | None = setting(None, _PHYSICS)
    overwrite: bool = setting(False, "Replace the file `to` if it exists.")
    seed: int = setting(0, "Seed of random candidates.", least=0)
    device: str = setting("auto", _DEVICE)
    output: str | None = setting(None, "Folder of the answer without `to`. null: outputs/next/<date-time>.")


@dataclass
class UpdateDataConfig:
    """What was observed since."""

    train: str | None = setting(None, "File with further observations: later times, further places, or corrections.",
                                required="FILE is missing; give a file with further observations")


@dataclass
class UpdateConfig:
    """A run continued with further observations: its data grow by them, and what was fitted is fitted to all, the last
    new ones kept back to judge by. Where these are unlike the data before, or more than those, the recipe that was
    chosen is trained anew, which is told.

    Of values at a time and place that were observed before, the later ones count. The result is a run directory; the
    earlier one stays as it is.
    """

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    data: UpdateDataConfig = field(default_factory=UpdateDataConfig)
    minutes: float | None = setting(None, "Time for training anew. null: that of the run.", above=0)
    anew: bool = setting(False, "Train anew in any case.")
    device: str = setting("auto", _DEVICE)
    output: str | None = setting(None, "The new run directory. null: outputs/update/<date-time>.")


@dataclass
class PlotConfig:
    """Pictures of a run: truth, forecast, error and uncertainty of one trajectory, errors against time, losses."""

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    physics: str | None = setting(None, _PHYSICS)
    data: TestDataConfig = field(default_factory=TestDataConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)
    channel: str | None = setting(None, "Channel to draw. null: all.")
    trajectory: int = setting(0, "Number of the trajectory.", least=0)
    frames: int = setting(5, "Times in the still picture.", least=1)
    animation: bool = setting(True, "Draw the animation as well.")
    pdf: bool = setting(False, "Write still pictures as PDF (vectors) in place of PNG.")
    edges: bool = setting(False, "Draw the edges of a mesh.")
    times: list[str] | None = setting(None, "Times to draw, [0.1,0.2], or dates. null: those of the data.")
    points: str | None = setting(None, "File of points to draw. null: those of the data.")
    resolution: int | None = setting(None, "Draw on a grid of so many points along each axis instead.", least=2)
    device: str = setting("auto", _DEVICE)
    output: str | None = setting(None, "Folder of the pictures. null: outputs/plot/<date-time>.")


@dataclass
class ExportConfig:
    """A run as programs that need no inrflow: decoding, vector field and steps as torch.export programs and ONNX
    graphs, and a model card. Needs pip install 'inrflow[export]'."""

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    points: str | None = setting(None, "File of the points (t, which is not used, and the coordinates) at which values "
                                 "are decoded. null: any points; on a mesh, its nodes.")
    parameters: dict[str, Any] = setting({}, "parameters.NAME=VALUE: known parameters at which the dynamics are "
                                         "exported. null: the mean of training.")
    physics: str | None = setting(None, _PHYSICS)
    output: str | None = setting(None, "Folder of the exported model. null: outputs/export/<date-time>.")


@dataclass
class ExploreConfig:
    """A page on this machine: pick a trajectory, move through time, zoom, look at errors, spread and slopes, click for
    the series at a point, give a table of observations. Needs pip install 'inrflow[explore]'."""

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    physics: str | None = setting(None, _PHYSICS)
    data: TestDataConfig = field(default_factory=TestDataConfig)
    observe: int | None = setting(None, "First frames of a trajectory that are assimilated. null: as many as a "
                                  "forecast needs.", least=1)
    others: list[str] = setting([], "Further runs on the same system, such as those of a sweep over recipes, to "
                                    "be chosen as the model in the page.")
    port: int = setting(5006, "Of 127.0.0.1, to which alone the page is served. 0: any that is free.", least=0,
                        most=65535)
    show: bool = setting(True, "Open the page in the browser.")
    device: str = setting("auto", _DEVICE)


@dataclass
class ConvertConfig(ReadConfig):
    """Names and facts beside source and target; null: as the source has them."""

    overwrite: bool = setting(False, "Replace the target if it exists.")


@dataclass
class GenerateConfig:
    """Trajectories of a known equation (null: as its protocol says); `inrflow generate` alone lists the equations."""

    pde: str | None = setting(None, "Name of the equation.")
    trajectories: int = setting(64, "Number of trajectories.")
    output: str | None = setting(None, "File to write. null: in outputs/generate/<date-time>.")
    protocol: str | None = setting(None, "Published protocol of the data.")
    parameters: dict[str, Any] = setting({}, "parameters.NAME=VALUE: a number, sample, {low: a, high: b}, or a list "
                                         "with one value for each environment.")
    environments: int | None = setting(None, "Number of systems with parameters of their own.")
    frames: int | None = setting(None, "Frames of each trajectory.")
    dt: float | None = setting(None, "Time between frames.")
    grid: int | None = setting(None, "Points along each axis of the output.")
    dimensions: int | None = setting(None, "Number of coordinates.")
    windows: int | None = setting(None, "Trajectories cut from each simulation.")
    burn_in: float | None = setting(None, "Time before the first of them.")
    period: float | None = setting(None, "Length of the periodic domain.")
    resolution: int | None = setting(None, "Points along each axis of the solver.")
    points: Any = setting("grid", "grid, or a number of random points in each trajectory.")
    shared_points: bool = setting(False, "The same random points in all trajectories.")
    noise: float = setting(0.0, "Standard deviation of added noise, in units of each channel's standard deviation.")
    missing: float = setting(0.0, "Fraction of values left out at random.")
    time_jitter: float = setting(0.0, "Random shift of each frame's time, as a fraction of dt.")
    tolerance: float = setting(1e-7, "Tolerance of the solver.")
    seed: int = setting(0, "Seed of all random choices.")
    overwrite: bool = setting(False, "Replace the file if it exists.")


SCHEMAS: dict[str, type] = {
    "train": Config, "evaluate": EvaluateConfig, "query": QueryConfig, "forecast": ForecastConfig,
    "next": NextConfig, "update": UpdateConfig, "convert": ConvertConfig, "generate": GenerateConfig,
    "adapt": AdaptConfig, "plot": PlotConfig, "export": ExportConfig,
    "explore": ExploreConfig,
}
