"""Names of the files of a run directory that training writes and commands read."""

from __future__ import annotations

MODEL_FILE = "model.safetensors"
METRICS_FILE = "metrics.jsonl"
CANDIDATES_FILE = "candidates.json"
