"""Runs the Triton kernels in Triton's interpreter without a GPU, which must be chosen before their import."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def device() -> torch.device:
    """Device of the Triton kernels: the GPU, or the CPU by interpretation."""
    pytest.importorskip("triton")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
