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
_STATIONS = "Table with names and places of stations, if the observations have a column for each station or of names."
_NO_RUN = "DIR is missing; give a run directory that inrflow train has written"
_DEVICE = "auto, cpu, cuda or cuda:N."
_PHYSICS = "Name of the physics, for a run on several. null: the one with the name or channels of the data."


def _all_points() -> ObserveConfig:
    return ObserveConfig(points=1.0)


@dataclass
class TestDataConfig:
    """Test data."""

    test: str | None = setting(None, "Data file. null: data.test of the run, else (plot, explore) its training data.")


@dataclass
class EvaluateConfig:
    """Errors of forecasts, compared with those of reference forecasts."""

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    physics: str | None = setting(None, _PHYSICS)
    data: TestDataConfig = field(default_factory=TestDataConfig)
    observe: ObserveConfig = field(default_factory=_all_points)
    device: str = setting("auto", _DEVICE)
    output: str | None = setting(None, "Folder of evaluation.json and pictures. null: outputs/evaluate/<date-time>.")


@dataclass
class AdaptDataConfig:
    """Trajectories of the new system."""

    train: str | None = setting(None, "Data file.", required="FILE is missing; give a file with trajectories of the "
                                "new system")
    test: str | None = setting(None, "File on which forecasts before and after adaptation are compared. null: none.")
    frames: int | None = setting(None, "Number of first frames of every trajectory to use. null: all.", least=2)
    points: float = setting(1.0, "Fraction of the points that are observed: a random subset of each trajectory, set by "
                            "seed.", above=0, most=1)
    same_points: bool = setting(False, "Observe the same subset of points in all trajectories.")
    trajectories: int | None = setting(None, "Number of first trajectories to use. null: all.", least=1)


@dataclass
class AdaptSettings:
    """Which parts of the model are fitted."""

    strength: str = setting("auto", "none: nothing; a law is moved to the domain of the new data. context: the few "
                            "numbers that tell systems apart. decoder: also the output layer of the decoder. all: also "
                            "the affine part of the vector field, or the coefficients of a law. The last two are "
                            "kept if they lower the error of held-out frames. auto: all for laws, else context.")
    copies: int | None = setting(None, "Augmentation: copies of each trajectory under the symmetries of the run, "
                                 "including the original. null: 1 for a context or a law, else 4.", least=1)
    scratch_minutes: float = setting(0.25, "With data.test: minutes to train a model from scratch on the same frames, "
                                     "for comparison. 0: none.", least=0)
    minutes: float | None = setting(None, "For a run on several physics: minutes to train a further one. null: as "
                                    "many as each earlier one had.", above=0)


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

    Files have any readable format, and a column `trajectory` if there are several trajectories. The output also has a
    column `extrapolated`: 1 at points outside the bounding box of the training data, before the first observation, or
    further after it than the time span of training.
    """

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    physics: str | None = setting(None, _PHYSICS)
    observations: str | None = setting(None, "File with t, the coordinates and the channels.",
                                       required="FILE is missing; give a file with t, the coordinates and the channels")
    stations: str | None = setting(None, _STATIONS)
    points: str | None = setting(None, "File with t and the coordinates.",
                                 required="FILE is missing; give a file with t and the coordinates")
    to: str | None = setting(None, "Output file: .csv, .parquet, .h5, .nc, .zarr ... null: in the folder output, with "
                             "the name of points.")
    std: bool = setting(False, "Add the standard deviation of each channel.")
    derivatives: bool = setting(False, "Add the derivatives of each channel with respect to coordinates and time.")
    overwrite: bool = setting(False, "Replace the file `to` if it exists.")
    device: str = setting("auto", _DEVICE)
    output: str | None = setting(None, "Folder of the output file if `to` is null. null: outputs/query/<date-time>.")


@dataclass
class ForecastConfig:
    """Quantiles of forecasts after the last observation, at the observed or at given places.

    The output has the columns <channel>_q05, _q50 and _q95 (quantiles of values as observed, with noise) and
    `extrapolated`: 1 outside the bounding box of the training data, or further from the first observation than
    the time span of training.
    """

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    observations: str | None = setting(None, "File with t, the coordinates and the channels.",
                                       required="FILE is missing; give a file with t, the coordinates and the channels")
    stations: str | None = setting(None, _STATIONS)
    until: str | None = setting(None, "Last time: a number in the data's units, or an ISO date.",
                                required="TIME is missing; give the last time of the forecast")
    every: float | None = setting(None, "Time step of forecasts. null: months if observations are monthly, else the "
                                 "usual one of the training data.", above=0)
    points: str | None = setting(None, "File with the places to forecast. null: all observed places.")
    observed: bool = setting(False, "Add the observed rows, with <channel>_z_score: the deviation of each value from "
                             "its posterior mean, in standard deviations.")
    to: str | None = setting(None, "Output file: .csv, .parquet, .h5, .nc, .zarr ... null: forecast.csv in the folder "
                             "output.")
    physics: str | None = setting(None, _PHYSICS)
    overwrite: bool = setting(False, "Replace the file `to` if it exists.")
    device: str = setting("auto", _DEVICE)
    output: str | None = setting(None, "Folder of the output file if `to` is null. null: outputs/forecast/<date-time>.")


@dataclass
class NextConfig:
    """Placement of further sensors: greedy choice of candidates that reduce the posterior variance at all candidates.

    The output has a row for each sensor, in order of selection: `rank`, the coordinates, and `left`, the share of that
    variance that remains once this sensor and the earlier ones are added.
    """

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    observations: str | None = setting(None, "File with t, the coordinates and the channels.",
                                       required="FILE is missing; give a file with t, the coordinates and the channels")
    stations: str | None = setting(None, _STATIONS)
    points: str | None = setting(None, "File of candidates: the coordinates, t (not used), and optionally a column "
                                 "weight: the weight of the variance at that candidate. null: random places of the "
                                 "domain, within the bounding box of the training data.")
    count: int = setting(1, "Number of sensors.", least=1)
    at: str | None = setting(None, "Time: a number in the data's units, or an ISO date. null: the last observed time.")
    trajectory: int | None = setting(None, "Number of the trajectory. null: the first observed one.", least=0)
    to: str | None = setting(None, "Output file: .csv, .h5 or .nc. null: next.csv in the folder output.")
    physics: str | None = setting(None, _PHYSICS)
    overwrite: bool = setting(False, "Replace the file `to` if it exists.")
    seed: int = setting(0, "Seed of random candidates.", least=0)
    device: str = setting("auto", _DEVICE)
    output: str | None = setting(None, "Folder of the output file if `to` is null. null: outputs/next/<date-time>.")


@dataclass
class UpdateDataConfig:
    """New observations."""

    train: str | None = setting(None, "File with new observations: later times, further places, or corrected values.",
                                required="FILE is missing; give a file with further observations")


@dataclass
class UpdateConfig:
    """Update of a run with new observations: these are appended to its data, and the fitted parts are refitted to all
    data; the last new observations are held out to accept or reject each refit. If the new data are unlike the old
    ones, or outnumber them, the chosen recipe is trained again from scratch, and a message says so.

    New values replace old ones of the same time and place. The result is a new run directory; the old one is kept.
    """

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    data: UpdateDataConfig = field(default_factory=UpdateDataConfig)
    minutes: float | None = setting(None, "Minutes for training from scratch. null: those of the run.", above=0)
    anew: bool = setting(False, "Train from scratch in any case.")
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
    frames: int = setting(5, "Number of times in the still picture.", least=1)
    animation: bool = setting(True, "Also draw an animation.")
    pdf: bool = setting(False, "Write still pictures as PDF instead of PNG.")
    edges: bool = setting(False, "Draw the edges of a mesh.")
    times: list[str] | None = setting(None, "Times to draw, [0.1,0.2], or dates. null: those of the data.")
    points: str | None = setting(None, "File of points to draw. null: those of the data.")
    resolution: int | None = setting(None, "Draw on a grid with this number of points on each axis.", least=2)
    device: str = setting("auto", _DEVICE)
    output: str | None = setting(None, "Folder of the pictures. null: outputs/plot/<date-time>.")


@dataclass
class ExportConfig:
    """Export of a run for use without inrflow: decoder, vector field and time step as torch.export programs and ONNX
    graphs, and a model card. Needs pip install 'inrflow[export]'."""

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    points: str | None = setting(None, "File of the points (the coordinates and t, which is not used) at which the "
                                 "decoder gives values. null: any points; on a mesh, its nodes.")
    parameters: dict[str, Any] = setting({}, "parameters.NAME=VALUE: parameters of the exported dynamics. Without: the "
                                         "mean of the training data.")
    physics: str | None = setting(None, _PHYSICS)
    output: str | None = setting(None, "Folder of the exported model. null: outputs/export/<date-time>.")


@dataclass
class ExploreConfig:
    """An interactive page in the browser: choose a trajectory, move through time, zoom, see errors, standard deviations
    and derivatives, click for the series at a point, upload observations. Needs pip install 'inrflow[explore]'."""

    run: str | None = setting(None, _RUN, required=_NO_RUN)
    physics: str | None = setting(None, _PHYSICS)
    data: TestDataConfig = field(default_factory=TestDataConfig)
    observe: int | None = setting(None, "Number of first frames that are assimilated. null: as many as forecasts "
                                  "need.", least=1)
    others: list[str] = setting([], "Further runs on the same system, such as those of a sweep, to choose from "
                                    "in the page.")
    port: int = setting(5006, "Port of 127.0.0.1, where only this machine sees the page. 0: any free one.", least=0,
                        most=65535)
    show: bool = setting(True, "Open the page in the browser.")
    device: str = setting("auto", _DEVICE)


@dataclass
class ConvertConfig(ReadConfig):
    """Names and attributes of the target. null: as in the source."""

    overwrite: bool = setting(False, "Replace the target if it exists.")


@dataclass
class GenerateConfig:
    """Simulation of a known equation. null: as in its protocol. `inrflow generate` without pde lists the equations."""

    pde: str | None = setting(None, "Name of the equation.")
    trajectories: int = setting(64, "Number of trajectories.")
    output: str | None = setting(None, "File to write. null: in outputs/generate/<date-time>.")
    protocol: str | None = setting(None, "Name of the published protocol whose settings are the defaults.")
    parameters: dict[str, Any] = setting({}, "parameters.NAME=VALUE: a number, sample (from the default range), "
                                         "{low: a, high: b}, or a list with one value for each environment.")
    environments: int | None = setting(None, "Number of systems that differ in their parameters.")
    frames: int | None = setting(None, "Number of frames of each trajectory.")
    dt: float | None = setting(None, "Time between frames.")
    grid: int | None = setting(None, "Number of output points along each axis.")
    dimensions: int | None = setting(None, "Number of coordinates.")
    windows: int | None = setting(None, "Number of trajectories cut from each simulation.")
    burn_in: float | None = setting(None, "Simulated time before the first trajectory.")
    period: float | None = setting(None, "Length of the periodic domain.")
    resolution: int | None = setting(None, "Number of solver points along each axis.")
    points: Any = setting("grid", "grid, or a number of random points in each trajectory.")
    shared_points: bool = setting(False, "The same random points in all trajectories.")
    noise: float = setting(0.0, "Standard deviation of added noise, in units of each channel's standard deviation.")
    missing: float = setting(0.0, "Fraction of values that are missing, at random.")
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
