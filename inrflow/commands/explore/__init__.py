"""`inrflow explore`: a local web page of a run, with its forecasts, errors and law, and assimilation of tables."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from inrflow.commands.run_directory import RunDirectory, as_trajectories, load_run, to_data_domain
from inrflow.config.resolve import given_settings, resolve
from inrflow.config.schema import ExploreConfig
from inrflow.errors import UserError
from inrflow.runtime.run_files import CANDIDATES_FILE
from inrflow.runtime.temporary import temporary_folder


def run(arguments: list[str]) -> int:
    """Serve the page on this machine alone, until Ctrl-C."""
    config: ExploreConfig = resolve("explore", ExploreConfig, arguments)
    try:
        import panel  # noqa: F401
    except ImportError as error:
        raise UserError("panel is not installed; pip install 'inrflow[explore]'") from error
    from inrflow.commands.explore.answers import Explored
    from inrflow.commands.explore.page import serve

    place, console = RunDirectory(Path(str(config.run))), Console(stderr=True, markup=False)
    surrogate = load_run(str(config.run), config.device, config.physics, config.data.test)
    surrogate.description.require_places("the page shows places")
    trained = place.config().data if place.begun else None
    path = config.data.test or surrogate.training.get("test") or (trained.train if trained is not None else None)
    for key in ("test", "train"):  # files converted by training
        kept = place.path / "data" / f"data_{key}.h5"
        if config.data.test is None and kept.exists():
            path = str(kept)
            break
    if path is None:
        raise UserError("the run does not say which trajectories to show; give data.test=FILE")
    with temporary_folder() as folder:
        path = as_trajectories(str(path), "data.test", folder, console, place.read_settings(),
                               units=surrogate.description.time_units)
        if not Path(path).exists():
            raise UserError(f"the trajectories to show are in {path}, which does not exist; give data.test=FILE")
        surrogate = to_data_domain(surrogate, Path(path), console)
        others = {other: to_data_domain(load_run(other, config.device, config.physics, path), Path(path), console)
                  for other in config.others}
        explored = Explored(surrogate, Path(path), config.observe, place.json(CANDIDATES_FILE), others,
                            place.references(surrogate.description.name), given_settings(place.read_settings()))
        serve(explored, config.port, config.show, console)
    return 0
