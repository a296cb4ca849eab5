import pytest
import torch
from inrflow_kernels import modulated_siren, reference, siren_features
from inrflow_kernels.arguments import SirenArguments, check_arguments
from inrflow_kernels.cpu import blocked, blocks
from siren_problems import MODES, make_problem


@pytest.fixture(params=[100, 8], ids=["several-samples-a-block", "parts-of-a-sample"])
def small_blocks(request, monkeypatch):
    """Blocks of few rows, so that small problems have several, with a ragged last one."""
    monkeypatch.setattr(blocked, "rows_per_block", lambda arguments, block_bytes: request.param)


def gradients(problem, backend):
    problem = problem.trainable()
    value = modulated_siren(*problem.positional(), **problem.options, backend=backend)
    weight = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)
    leaves = problem.leaves()
    return value.detach(), torch.autograd.grad((weight * value).sum(), leaves)


@pytest.mark.parametrize("points,modulated", MODES)
def test_values_and_gradients_equal_the_reference(points, modulated, small_blocks):
    problem = make_problem(points=points, modulated=modulated)
    value, found = gradients(problem, "torch")
    expected_value, expected = gradients(problem, "reference")
    torch.testing.assert_close(value, expected_value, rtol=1e-11, atol=1e-11)
    for gradient, target in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, target, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("coordinates,layers,channels", [(1, 1, 1), (16, 2, 16)])
def test_extreme_sizes_equal_the_reference(coordinates, layers, channels, small_blocks):
    problem = make_problem(coordinates=coordinates, layers=layers, channels=channels, modulated="shift gain")
    value, found = gradients(problem, "torch")
    expected_value, expected = gradients(problem, "reference")
    torch.testing.assert_close(value, expected_value, rtol=1e-11, atol=1e-11)
    for gradient, target in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, target, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("points", ["shared", "per_sample", "ragged"])
def test_only_the_wanted_gradients_are_computed(points, small_blocks):
    problem = make_problem(points=points, modulated="shift gain output")
    shift = problem.shift.clone().requires_grad_()
    arguments = (problem.x, problem.hidden_weights, shift, *problem.positional()[3:])
    found = [
        torch.autograd.grad(modulated_siren(*arguments, **problem.options, backend=backend).square().sum(), shift)[0]
        for backend in ("torch", "reference")
    ]
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shared_weight,shared_bias", [(False, False), (False, True), (True, False)])
def test_gradients_through_a_shared_trunk_evaluate_it_once_for_each_point(
    shared_weight, shared_bias, small_blocks, monkeypatch
):
    """The fallback of backends that do not support these gradients."""
    problem = make_problem(modulated="output")
    if shared_weight:
        problem.output_weight = problem.output_weight[0]
    if shared_bias:
        problem.output_bias = problem.output_bias[0]
    _, expected = gradients(problem, "reference")
    trained = problem.trainable()
    arguments = check_arguments(*trained.positional())
    rows = []
    monkeypatch.setattr(
        blocked, "plan_blocks", lambda part, limit: rows.append(part.rows) or blocks.plan_blocks(part, limit)
    )
    shape = arguments.new_result()
    grad = torch.linspace(-1, 1, shape.numel(), dtype=shape.dtype).view_as(shape)
    found = blocked.backward(arguments, grad, [True] * len(arguments.tensors())).tensors()
    by_name = dict(zip((id(tensor) for tensor in arguments.tensors()), found, strict=True))
    for leaf, target in zip(trained.leaves(), expected, strict=True):
        torch.testing.assert_close(by_name[id(leaf)], target, rtol=1e-10, atol=1e-10)
    assert set(rows) == {problem.x.shape[0]}


def test_second_derivatives_go_through_the_reference(small_blocks):
    problem = make_problem(points="per_sample", modulated="shift gain")

    def coordinate_gradient_loss(backend):
        trainable = problem.trainable()
        value = modulated_siren(*trainable.positional(), backend=backend)
        (slope,) = torch.autograd.grad(value[..., 0].sum(), trainable.x, create_graph=True)
        return torch.autograd.grad(
            (slope[..., 0] * value[..., 1]).sum() + slope.square().sum(), trainable.leaves()[:-1]
        )

    for gradient, target in zip(coordinate_gradient_loss("torch"), coordinate_gradient_loss("reference"), strict=True):
        torch.testing.assert_close(gradient, target, rtol=1e-9, atol=1e-9)


def test_second_derivatives_are_right_where_one_argument_follows_from_another(small_blocks):
    problem = make_problem(modulated="shift gain")

    def inner_step(backend):
        gain = problem.gain.clone().requires_grad_()
        followed = (*problem.positional()[:2], problem.shift * gain, gain, *problem.positional()[4:])
        value = modulated_siren(*followed, backend=backend)
        (slope,) = torch.autograd.grad(value.square().sum(), gain, create_graph=True)
        return slope.detach(), torch.autograd.grad(slope.square().sum(), gain)[0]

    torch.testing.assert_close(inner_step("torch"), inner_step("reference"), rtol=1e-9, atol=1e-9)


def test_features_and_their_gradients_equal_the_reference(small_blocks):
    problem = make_problem(points="per_sample", modulated="none").trainable()
    leaves = [problem.x, *problem.hidden_weights, problem.shift]

    def both(function):
        value = function(problem.x, problem.hidden_weights, problem.shift)
        first = torch.autograd.grad(value.pow(3).sum(), leaves, create_graph=True)
        return value, first, torch.autograd.grad(first[0].square().sum(), leaves)

    found = both(lambda *arguments: siren_features(*arguments, backend="torch"))
    expected = both(lambda *arguments: reference.siren_features(SirenArguments(*arguments)))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_float32_is_as_accurate_as_eager_float32():
    problem = make_problem(modulated="shift gain", count=300, width=64, layers=4, frequency=30.0)
    exact = reference.modulated_siren(problem.arguments())
    single = problem.to(torch.float32)
    errors = [
        float((modulated_siren(*single.positional(), backend=backend) - exact).norm() / exact.norm())
        for backend in ("torch", "reference")
    ]
    assert errors[0] < 1.5 * errors[1] < 1e-5


def test_autocast_leaves_the_blocked_path_in_single_precision():
    problem = make_problem(modulated="shift").to(torch.float32)
    plain = modulated_siren(*problem.positional(), backend="torch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = modulated_siren(*problem.positional(), backend="torch")
    torch.testing.assert_close(value, plain)


def test_empty_point_sets_give_empty_fields_and_zero_gradients():
    problem = make_problem(count=0, modulated="shift").trainable()
    value = modulated_siren(*problem.positional(), backend="torch")
    assert value.shape == (3, 0, 2)
    (gradient,) = torch.autograd.grad(value.sum(), problem.shift)
    assert torch.equal(gradient, torch.zeros_like(problem.shift))
