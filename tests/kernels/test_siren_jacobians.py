import pytest
import torch
from inrflow_kernels import modulated_siren_jacobian, reference
from inrflow_kernels.arguments import SirenArguments
from inrflow_kernels.cpu import blocked
from siren_problems import make_problem

NAMES = ("shift", "gain", "output_weight", "output_bias")
SIZE = 4


def make_maps(problem, names=NAMES):
    """Random derivatives (Z, ...) of the per-sample arguments in the code."""
    generator = torch.Generator().manual_seed(2)
    maps = {}
    for name in names:
        argument = getattr(problem, name)
        if argument is not None:
            shape = (SIZE, *argument.shape[-(1 if name == "output_bias" else 2) :])
            maps[name] = torch.randn(shape, generator=generator, dtype=torch.float64)
    return maps


def by_function_transform(problem, maps):
    """Values and Jacobian by forward-mode differentiation of the reference, sample by sample."""

    def part(name, sample, code):
        argument = getattr(problem, name)
        if argument is None:
            return None
        dims = 1 if name == "output_bias" else 2
        own = argument[sample] if argument.dim() > dims else argument
        if name not in maps:
            return own.unsqueeze(0)
        return (own + torch.einsum("z,z...->...", code, maps[name])).unsqueeze(0)

    def field(code, sample):
        x = problem.x[sample] if problem.x.dim() == 3 else problem.x
        parts = (part(name, sample, code) for name in NAMES)
        return reference.modulated_siren(SirenArguments(x, problem.hidden_weights, *parts))[0]

    samples = next((getattr(problem, n).shape[0] for n in NAMES[:3] if getattr(problem, n).dim() == 3), 1)
    zero = torch.zeros(SIZE, dtype=torch.float64)
    values = torch.stack([field(zero, sample) for sample in range(samples)])
    return values, torch.stack([torch.func.jacfwd(field)(zero, sample) for sample in range(samples)])


def call(problem, maps, **options):
    named = {f"{name}_map": linear_map for name, linear_map in maps.items()}
    return modulated_siren_jacobian(*problem.positional(), **named, **options)


@pytest.mark.parametrize("backend", ["auto", "torch", "triton", "reference"])
@pytest.mark.parametrize("points", ["shared", "per_sample"])
@pytest.mark.parametrize("rows", [10, 60])
def test_jacobian_equals_that_of_the_function_transform(points, backend, rows, monkeypatch):
    monkeypatch.setattr(blocked, "rows_per_block", lambda arguments, block_bytes: rows)
    problem = make_problem(points=points, modulated="shift gain output")
    maps = make_maps(problem)
    torch.testing.assert_close(call(problem, maps, backend=backend), by_function_transform(problem, maps))


@pytest.mark.parametrize("name", NAMES)
def test_one_argument_may_depend_on_the_code_alone(name):
    problem = make_problem(modulated="shift gain output", count=5)
    maps = make_maps(problem, names=(name,))
    torch.testing.assert_close(call(problem, maps, backend="torch"), by_function_transform(problem, maps))


def test_jacobian_is_differentiable_where_a_gradient_is_wanted():
    problem = make_problem(modulated="shift gain", count=5).trainable()
    maps = make_maps(problem)
    (found,) = torch.autograd.grad(call(problem, maps)[1].square().sum(), problem.shift)
    (expected,) = torch.autograd.grad(by_function_transform(problem, maps)[1].square().sum(), problem.shift)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "maps,message",
    [
        ({}, "no map"),
        ({"gain": torch.zeros(1, 3, 32)}, "gain is None"),
        ({"shift": torch.zeros(3, 32)}, "expected"),
        ({"shift": torch.zeros(2, 3, 32), "output_bias": torch.zeros(1, 2)}, "expected"),
    ],
)
def test_maps_that_do_not_fit_are_named(maps, message):
    with pytest.raises(ValueError, match=message):
        call(make_problem(), maps)
