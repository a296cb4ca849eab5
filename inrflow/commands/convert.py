"""`inrflow convert`: any readable format to the project's schema."""

from __future__ import annotations

from dataclasses import asdict

from inrflow.config.resolve import resolve, settings_and_files
from inrflow.config.schema import ConvertConfig


def run(arguments: list[str]) -> int:
    """Convert files, and print a description of the result."""
    settings, files = settings_and_files(arguments)
    config: ConvertConfig = resolve("convert", ConvertConfig, settings)
    from rich.console import Console

    from inrflow.data.formats.convert import convert
    from inrflow.data.formats.inspect import describe
    from inrflow.runtime.screen import screen, show

    *sources, target = files
    options = {key: value for key, value in asdict(config).items() if value not in (None, {})}
    with Console(stderr=True, markup=False).status("converting"):
        convert(sources, target, **options)
    show(describe(target), screen())
    return 0
