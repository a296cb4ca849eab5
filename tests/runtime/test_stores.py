"""Replacement of folders: the old one is there until the new one is, also after a process was killed in between."""

from __future__ import annotations

import os

import pytest

from inrflow.runtime.stores import put_folder, restore


def folder(path, content):
    path.mkdir()
    (path / "zarr.json").write_text(content)
    return path


def test_a_folder_killed_while_it_is_replaced_is_restored(tmp_path, monkeypatch):
    path, new = folder(tmp_path / "a.zarr", "old"), folder(tmp_path / "new", "new")
    rename = os.rename

    def killed(source, target):
        if source == new:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        put_folder(new, path)
    monkeypatch.undo()
    restore(path)
    assert (path / "zarr.json").read_text() == "old"
    put_folder(new, path)
    assert (path / "zarr.json").read_text() == "new" and os.listdir(tmp_path) == ["a.zarr"]
