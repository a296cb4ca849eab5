"""`inrflow export`: export of a run as torch.export programs and ONNX graphs, with a model card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from inrflow.commands.run_directory import (
    EVALUATION_FILE,
    RunDirectory,
    default_output,
    load_run,
)
from inrflow.config.resolve import resolve
from inrflow.config.schema import ExportConfig
from inrflow.data.formats.tables import read_points
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import LOCK_FILE, locked_folder
from inrflow.runtime.run_files import CANDIDATES_FILE, MODEL_FILE


def _free(folder: Path) -> bool:
    """Whether a folder is empty, or holds only files of an interrupted export."""
    names = {path.name for path in folder.iterdir() if path.name != LOCK_FILE and ".partial" not in path.name}
    parts = ("decode", "rate", "step", "forecast")
    graphs = {f"{part}.{kind}" for part in parts for kind in ("pt2", "onnx")} | {"points.csv"}
    return names <= (graphs | {MODEL_FILE} if "decode.pt2" in names else graphs)


def run(arguments: list[str]) -> int:
    """Export a run, and print what was written and what was not."""
    config: ExportConfig = resolve("export", ExportConfig, arguments)
    from inrflow.export.graphs import require_libraries
    from inrflow.export.model import export

    require_libraries()
    source = RunDirectory(Path(str(config.run)))
    surrogate = load_run(str(config.run), "cpu", config.physics)
    target = Path(config.output or default_output("export"))
    if target.exists() and not _free(target):
        raise UserError(f"{target} is not empty; choose another output=DIR")
    points = None if config.points is None else np.unique(read_points(config.points, surrogate.description).x, axis=0)
    console = Console(stderr=True, markup=False)
    with locked_folder(target), console.status("exporting"):
        exported = export(surrogate, target, points, config.parameters or None, source.json(EVALUATION_FILE),
                          source.json(CANDIDATES_FILE))
    for line in (*exported.graphs, *exported.missing):
        console.print(line.replace("`", ""), highlight=False, soft_wrap=True)
    console.print(f"the exported model and its card, README.md, are in {target}", highlight=False, soft_wrap=True)
    return 0
