"""Imports run one way: the contracts of pyproject.toml, held by import-linter."""

from __future__ import annotations

from pathlib import Path

import grimp
import pytest
from importlinter.cli import EXIT_STATUS_ERROR, EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parents[1]
SETTINGS = (ROOT / "pyproject.toml").read_text()


def lint(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status and report of the contracts of a configuration."""
    status = lint_imports(config_filename=str(path), no_cache=True)
    return status, capsys.readouterr().out


def test_imports_run_one_way_and_in_no_circle(capsys):
    status, report = lint(ROOT / "pyproject.toml", capsys)
    assert status == EXIT_STATUS_SUCCESS, report


@pytest.mark.parametrize(("written", "instead", "broken"), [
    ('    "model",\n    "dynamics",\n', '    "dynamics",\n    "model",\n', "inrflow.dynamics"),
    ('"evaluation | mesh_flow', '"mesh_flow', "evaluation"),
])
def test_an_arrow_against_the_order_and_a_folder_without_a_place_are_refused(
    written, instead, broken, tmp_path, capsys
):
    changed = SETTINGS.replace(written, instead)
    assert changed != SETTINGS
    (tmp_path / "pyproject.toml").write_text(changed)
    status, report = lint(tmp_path / "pyproject.toml", capsys)
    assert status == EXIT_STATUS_ERROR and broken in report


def test_modules_import_one_another_and_not_the_public_face():
    importers = grimp.build_graph("inrflow", cache_dir=None).find_modules_that_directly_import("inrflow")
    assert importers <= {"inrflow.cli"}  # which prints the version
