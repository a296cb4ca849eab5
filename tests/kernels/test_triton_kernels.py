"""The Triton kernels against the float64 reference: interpreted without a GPU, compiled with one."""

import pytest
import torch
from inrflow_kernels import modulated_siren, modulated_siren_jvp, operators, reference, siren_features
from siren_problems import MODES, make_problem, make_tangents, relative_error

# Largest relative root mean square errors: of values, and of gradients and tangents.
VALUE_ERROR = {"fast": 8e-4, "bf16": 8e-3, "accurate": 2e-6}
GRADIENT_ERROR = {"fast": 1.4e-3, "bf16": 3e-2}
TANGENT_ERROR = {"fast": 1.2e-3, "bf16": 1.5e-2, "accurate": 2e-6}


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan(monkeypatch):
    """Fill new memory with NaN, so that results and partial sums left unwritten show."""
    pytest.importorskip("triton")
    new_empty = torch.Tensor.new_empty

    def poisoned(self, *shape, **options):
        result = new_empty(self, *shape, **options)
        return result.fill_(float("nan")) if result.is_floating_point() else result

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)


@pytest.fixture(autouse=True)
def triton_serves(monkeypatch):
    """Make a fallback to torch, which would pass every comparison, an error."""

    def refuse(reason):
        raise AssertionError(f"fell back: {reason}")

    monkeypatch.setattr("inrflow_kernels.dispatch.log_once", refuse)
    monkeypatch.setattr(operators, "log_once", refuse)


def value_error(problem, precision, device):
    single = problem.to(torch.float32).map(lambda tensor: tensor.to(device))
    found = modulated_siren(*single.positional(), **problem.options, backend="triton", precision=precision)
    return relative_error(found.cpu(), reference.modulated_siren(problem.arguments()))


def gradients(problem, device, **options):
    """Gradients of a weighted sum of the field with respect to everything."""
    problem = problem.map(lambda tensor: tensor.to(device)).trainable()
    value = modulated_siren(*problem.positional(), **problem.options, **options)
    weight = 1e-4 * torch.linspace(-1, 1, value.numel(), dtype=torch.float64).cos().view_as(value)
    leaves = problem.leaves()
    return [gradient.cpu() for gradient in torch.autograd.grad(value, leaves, weight.to(value))]


def gradient_error(problem, precision, device):
    found = gradients(problem.to(torch.float32), device, backend="triton", precision=precision)
    expected = gradients(problem, torch.device("cpu"), backend="reference")
    return max(relative_error(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("precision", VALUE_ERROR)
@pytest.mark.parametrize("points,modulated", MODES)
def test_values_in_every_mode(points, modulated, precision, device):
    problem = make_problem(points=points, modulated=modulated)
    assert value_error(problem, precision, device) < VALUE_ERROR[precision]


@pytest.mark.parametrize("precision", VALUE_ERROR)
@pytest.mark.parametrize("width", [32, 64, 128, 256])
def test_values_at_every_width_with_a_high_frequency_and_several_tiles(width, precision, device):
    problem = make_problem(width=width, layers=4, frequency=30.0, modulated="shift gain", count=131, samples=2)
    assert value_error(problem, precision, device) < VALUE_ERROR[precision]


@pytest.mark.parametrize(
    "coordinates,layers,channels", [(1, 1, 1), (3, 6, 3), (4, 2, 16), (5, 2, 7), (8, 1, 2), (16, 2, 16)]
)
def test_values_at_odd_sizes(coordinates, layers, channels, device):
    problem = make_problem(coordinates=coordinates, layers=layers, channels=channels, modulated="shift gain output")
    assert value_error(problem, "accurate", device) < VALUE_ERROR["accurate"]


@pytest.mark.parametrize("width,channels", [(64, 1), (32, 3), (256, 2)])
def test_values_of_a_trunk_that_many_samples_share(width, channels, device):
    problem = make_problem(modulated="output", samples=45, count=150, channels=channels, width=width)
    assert value_error(problem, "fast", device) < VALUE_ERROR["fast"]
    assert value_error(problem, "accurate", device) < VALUE_ERROR["accurate"]


@pytest.mark.parametrize("width,precision", [(32, "fast"), (64, "accurate"), (128, "bf16")])
def test_features_of_a_trunk(width, precision, device):
    problem = make_problem(modulated="none", width=width, count=150)
    single = problem.to(torch.float32).map(lambda tensor: tensor.to(device))
    options = dict(backend="triton", precision=precision)
    found = siren_features(single.x, single.hidden_weights, single.shift, **options)
    expected = reference.siren_features(problem.arguments())
    assert relative_error(found.cpu(), expected) < VALUE_ERROR[precision]


@pytest.mark.parametrize("precision", GRADIENT_ERROR)
def test_gradients_of_features(precision, device):
    problem = make_problem(modulated="none", points="per_sample", count=70).trainable()
    single = problem.to(torch.float32).map(lambda tensor: tensor.to(device)).trainable()
    gradients = []
    for source, options in (
        (single, dict(backend="triton", precision=precision)),
        (problem, dict(backend="reference")),
    ):
        features = siren_features(source.x, source.hidden_weights, source.shift, **options)
        weight = torch.linspace(-1, 1, features.numel(), dtype=torch.float64).cos().view_as(features).to(features)
        leaves = [source.x, *source.hidden_weights, source.shift]
        gradients.append(torch.autograd.grad((weight * features).sum(), leaves))
    assert max(relative_error(a.cpu(), b) for a, b in zip(*gradients, strict=True)) < GRADIENT_ERROR[precision]


@pytest.mark.parametrize("precision", GRADIENT_ERROR)
@pytest.mark.parametrize("points,modulated", MODES)
def test_gradients_in_every_mode(points, modulated, precision, device):
    problem = make_problem(points=points, modulated=modulated)
    assert gradient_error(problem, precision, device) < GRADIENT_ERROR[precision]


@pytest.mark.parametrize("modulated", ["shift", "shift gain output", "output"])
@pytest.mark.parametrize("width,layers", [(32, 1), (64, 4), (128, 2), (128, 5)])
def test_gradients_at_every_width(width, layers, modulated, device):
    problem = make_problem(width=width, layers=layers, modulated=modulated, count=131, samples=2, coordinates=3)
    assert gradient_error(problem, "fast", device) < GRADIENT_ERROR["fast"]


@pytest.mark.parametrize("points", ["shared", "per_sample", "ragged"])
def test_weight_gradients_at_width_128_in_several_groups_of_samples(points, device, monkeypatch):
    from inrflow_kernels.triton import launch_backward

    monkeypatch.setattr(launch_backward, "STORED_BYTES", 1)
    problem = make_problem(points=points, width=128, modulated="shift gain output")
    assert gradient_error(problem, "fast", device) < GRADIENT_ERROR["fast"]


@pytest.mark.parametrize("coordinates,channels", [(1, 1), (5, 7), (16, 16)])
def test_gradients_at_odd_sizes(coordinates, channels, device):
    problem = make_problem(coordinates=coordinates, channels=channels, modulated="shift gain", layers=2)
    assert gradient_error(problem, "fast", device) < GRADIENT_ERROR["fast"]


@pytest.mark.parametrize("width", [64, 128])
def test_modulation_gradients_alone(width, device):
    problem = make_problem(width=width, modulated="shift gain", points="per_sample")
    found, expected = [], []
    for result, source, options in (
        (found, problem.to(torch.float32).map(lambda tensor: tensor.to(device)), dict(backend="triton")),
        (expected, problem, dict(backend="reference")),
    ):
        shift, gain = source.shift.clone().requires_grad_(), source.gain.clone().requires_grad_()
        value = modulated_siren(source.x, source.hidden_weights, shift, gain, *source.positional()[4:], **options)
        result += torch.autograd.grad(value.square().sum(), (shift, gain))
    assert max(relative_error(a.cpu(), b) for a, b in zip(found, expected, strict=True)) < GRADIENT_ERROR["fast"]


@pytest.mark.parametrize("scale", [1e-12, 1e8])
def test_gradients_keep_their_precision_at_any_scale(scale, device):
    problem = make_problem(modulated="shift").to(torch.float32).map(lambda tensor: tensor.to(device)).trainable()
    value = modulated_siren(*problem.positional(), backend="triton", precision="fast")
    first, second = (
        torch.autograd.grad(value, problem.shift, torch.full_like(value, factor), retain_graph=True)[0]
        for factor in (1.0, scale)
    )
    assert relative_error(second / scale, first) < GRADIENT_ERROR["fast"]


def test_second_derivatives_are_the_references(device):
    problem = make_problem(points="per_sample", modulated="shift gain")

    def gradient_of_slope(source, **options):
        source = source.trainable()
        value = modulated_siren(*source.positional(), **options)
        (slope,) = torch.autograd.grad(value.sum(), source.x, create_graph=True)
        return torch.autograd.grad(slope.square().mean(), source.leaves()[:-1])

    single = problem.to(torch.float32).map(lambda tensor: tensor.to(device))
    found = gradient_of_slope(single, backend="triton", precision="fast")
    expected = gradient_of_slope(problem, backend="reference")
    assert max(relative_error(a.cpu(), b) for a, b in zip(found, expected, strict=True)) < 1e-5


def test_results_are_bitwise_the_same_in_every_run(device):
    problem = make_problem(points="ragged", modulated="shift gain output", counts=(140, 3, 260)).to(torch.float32)
    runs = [
        gradients(problem, device, backend="triton", precision="fast")
        for _ in range(10 if device.type == "cuda" else 2)
    ]
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("precision", TANGENT_ERROR)
@pytest.mark.parametrize(
    "points,modulated", [("shared", "shift gain output"), ("ragged", "shift"), ("per_sample", "none")]
)
def test_tangents(points, modulated, precision, device):
    tangent_error(make_problem(points=points, modulated=modulated), make_tangents, precision, device)


@pytest.mark.parametrize("precision", ["fast", "accurate"])
@pytest.mark.parametrize("name", ["x", "shift", "gain", "output_weight", "output_bias"])
def test_small_tangents_of_one_argument(name, precision, device):
    problem = make_problem(modulated="shift gain output")
    tangent_error(problem, lambda p: make_tangents(p, names=(name,), scale=1e-7), precision, device)


@pytest.mark.parametrize("width", [64, 128])
def test_tangents_at_every_width(width, device):
    problem = make_problem(width=width, layers=4, modulated="shift gain", count=131, samples=2)
    tangent_error(problem, make_tangents, "accurate", device)


def tangent_error(problem, tangents_of, precision, device):
    tangents = tangents_of(problem)
    expected = reference.modulated_siren_jvp(problem.arguments(), tangents)
    single = problem.to(torch.float32).map(lambda tensor: tensor.to(device))
    named = {f"{name}_tangent": tangent.float().to(device) for name, tangent in tangents.items()}
    values, changes = modulated_siren_jvp(
        *single.positional(), **problem.options, **named, backend="triton", precision=precision
    )
    assert relative_error(values.cpu(), expected[0]) < VALUE_ERROR[precision]
    assert relative_error(changes.cpu(), expected[1]) < TANGENT_ERROR[precision]


def test_training_loses_like_the_torch_backend(device):
    """Two hundred points, forty Adam steps of a field with its codes: the same losses within the precision's error."""
    points = torch.linspace(-1, 1, 100).view(-1, 1)
    target = torch.stack([torch.sin(4 * points), torch.cos(3 * points)])
    losses = {}
    for backend in ("triton", "torch"):
        problem = make_problem(coordinates=1, channels=1, samples=2, layers=2, modulated="shift", dtype=torch.float32)
        problem = problem.map(lambda tensor: tensor.to(device)).trainable()
        optimizer = torch.optim.Adam(problem.leaves()[1:], lr=3e-3)
        losses[backend] = []
        for _ in range(40):
            options = dict(backend=backend, precision="fast")
            value = modulated_siren(points.to(device), *problem.positional()[1:], **options)
            loss = (value - target.to(device)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[backend].append(loss.item())
    triton, torch_ = (torch.tensor(losses[backend]) for backend in ("triton", "torch"))
    assert torch_[-1] < 0.1 * torch_[0]
    torch.testing.assert_close(triton, torch_, rtol=1e-2, atol=1e-4)
