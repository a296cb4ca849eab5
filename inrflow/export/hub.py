"""Upload of a surrogate and its card to the Hugging Face model hub, and download."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from inrflow.errors import UserError
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.atomic_files import read_json, write_json
from inrflow.runtime.card import CARD_FILE, model_card
from inrflow.runtime.run_files import MODEL_FILE
from inrflow.runtime.temporary import temporary_folder

REPORTS = ("evaluation.json", "candidates.json")


def published(surrogate: Surrogate) -> Surrogate:
    """Surrogate without the local path of its test data."""
    return replace(surrogate, training={**surrogate.training, "test": None})


def push_to_hub(
    run: Surrogate | str | os.PathLike[str], repo_id: str, *, physics: str | None = None, private: bool | None = None,
    token: str | None = None, revision: str | None = None, message: str = "Upload model of inrflow",
) -> str:
    """Address of the commit that uploads a surrogate, its card and the reports of its run to a repository of the hub.

    Args:
        run: a run directory, or a surrogate, whose card then has no errors.
        repo_id: "owner/name"; created if it does not exist.
        physics: name of the physics, for a run on several.
        private: whether a created repository is private; by default according to the owner's settings.
        token: access token; by default the one stored by `hf auth login`.
        revision: branch; by default main.
    Raises:
        UserError: if huggingface_hub is not installed, there is no finished model, or the hub refuses.
    """
    hub = _library()
    surrogate = run if isinstance(run, Surrogate) else Surrogate.load(run, physics=physics)
    reports = [None if isinstance(run, Surrogate) else read_json(Path(run) / name) for name in REPORTS]
    with temporary_folder() as folder:
        published(surrogate).save(folder, card=False)
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
    """Surrogate from a repository of the hub, or from the local cache; no code is downloaded.

    Raises UserError if huggingface_hub is not installed, the download fails, or the model is not of inrflow.
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
    """Context manager that converts errors of the hub and of its HTTP library to UserErrors."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{what}: {reason}; check the name, the token (hf auth login) and the connection") from error
