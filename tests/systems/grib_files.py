"""GRIB files of fields on regular grids, six hours apart, written by eccodes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest


def write_grib(path: Path, fields: np.ndarray, sample: str, keys: dict[str, Any]) -> None:
    """Write fields (T, points), from 2020-01-01 on, as messages of a sample with further keys; skips the test where
    nothing writes and reads GRIB."""
    eccodes = pytest.importorskip("eccodes")
    pytest.importorskip("cfgrib")
    with path.open("wb") as file:
        for step, one in enumerate(fields):
            message = eccodes.codes_grib_new_from_samples(sample)
            for key, value in {**keys, "dataDate": 20200101, "dataTime": 600 * step}.items():
                eccodes.codes_set(message, key, value)
            eccodes.codes_set_values(message, one.astype(float))
            eccodes.codes_write(message, file)
            eccodes.codes_release(message)
