import pytest
import torch
from inrflow_kernels import modulated_siren_jvp, reference
from inrflow_kernels.arguments import SirenArguments
from inrflow_kernels.cpu import blocked
from siren_problems import MODES, make_problem, make_tangents


def by_function_transform(problem, tangents):
    """Values and tangents by torch.func.jvp of the reference, one direction at a time."""
    names = list(tangents)

    def field(*moving):
        keys = ("x", "hidden_weights", "shift", "gain", "output_weight", "output_bias")
        arguments = dict(zip(keys, problem.positional(), strict=True))
        arguments |= dict(zip(names, moving, strict=True))
        return reference.modulated_siren(SirenArguments(**arguments, **problem.options))

    primals = tuple(getattr(problem, name) for name in names)
    results = [
        torch.func.jvp(field, primals, tuple(tangents[name][k] for name in names))
        for k in range(next(iter(tangents.values())).shape[0])
    ]
    return results[0][0], torch.stack([change for _, change in results])


def call(problem, tangents, **options):
    named = {f"{name}_tangent": tangent for name, tangent in tangents.items()}
    return modulated_siren_jvp(*problem.positional(), **problem.options, **named, **options)


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("points,modulated", MODES)
def test_tangents_equal_those_of_the_function_transform(points, modulated, backend, monkeypatch):
    monkeypatch.setattr(blocked, "rows_per_block", lambda arguments, block_bytes: 60)
    problem = make_problem(points=points, modulated=modulated)
    tangents = make_tangents(problem)
    torch.testing.assert_close(call(problem, tangents, backend=backend), by_function_transform(problem, tangents))


@pytest.mark.parametrize("name", ["x", "shift", "gain", "output_weight", "output_bias"])
def test_one_argument_may_move_alone(name):
    problem = make_problem(modulated="shift gain output")
    tangents = make_tangents(problem, names=(name,))
    torch.testing.assert_close(call(problem, tangents, backend="torch"), by_function_transform(problem, tangents))


def test_tangents_are_differentiable_where_a_gradient_is_wanted():
    problem = make_problem(modulated="shift", count=6).trainable()
    tangents = make_tangents(problem, directions=1, names=("x",))
    _, slope = call(problem, tangents, backend="torch")
    (found,) = torch.autograd.grad(slope.square().sum(), problem.shift)
    _, expected_slope = by_function_transform(problem, tangents)
    (expected,) = torch.autograd.grad(expected_slope.square().sum(), problem.shift)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "tangents,message",
    [
        ({}, "no tangent"),
        ({"gain": torch.zeros(1, 3, 3, 32)}, "gain is None"),
        ({"shift": torch.zeros(3, 3, 32)}, "expected"),
        ({"x": torch.zeros(2, 37, 2), "shift": torch.zeros(1, 3, 3, 32)}, "expected"),
    ],
)
def test_tangents_that_do_not_fit_are_named(tangents, message):
    with pytest.raises(ValueError, match=message):
        call(make_problem(), tangents)
