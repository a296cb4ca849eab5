"""Models on the hub: what goes up, what comes down, and what is said where it fails; without a network."""

import importlib.util
import inspect
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import inrflow
from inrflow.data.formats.trajectory_file import TrajectoryFile


class Hub:
    """A hub in a folder, with the calls of huggingface_hub that are used."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, {}

    def HfApi(self, token=None):
        return self

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        self.made[repo_id] = private
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id, folder_path, revision=None, commit_message=None):
        shutil.copytree(folder_path, self.folder / repo_id)
        return f"https://hub/{repo_id}/commit/1"

    def hf_hub_download(self, repo_id, filename, *, revision=None, token=None):
        return str(self.folder / repo_id / filename)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    made = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)
    return made


def test_a_run_goes_up_with_its_card_and_comes_down_the_same(hub, tiny_run):
    address = inrflow.push_to_hub(tiny_run.run, "me/field", private=True)
    pushed = hub.folder / "me/field"
    assert address.endswith("/commit/1") and hub.made == {"me/field": True}
    assert {path.name for path in pushed.iterdir()} == {"model.safetensors", "README.md", "evaluation.json",
                                                        "candidates.json"}
    assert "**this model**" in (pushed / "README.md").read_text()
    assert json.loads((pushed / "evaluation.json").read_text())["nmse"]
    with TrajectoryFile(tiny_run.test) as file:
        first = file.read(0, [0])
    seen = inrflow.Observations(first.t, first.x, first.u)
    here, there = (one.assimilate(seen)(float(first.t[0]) + 0.1, first.x)
                   for one in (inrflow.Surrogate.load(tiny_run.run), inrflow.from_hub("me/field")))
    assert np.array_equal(here, there)


def test_a_saved_surrogate_has_a_card_beside_it_and_the_readme_of_another_stays(tiny_run, tmp_path):
    surrogate = inrflow.Surrogate.load(tiny_run.run)
    for name, before in (("new", None), ("again", "---\nlibrary_name: inrflow\n---\nold"), ("other", "# A project")):
        (tmp_path / name).mkdir()
        card = tmp_path / name / "README.md"
        if before is not None:
            card.write_text(before)
        surrogate.save(card.parent)
        text = card.read_text()
        assert text == before if name == "other" else "## Limits" in text and "old" not in text
        assert inrflow.Surrogate.load(card.parent).parameters == surrogate.parameters


def test_nothing_of_the_machine_goes_up(hub, tiny_run):
    inrflow.push_to_hub(tiny_run.run, "me/field")
    for path in (hub.folder / "me/field").iterdir():
        assert str(Path(tiny_run.test).parent).encode() not in path.read_bytes(), path.name


def test_a_surrogate_alone_goes_up_without_reports(hub, tiny_run):
    inrflow.push_to_hub(inrflow.Surrogate.load(tiny_run.run), "me/bare")
    assert {path.name for path in (hub.folder / "me/bare").iterdir()} == {"model.safetensors", "README.md"}


def test_what_the_hub_refuses_is_one_sentence(hub, tiny_run, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("401 Client Error\nlong text")

    monkeypatch.setattr(hub, "create_repo", refuse)
    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    with pytest.raises(inrflow.UserError, match="not pushed to me/field: 401 Client Error; check the name"):
        inrflow.push_to_hub(tiny_run.run, "me/field")
    with pytest.raises(inrflow.UserError, match="of me/field was not fetched: 401 Client Error; check"):
        inrflow.from_hub("me/field")


def test_without_the_library_its_extra_is_named(monkeypatch, tiny_run):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(inrflow.UserError, match=r"inrflow\[hub\]"):
        inrflow.push_to_hub(tiny_run.run, "me/field")


@pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is None, reason="huggingface_hub is not installed")
def test_the_library_takes_what_it_is_given():
    import huggingface_hub

    for real, ours in ((huggingface_hub.HfApi.create_repo, Hub.create_repo),
                       (huggingface_hub.HfApi.upload_folder, Hub.upload_folder),
                       (huggingface_hub.hf_hub_download, Hub.hf_hub_download)):
        assert set(inspect.signature(ours).parameters) - {"self"} <= set(inspect.signature(real).parameters)
