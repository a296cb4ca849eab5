"""Arrays of numpy.save, and tensors of torch.save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.formats.builtin.arrays import ArrayFormat
from inrflow.errors import UserError


class NpyFormat(ArrayFormat):
    """Single array of numpy.save, whose axes follow from coordinates=[x,y] and the order of sizes; of records a table.
    """

    name = "npy"
    about = "npy (fields over trajectories, times and places)"

    def sniff(self, path: Path, start: bytes) -> bool:
        return start.startswith(b"\x93NUMPY")

    def arrays(self, path: Path) -> dict[str, np.ndarray]:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
        return {"u": array} if array.dtype.names is None else {name: array[name] for name in array.dtype.names}


class TorchFormat(ArrayFormat):
    """Tensors saved by torch.save, a single one or by name, loaded without running code (weights_only).

    Pairs x, y of one shape, as in neuraloperator, are two frames a unit of time apart; a list of tensors of one
    shape is stacked.
    """

    name = "PyTorch"
    suffixes = (".pt", ".pth")
    about = "PyTorch's .pt (tensors)"

    def sniff(self, path: Path, start: bytes) -> bool:
        import zipfile

        if not start.startswith(b"PK") or not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(member.endswith("/data.pkl") for member in archive.namelist())

    def save(self, file: Any, arrays: dict[str, np.ndarray]) -> None:
        import torch

        torch.save({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}, file)

    def arrays(self, path: Path) -> dict[str, np.ndarray]:
        import torch

        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged or hostile files raise all kinds
            raise UserError(f"{path} cannot be read without running code from it, or is damaged "
                            f"({type(error).__name__}); save a dictionary of tensors") from error
        several = isinstance(loaded, list | tuple) and all(isinstance(value, torch.Tensor) for value in loaded) and len(
            {value.shape for value in loaded}) == 1
        found = loaded if isinstance(loaded, dict) else {"u": torch.stack(list(loaded)) if several else loaded}
        arrays = {str(name): (value.float() if value.dtype == torch.bfloat16 else value).detach().resolve_conj().numpy()
                  for name, value in found.items() if isinstance(value, torch.Tensor)}
        if not arrays:
            inside = f" of {', '.join(map(str, loaded))}"[:80] if isinstance(loaded, dict) else ""
            raise UserError(f"{path} holds a {type(loaded).__name__}{inside} and no tensors beside each other; save a "
                            "dictionary of tensors, or one with an axis of trajectories")
        if set(arrays) == {"x", "y"} and arrays["x"].shape == arrays["y"].shape and arrays["x"].ndim > 1:
            return {"u": np.stack([arrays["x"], arrays["y"]], 1)}
        return arrays
