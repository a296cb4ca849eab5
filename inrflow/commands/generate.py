"""`inrflow generate`: generation of a data file with trajectories of a known equation."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from inrflow.commands.run_directory import default_output
from inrflow.config.resolve import resolve
from inrflow.config.schema import GenerateConfig
from inrflow.data.formats.inspect import describe
from inrflow.errors import UserError
from inrflow.pdes.equations import EQUATIONS
from inrflow.pdes.generate import generate
from inrflow.runtime.atomic_files import make_folder
from inrflow.runtime.screen import screen, show


def run(arguments: list[str]) -> int:
    """Solve an equation and write trajectories; without its name, list all equations."""
    config: GenerateConfig = resolve("generate", GenerateConfig, arguments)
    if config.pde is None:
        _list_equations(Console(markup=False))
        raise UserError(f"pde is missing; choose one of {', '.join(EQUATIONS)}")
    options = asdict(config)
    output = options.pop("output") or _default_file(config.pde)
    console = Console(stderr=True, markup=False)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"solving {config.pde}", total=None)
        options["progress"] = lambda done, total: progress.update(task, completed=done, total=total)
        path = generate(output=output, **options)
    show(describe(path), screen())
    return 0


def _default_file(pde: str) -> Path:
    return make_folder(default_output("generate")) / f"{pde}.h5"


def _list_equations(console: Console) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("pde", "equation", "parameters (default)", "protocols"):
        table.add_column(column, overflow="fold", no_wrap=column == "pde", header_style="bold")
    for name, equation in EQUATIONS.items():
        parameters = equation.parameters(max(equation.dimensions))
        listed = ", ".join(f"{key} ({parameter.default:g})" for key, parameter in parameters.items())
        table.add_row(name, equation.formula, listed, ", ".join(equation.protocols))
    console.print(table, highlight=False)
