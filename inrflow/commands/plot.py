"""`inrflow plot`: figures of truth, forecast, error and uncertainty of a trajectory, errors by time, and losses."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from matplotlib.tri import Triangulation
from rich.console import Console

from inrflow.commands.forecast import time_number
from inrflow.commands.report import draw_errors
from inrflow.commands.run_directory import (
    EVALUATION_FILE,
    RunDirectory,
    as_trajectories,
    default_output,
    load_run,
    to_data_domain,
)
from inrflow.config.resolve import resolve
from inrflow.config.schema import PlotConfig
from inrflow.data.description import Description
from inrflow.data.formats.sphere import lonlat_to_xyz, xyz_to_lonlat
from inrflow.data.formats.tables import read_points
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.observations import Frames, Observations
from inrflow.data.source import observed_points
from inrflow.errors import UserError
from inrflow.evaluation.evaluate import Observe, evaluate, require_channels
from inrflow.evaluation.place import shapes_of
from inrflow.model.surrogate import Surrogate
from inrflow.plotting import (
    Scene,
    animation,
    calibration_figure,
    candidate_figure,
    forecast_figure,
    loss_figure,
    series_figure,
    spectrum_figure,
)
from inrflow.runtime.run_files import CANDIDATES_FILE
from inrflow.runtime.safe_names import safe_name

_LARGEST = 5_000_000


def run(arguments: list[str]) -> int:
    """Assimilate one trajectory of a test file, and draw."""
    config: PlotConfig = resolve("plot", PlotConfig, arguments)
    surrogate = load_run(str(config.run), config.device, config.physics, config.data.test)
    _check(config, surrogate.description)
    path, observe = _source(config, surrogate)
    directory = Path(config.output or default_output("plot"))
    console = Console(stderr=True, markup=False)
    read = RunDirectory(Path(str(config.run))).read_settings()
    path = Path(as_trajectories(str(path), "data.test", directory, console, read,
                                units=surrogate.description.time_units))
    surrogate = to_data_domain(surrogate, path, console)
    with TrajectoryFile(path) as file, console.status("drawing") as status:
        scene = _scene(config, _on_shape(surrogate, file, config.trajectory), file, observe)
        written = _draw_forecasts(config, surrogate.description, scene, directory)
        if scene.truth is not None:
            status.update("errors of the whole test file")
            written.append(_draw_errors(config, surrogate, file, observe, directory))
    written += _draw_training(Path(str(config.run)), directory, surrogate.description.name, _suffix(config))
    for item in written:
        console.print(str(item), highlight=False, soft_wrap=True)
    return 0


def _check(config: PlotConfig, about: Description) -> None:
    if config.channel is not None and config.channel not in about.channels:
        raise UserError(f"channel={config.channel} is unknown; choose one of {', '.join(about.channels)}")
    if config.resolution is not None and config.points is not None:
        raise UserError(f"resolution={config.resolution} and points={config.points} both say where to draw; give one")
    times = _times(config, about)
    if times is not None and (not len(times) or not np.isfinite(times).all() or (np.diff(times) <= 0).any()):
        raise UserError(f"times=[{', '.join(config.times or ())}]; give increasing times, as numbers or dates")


def _times(config: PlotConfig, about: Description) -> np.ndarray | None:
    """The times (T,) that the user wants, if any."""
    return None if config.times is None else np.array([time_number("times", one, about) for one in config.times])


def _source(config: PlotConfig, surrogate: Surrogate) -> tuple[Path, Observe]:
    """File to draw and observation settings; without a test file, the training frames of the training file."""
    seen = config.observe
    path, frames = config.data.test, surrogate.window if seen.frames is None else seen.frames
    if path is None:
        run = RunDirectory(Path(str(config.run)))
        if not run.begun:
            raise UserError(f"{config.run} has no config.yaml that names its test file; give data.test=FILE")
        trained = run.config().data
        path = trained.test or trained.train
        if trained.test is None:
            frames = max(frames, int(surrogate.training["frames"]))
    return Path(str(path)), Observe(frames, seen.points, seen.noise)


def _scene(config: PlotConfig, surrogate: Surrogate, file: TrajectoryFile, observe: Observe) -> Scene:
    """Scene of one trajectory, assimilated and forecast at the times and points to draw."""
    if not 0 <= config.trajectory < file.trajectories:
        last = file.trajectories - 1
        raise UserError(f"trajectory={config.trajectory}; {file.path} has the trajectories 0 to {last}")
    require_channels(surrogate, file, "a file of the same system")
    frames = file.read(config.trajectory)
    observations = _observed(config, surrogate, frames, observe)
    solution = surrogate.assimilate(observations)
    triangles = file.cells_of(config.trajectory)
    t, x = frames.t, frames.x
    truth: np.ndarray | None = frames.u
    if config.times is not None or config.points is not None or config.resolution is not None:
        t, x, kept = _elsewhere(config, surrogate, frames, triangles)
        truth, triangles = None, triangles if kept else None
    if len(t) * x.shape[-2] > _LARGEST:
        raise UserError(f"{len(t)} times at {x.shape[-2]} points are too many to draw; give fewer (resolution, times)")
    rows = np.broadcast_to(x, (len(t), *x.shape[-2:])).reshape(-1, x.shape[-1]).copy()  # copy: a view may be read-only
    with warnings.catch_warnings():  # pictures of forecasts show what lies beyond the training
        warnings.filterwarnings("ignore", message=".* of the points lie before the first observation")
        answer = solution.query(np.repeat(t, x.shape[-2]), rows, std=True)
    mean, std = (np.asarray(answer[key]).reshape(len(t), x.shape[-2], -1) for key in ("mean", "std"))
    about, seen = surrogate.description, observations.frames()

    def between(times: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(solution.frames(times, x))

    return Scene(
        t, x, mean, about.channels, truth, std, about.units, triangles, about.coordinates, about.geometry,
        about.time_units, float(frames.t[0]) + surrogate.horizon, float(seen.t[-1]),
        seen.x if seen.x.ndim == 2 and len(seen.x) < frames.u.shape[1] else None, config.edges,
        between if x.ndim == 2 and config.times is None else None,
    )


def _on_shape(surrogate: Surrogate, file: TrajectoryFile, trajectory: int) -> Surrogate:
    """The surrogate, or its law moved to the shape of a trajectory if shapes differ between trajectories."""
    if surrogate.decoder.place is None or len(shapes_of(file)) == 1 or trajectory >= file.trajectories:
        return surrogate
    from inrflow.evaluation.new_domain import models_of  # finite elements take a second to import

    return models_of(surrogate, file, [np.array([trajectory])])[0][1]


def _observed(config: PlotConfig, surrogate: Surrogate, frames: Frames, observe: Observe) -> Observations:
    """First frames of the trajectory at the points that an evaluation would observe, with noise."""
    training, seed = surrogate.training, int(surrogate.training["seed"])
    fraction = training["points"] if observe.points is None else observe.points
    window = slice(0, observe.frames)
    t, u = frames.t[window], frames.u[window]
    x = frames.x if frames.x.ndim == 2 else frames.x[window]
    if fraction < 1:
        points = observed_points(seed, config.trajectory, u.shape[1], fraction, bool(training["same_points"]))
        x, u = x[..., points, :], u[:, points]
    if observe.noise:
        random = np.random.default_rng([seed, config.trajectory, 5])
        u = u + observe.noise * surrogate.normalisation.scale.numpy() * random.standard_normal(u.shape)
    return Observations(t, x, u)


def _elsewhere(
    config: PlotConfig, surrogate: Surrogate, frames: Frames, triangles: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Times (T,) and points (N, d) that the user wants, and whether the points are those of the data."""
    times = _times(config, surrogate.description)
    t = frames.t if times is None else times
    if config.points is not None:
        table = read_points(config.points, surrogate.description)
        own = np.unique(table.t)
        return (own if times is None else t), np.unique(table.x, axis=0), False
    places = frames.x if frames.x.ndim == 2 else frames.x[0]
    if config.resolution is None:
        return t, places, True
    return t, _lattice(config.resolution, surrogate, places, triangles), False


def _lattice(count: int, surrogate: Surrogate, places: np.ndarray, triangles: np.ndarray | None) -> np.ndarray:
    """Grid of `count` points along each axis of the domain (on a sphere along meridians and parallels), in three
    dimensions in the plane through the middle; only points inside the domain or mesh."""
    about = surrogate.description
    if about.geometry == "sphere":
        places = xyz_to_lonlat(places)
        axes = [np.linspace(low, high, count) for low, high in zip(places.min(0), places.max(0), strict=True)]
        return lonlat_to_xyz(*(axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")))
    axes = []
    for axis, (low, high) in enumerate(surrogate.box.T):
        period = about.period[axis] if about.period else 0.0
        if axis > 1:
            axes.append(np.array([(low + high) / 2]))
        elif period:
            axes.append(low + period * np.arange(count) / count)
        else:
            axes.append(np.linspace(low, high, count))
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], -1)
    if surrogate.extent.domain is not None:
        return grid[~surrogate.extent.outside(grid)]
    if triangles is not None and places.shape[1] == 2:
        mesh = Triangulation(places[:, 0], places[:, 1], triangles)
        grid = grid[np.asarray(mesh.get_trifinder()(grid[:, 0], grid[:, 1])) >= 0]
    return grid


def _draw_forecasts(config: PlotConfig, about: Description, scene: Scene, directory: Path) -> list[Path]:
    title = f"{about.name}, trajectory {config.trajectory}"
    written = []
    several = scene.x.shape[:-1] != (1,)  # else the forecast is a series already
    for channel in about.channels if config.channel is None else (config.channel,):
        part = safe_name(channel)
        still = directory / f"forecast_{part}{_suffix(config)}"
        written.append(forecast_figure(still, scene, channel=channel, frames=config.frames, title=title))
        for draw, name in ((series_figure, "series"), (spectrum_figure, "spectrum")) if several else ():
            drawn = draw(directory / f"{name}_{part}{_suffix(config)}", scene, channel=channel, title=title)
            written += [] if drawn is None else [drawn]
        if config.animation and len(scene.t) > 1 and several:
            written.append(animation(directory / f"forecast_{part}.gif", scene, channel=channel, title=title))
    return written


def _draw_errors(
    config: PlotConfig, surrogate: Surrogate, file: TrajectoryFile, observe: Observe, directory: Path
) -> Path:
    references = RunDirectory(Path(str(config.run))).references(surrogate.description.name)
    evaluation = evaluate(surrogate, file, observe, references, with_std=False)
    return draw_errors(directory, surrogate, evaluation, _suffix(config))


def _suffix(config: PlotConfig) -> str:
    return ".pdf" if config.pdf else ".png"


def _draw_training(run_directory: Path, directory: Path, name: str, suffix: str) -> list[Path]:
    """Files of figures of the run: calibration, candidates (if several recipes were compared), and losses of stages
    trained by gradient descent."""
    tables = (RunDirectory(run_directory).json(EVALUATION_FILE) or {}).get("calibration") or {}
    calibration = [calibration_figure(directory / f"calibration{suffix}", tables["by_lead"], title=name)
                   ] if tables.get("by_lead") else []
    report = RunDirectory(run_directory).json(CANDIDATES_FILE) or {"candidates": []}
    compared = []
    if len({row["recipe"] for row in report["candidates"] if row["validation_error"]} - {"residual_field"}) > 1:
        compared.append(candidate_figure(directory / f"candidates{suffix}", report["candidates"], report["chosen"],
                                         title=name))
    stages = RunDirectory(run_directory).steps()
    trained = {stage: rows for stage, rows in stages.items() if sum("loss" in row for row in rows) > 1}
    losses = [loss_figure(directory / f"training{suffix}", trained, title=name)] if trained else []
    return calibration + compared + losses
