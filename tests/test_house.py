"""Sizes that keep the package readable, and what a package of types must ship."""

from __future__ import annotations

import subprocess
from importlib.resources import files
from pathlib import Path

import inrflow_kernels
import pytest

import inrflow

LINES, MODULES = 400, 14
PACKAGES = [Path(package.__file__).parent for package in (inrflow, inrflow_kernels)]
SOURCES = [path for package in PACKAGES for path in package.rglob("*.py")]
SCRIPTS = list((Path(__file__).parents[1] / "benchmarks").rglob("*.py"))


def test_no_file_is_too_long_to_be_read_at_once():
    lengths = {str(path): len(path.read_text().splitlines()) for path in SOURCES + SCRIPTS}
    assert len(lengths) > 200
    assert {path: length for path, length in lengths.items() if length > LINES} == {}


def test_no_folder_holds_too_many_modules():
    counts: dict[str, int] = {}
    for path in SOURCES + SCRIPTS:
        if path.name != "__init__.py":
            counts[str(path.parent)] = counts.get(str(path.parent), 0) + 1
    assert {folder: count for folder, count in counts.items() if count > MODULES} == {}


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in SOURCES}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("package", ["inrflow", "inrflow_kernels"])
def test_types_are_shipped(package):
    assert (files(package) / "py.typed").is_file()


def test_nothing_written_by_a_run_is_kept_at_the_top():
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    top = {name.split("/")[0] for name in listed.splitlines() if not name.startswith(".")}
    assert top == {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md", "mkdocs.yml",
                   "pyproject.toml", "benchmarks", "configs", "docs", "examples", "inrflow", "kernels", "tests"}
