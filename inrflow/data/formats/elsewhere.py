"""Formats that are recognised to be named, with what turns them into files that are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from inrflow.data.formats.registry import Content, Format, ReadOptions
from inrflow.errors import UserError


class Elsewhere(Format):
    """A format that another program writes in a form that is read. advice: how."""

    about = ""
    advice: ClassVar[str]

    def read(self, path: Path, options: ReadOptions) -> Content:
        raise UserError(f"{path} is a file of {self.name}, which is not read; {self.advice}")

    def summary(self, path: Path) -> list[tuple[str, str]]:
        return []


class MetOffice(Elsewhere):
    """PP of the UK Met Office: records of 64 words begin with their length in bytes."""

    name = "PP (UK Met Office)"
    advice = "iris writes it as NetCDF: iris.save(iris.load('FILE.pp'), 'FILE.nc')"
    signature = re.compile(rb"(\x00\x00\x01\x00|\x00\x01\x00\x00).{256}\1", re.DOTALL)


class Ensight(Elsewhere):
    """The text file of a case of Ensight, 6 or Gold."""

    name = "Ensight"
    advice = "open it in ParaView and save the data as a PVD collection (.pvd), all time steps"
    signature = re.compile(rb"\s*format\s+(\S+\s+){0,4}\S*ensight", re.IGNORECASE)


class BinaryTecplot(Elsewhere):
    """Tecplot's binary files, .plt and .szplt."""

    name = "binary Tecplot"
    advice = "write it as ASCII with one zone for each time, or as a PVD collection by ParaView"
    signature = re.compile(rb"#!TDV|#!SZPLT")
