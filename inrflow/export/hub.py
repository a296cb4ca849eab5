"""Hugging Face's model hub: a surrogate and its card up, and down again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from inrflow.errors import UserError
from inrflow.export.card import model_card
from inrflow.model.store import MODEL_FILE
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.atomic_files import read_json, write_json

CARD_FILE, REPORTS = "README.md", ("evaluation.json", "candidates.json")


def published(surrogate: Surrogate) -> Surrogate:
    """The surrogate without the path of its test data, which is of one machine."""
    return replace(surrogate, training={**surrogate.training, "test": None})


def push_to_hub(
    run: Surrogate | str | os.PathLike[str], repo_id: str, *, physics: str | None = None, private: bool | None = None,
    token: str | None = None, revision: str | None = None, message: str = "Upload model of inrflow",
) -> str:
    """Write a surrogate, its card and the reports of its run to a repository of the hub; returns the commit's address.

    Args:
        run: a run directory, or a surrogate, whose card then has no errors.
        repo_id: "owner/name"; made where it does not exist.
        physics: which one, of a run that knows several.
        private: of a repository that is made; by default what the owner's settings say.
        token: by default what `hf auth login` has stored.
        revision: branch; by default main.
    Raises:
        UserError: where huggingface_hub is not installed, there is no finished model, or the hub refuses.
    """
    hub = _library()
    surrogate = run if isinstance(run, Surrogate) else Surrogate.load(run, physics=physics)
    reports = [None if isinstance(run, Surrogate) else read_json(Path(run) / name) for name in REPORTS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        published(surrogate).save(folder)
        card = model_card(surrogate, reports[0], reports[1], None)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        for file, report in zip(REPORTS, reports, strict=True):
            if report is not None:
                write_json(folder / file, report)
        api = hub.HfApi(token=token)
        with _told(f"the model was not pushed to {repo_id}"):
            home = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            done = api.upload_folder(repo_id=home, folder_path=str(folder), revision=revision, commit_message=message)
    return str(done)


def from_hub(
    repo_id: str, *, revision: str | None = None, token: str | None = None, device: str = "cpu"
) -> Surrogate:
    """The surrogate of a repository of the hub, read from the hub's cache where it is there; no code is fetched.

    Raises UserError where huggingface_hub is not installed, the hub does not give the model, or it is none of inrflow.
    """
    hub = _library()
    with _told(f"{MODEL_FILE} of {repo_id} was not fetched"):
        path = hub.hf_hub_download(repo_id, MODEL_FILE, revision=revision, token=token)
    return Surrogate.load(Path(path).parent, device)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError("huggingface_hub is not installed; pip install 'inrflow[hub]'") from error
    return huggingface_hub


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of the hub as UserErrors; also those of its HTTP library, which differs between versions."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{what}: {reason}; check the name, the token (hf auth login) and the connection") from error
