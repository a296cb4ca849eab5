"""Correctness of the modulated SIREN's backends on this device: values, gradients and tangents against float64, and
bitwise reproducibility."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from inrflow_kernels import modulated_siren, modulated_siren_jvp, reference
from inrflow_kernels.arguments import SirenArguments
from torch import Tensor

# Largest relative root mean square errors of values, gradients and tangents.
LIMITS = {"torch": 1e-5, "triton fast": 2e-3, "triton bf16": 4e-2, "triton accurate": 1e-5}
REPEATS = 10


def random_siren(
    width: int, layers: int, samples: int, points: int, channels: int, shared_trunk: bool, device: torch.device
) -> dict:
    """Random arguments of `modulated_siren` by Sitzmann's initialisation with w0 = 30 and a fixed seed.

    Shifts are per sample, or output layers with `shared_trunk`.
    """
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int, bound: float = 1.0) -> Tensor:
        return ((torch.rand(*shape, generator=generator) * 2 - 1) * bound).to(device)

    bound = (6 / width) ** 0.5
    return dict(
        x=uniform(points, 2),
        hidden_weights=[
            uniform(width, 2, bound=15.0),
            *(uniform(width, width, bound=bound) for _ in range(layers - 1)),
        ],
        shift=uniform(layers, width) if shared_trunk else uniform(samples, layers, width),
        gain=None,
        output_weight=uniform(*([samples] if shared_trunk else []), channels, width, bound=bound),
        output_bias=uniform(channels),
    )


def by_reference(**arguments: Any) -> Tensor:
    """Field values by the definition, evaluated by torch."""
    return reference.modulated_siren(SirenArguments(**arguments))


def _mapped(arguments: dict, function: Callable[[Tensor], Tensor]) -> dict:
    """Arguments with a function applied to every tensor."""

    def mapped(value: Tensor | list[Tensor] | None) -> Tensor | list[Tensor] | None:
        if value is None:
            return None
        return [function(tensor) for tensor in value] if isinstance(value, list) else function(value)

    return {name: mapped(value) for name, value in arguments.items()}


def _leaves(arguments: dict) -> list[Tensor]:
    names = ("shift", "output_weight", "output_bias", "x")
    return [*arguments["hidden_weights"], *(arguments[name] for name in names)]


def _values_and_gradients(arguments: dict, evaluate: Callable[..., Tensor]) -> list[Tensor]:
    trained = _mapped(arguments, lambda tensor: tensor.clone().requires_grad_())
    value = evaluate(**trained)
    weight = torch.linspace(-1, 1, value.numel(), dtype=torch.float64).cos().view_as(value).to(value)
    return [value.detach(), *torch.autograd.grad((weight * value).sum(), _leaves(trained))]


def relative_error(computed: list[Tensor], expected: list[Tensor]) -> float:
    """Largest relative root mean square error of the tensors."""
    pairs = zip(computed, expected, strict=True)
    return max(float((a.double() - b.double()).norm() / b.double().norm()) for a, b in pairs)


def check_correctness(device: torch.device, backends: list[str], small: bool = False) -> dict[str, float]:
    """Largest relative error of each backend ("torch", "triton fast", ...) over widths, modulations and derivatives.

    Raises AssertionError if an error exceeds its limit or repeated runs differ. `small`: one width and few points.
    """
    errors = dict.fromkeys(backends, 0.0)
    for width in (32,) if small else (32, 64, 128, 256):
        for shared_trunk in (False, True):
            arguments = random_siren(width, 4, 3, 40 if small else 300, 2, shared_trunk, device)
            exact = _mapped(arguments, Tensor.double)
            expected = _values_and_gradients(exact, by_reference)
            moved = dict(shift=torch.ones(2, *arguments["shift"].shape, device=device))
            expected_moved = reference.modulated_siren_jvp(SirenArguments(**exact), _mapped(moved, Tensor.double))[1]
            for name in backends:
                backend, _, precision = name.partition(" ")
                options = dict(backend=backend, precision=precision or "auto")

                def evaluate(options: dict = options, **given: Tensor) -> Tensor:
                    return modulated_siren(**given, **options)  # type: ignore[arg-type]

                computed = _values_and_gradients(arguments, evaluate)
                tangents = modulated_siren_jvp(**arguments, shift_tangent=moved["shift"], **options)[1]
                error = max(relative_error(computed, expected), relative_error([tangents], [expected_moved]))
                where = f"{name} at width {width}, {'shared trunk' if shared_trunk else 'shifts'}"
                assert error < LIMITS[name], f"{where} is off by {error:.1e}; expected less than {LIMITS[name]:.0e}"
                for _ in range(1 if small else REPEATS):
                    again = _values_and_gradients(arguments, evaluate)
                    same = all(torch.equal(a, b) for a, b in zip(computed, again, strict=True))
                    assert same or backend == "torch", f"{where} differs from run to run"
                errors[name] = max(errors[name], error)
    return errors
