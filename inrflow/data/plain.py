"""Conversion of user data (masked arrays, nullable pandas columns, objects, tensors) to plain numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from inrflow.errors import UserError, first_line

_RAW = {"scale_factor", "add_offset", "_FillValue", "missing_value"}  # attributes removed by decoding


def plain_array(value: Any, name: str) -> np.ndarray:
    """Array of numbers with NaN for masked or missing values (None, NA); other types as numpy converts them.

    Raises UserError for ragged lists, complex numbers and xarray Datasets. name: name of the value, for messages.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return np.asarray((value.float() if value.dtype.itemsize < 4 and value.is_floating_point() else value).numpy())
    if hasattr(value, "data_vars"):
        raise UserError(f"{name} is a Dataset; give an array of it, such as dataset['name'].values")
    try:
        if isinstance(value, np.ma.MaskedArray) and value.dtype.kind in "fiub":
            value = np.ma.filled(value.astype(np.float64), np.nan)
        array = np.asarray(value)
    except ValueError as error:
        raise UserError(f"{name}: no array ({error}); give rows of equal lengths") from error
    if array.dtype == object:
        items = [None if type(item).__name__ == "NAType" else item for item in array.ravel().tolist()]
        if any(item is not None for item in items) and all(
                item is None or isinstance(item, int | float | np.number) for item in items):
            array = np.array(items, np.float64).reshape(array.shape)
    if array.dtype.kind == "c":
        raise UserError(f"{name} holds complex numbers; give real and imaginary parts as two")
    return array


def detached(value: Tensor, name: str) -> Tensor:
    """Tensor without its gradient. Raises UserError within transforms of torch.func, where it has no values."""
    try:
        value.data_ptr()
        forward = unpack_dual(value).tangent is not None
    except RuntimeError:
        forward = True
    if forward:
        raise UserError(f"{name}: a tensor has no values within torch.func (jacrev, vmap ...), and no derivatives in "
                        "forward mode; use torch.autograd.functional.jacobian, or solution.derivatives(t, x)")
    return value.detach()


def unindexed(table: Any) -> Any:
    """DataFrame with its index as columns if the index has names or contains dates."""
    index = table.index
    named = any(name is not None for name in index.names)
    return table.reset_index() if named or getattr(index.dtype, "kind", "") == "M" else table


def decoded(dataset: Any) -> Any:
    """xarray Dataset with times, scaled and missing values decoded by their attributes, if it was opened without
    decoding. Raises UserError if xarray cannot decode them."""
    raw = [name for name, one in dataset.variables.items()
           if not _RAW.isdisjoint(one.attrs) or " since " in str(one.attrs.get("units", ""))]
    if not raw:
        return dataset
    import xarray

    try:
        return xarray.decode_cf(dataset)
    except (ValueError, TypeError, OverflowError, ImportError) as error:
        raise UserError(f"the dataset was not decoded, and its attributes cannot be followed ({first_line(error)}); "
                        f"decode {', '.join(map(str, raw))}, or remove their attributes") from error
