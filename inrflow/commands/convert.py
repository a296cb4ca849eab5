"""`inrflow convert`: any readable format to the project's schema."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console

from inrflow.commands.inspect import show
from inrflow.config.resolve import resolve
from inrflow.config.schema import ConvertConfig
from inrflow.data.formats.convert import convert
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.registry import readable
from inrflow.errors import UserError


def run(arguments: list[str]) -> int:
    """Convert, and show what has come of it."""
    files = [argument for argument in arguments if "=" not in argument]
    if len(files) != 2:
        raise UserError(f"{len(files)} files are given; expected SOURCE TARGET, a source in {readable()}")
    source, target = files
    config: ConvertConfig = resolve("convert", ConvertConfig, [item for item in arguments if "=" in item])
    options = {key: value for key, value in asdict(config).items() if value not in (None, {})}
    with Console(stderr=True).status("converting"):
        convert(source, target, **options)
    show(describe(target), Console())
    return 0
