"""Export of modules as torch.export programs and ONNX graphs, whose values are compared with onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from inrflow.errors import UserError
from inrflow.runtime.atomic_files import replaced_atomically

AGREEMENT = 1e-5  # largest difference between onnxruntime and torch, relative to the largest value
_ARITHMETIC = {"add", "radd", "sub", "rsub", "mul", "rmul", "div", "truediv", "rtruediv", "pow", "rpow", "remainder",
               "mod", "clamp"}


class _DoubleNumbers(TorchFunctionMode):
    """Mode in which numbers in arithmetic with tensors are float64 tensors, since ONNX graphs hold plain numbers in
    single precision."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__.strip("_") in _ARITHMETIC:
            args, kwargs = [_double(one) for one in args], {key: _double(one) for key, one in kwargs.items()}
        return func(*args, **kwargs)


def _double(value: Any) -> Any:
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, float) else value


def require_libraries() -> None:
    """Check that the libraries that write and run ONNX are installed. Raises UserError."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install 'inrflow[export]'") from error


def write_graph(
    folder: Path, name: str, module: nn.Module, inputs: Mapping[str, Tensor], output: str,
    free: Mapping[str, Sequence[str]],
) -> float:
    """Largest relative difference between values of NAME.pt2 and NAME.onnx, which are written, at other sizes.

    Args:
        inputs: examples (with leading sizes of 2 or more) by name, in the order of the module's arguments.
        free: name of the leading size, which is dynamic, by input.
    Raises:
        UserError: if the module cannot be exported, or values in onnxruntime differ.
    """
    sizes = {size: torch.export.Dim(size, min=1) for size in sorted({size for one in free.values() for size in one})}
    shapes = tuple({0: sizes[free[key][0]]} for key in inputs)
    module = deepcopy(module).eval().requires_grad_(False)  # outputs convertible to numpy
    with torch.no_grad(), _quiet():
        try:
            with _DoubleNumbers():
                program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=shapes, strict=False)
            graph = torch.onnx.export(program, (), input_names=list(inputs), output_names=[output], dynamo=True,
                                      verbose=False)
        except Exception as error:  # of many classes, wrapping those of the module
            why = shorten(re.sub("\x1b\\[[0-9;]*m", "", str(error)), 200, placeholder=" ...")
            raise UserError(f"{name} of this model cannot be exported: {type(error).__name__}: {why}") from error
        assert graph is not None
        with replaced_atomically(folder / f"{name}.pt2") as path:
            _saved(program, path)
        with replaced_atomically(folder / f"{name}.onnx") as path:
            path.write_bytes(graph.model_proto.SerializeToString())
        return _difference(folder, name, module, inputs, free)


def _saved(program: torch.export.ExportedProgram, path: Path) -> None:
    data = io.BytesIO()
    torch.export.save(program, data)
    path.write_bytes(data.getvalue())


def _difference(
    folder: Path, name: str, module: nn.Module, inputs: Mapping[str, Tensor], free: Mapping[str, Sequence[str]]
) -> float:
    """Largest relative difference between module, program and ONNX graph, at three times the sizes of the examples."""
    import onnxruntime

    more = {key: torch.cat([value, value.flip(0), 0.5 * value]) for key, value in inputs.items()}
    expected = module(*more.values())
    program = torch.export.load(str(folder / f"{name}.pt2")).module()(*more.values())
    session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])
    taken = {one.name for one in session.get_inputs()}
    (values,) = session.run(None, {key: value.numpy() for key, value in more.items() if key in taken})
    size = float(expected.abs().max()) or 1.0
    away = max(float((other - expected).abs().max()) / size for other in (program, torch.as_tensor(values)))
    if not away <= AGREEMENT:
        raise UserError(f"{name} of this model gives other values in onnxruntime (by {away:.1e} of the largest); do "
                        "not use the files that were written")
    return away


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Context manager that silences the exporters' internal messages."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
