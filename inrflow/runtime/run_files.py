"""Names of the files of a run directory that training writes and commands read."""

from __future__ import annotations

from pathlib import Path

from inrflow.errors import UserError

MODEL_FILE = "model.safetensors"
METRICS_FILE = "metrics.jsonl"
CANDIDATES_FILE = "candidates.json"


def model_file(directory: Path) -> Path:
    """Path of the model of a finished run. Raises UserError if there is none."""
    path = directory / MODEL_FILE
    if not path.exists():
        if not directory.exists():
            raise UserError(f"run directory {directory} does not exist; give one that inrflow train has written")
        if (directory / "config.yaml").exists():
            raise UserError(f"{directory} holds a training run that has not finished: continue it with "
                            f"inrflow train resume={directory}")
        raise UserError(f"{directory} holds no {MODEL_FILE}; give a run directory that inrflow train has written")
    return path
