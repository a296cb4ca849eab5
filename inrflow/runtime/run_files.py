"""Names of the files of a run directory that training writes and commands read."""

from __future__ import annotations

from pathlib import Path

from inrflow.errors import UserError

MODEL_FILE = "model.safetensors"
METRICS_FILE = "metrics.jsonl"
CANDIDATES_FILE = "candidates.json"
WARNINGS_FILE = "warnings.json"


def no_model(directory: Path) -> UserError:
    """Error of a folder that holds no model of a finished run."""
    if not directory.exists():
        return UserError(f"run directory {directory} does not exist; give one that inrflow train has written")
    if (directory / "config.yaml").exists():
        return UserError(f"{directory} holds a training run that has not finished: continue it with inrflow train "
                         f"resume={directory}")
    return UserError(f"{directory} holds no {MODEL_FILE}; give a run directory that inrflow train has written")
