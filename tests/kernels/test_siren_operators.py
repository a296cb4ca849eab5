import pytest
import torch
from inrflow_kernels import (
    modulated_siren,
    modulated_siren_jacobian,
    modulated_siren_jvp,
    operators,
    siren_features,
)
from inrflow_kernels.arguments import SAMPLE_DIMS, check_arguments
from siren_problems import make_problem, make_tangents

BACKENDS = ["torch", "triton"]


def operator_arguments(problem, backend):
    arguments = check_arguments(*problem.positional(), problem.options.get("offsets"))
    return *operators.flatten(arguments), backend, "fast"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("points,modulated", [("shared", "shift gain"), ("ragged", "output")])
def test_operator_is_registered_as_torch_expects(points, modulated, backend, device):
    problem = make_problem(points=points, modulated=modulated, layers=2, counts=(5, 0, 9), count=7)
    problem = problem.to(torch.float32).map(lambda tensor: tensor.to(device)).trainable()
    torch.library.opcheck(operators._siren, operator_arguments(problem, backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_operator_is_registered_as_torch_expects(backend, device):
    problem = make_problem(modulated="shift gain output", layers=2, count=7)
    problem = problem.to(torch.float32).map(lambda tensor: tensor.to(device))
    arguments = operator_arguments(problem, backend)
    wanted = [True, False, True, True, False, True, False]
    tests = ("test_schema", "test_faketensor")
    grad = torch.ones(3, 7, 2, device=device)
    torch.library.opcheck(operators._siren_backward, (grad, *arguments, wanted), test_utils=tests)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_functions_have_no_graph_break_and_the_same_gradients(backend, device):
    problem = make_problem(points="per_sample", modulated="shift").to(torch.float32)
    problem = problem.map(lambda tensor: tensor.to(device)).trainable()

    def loss(shift):
        arguments = (problem.x, problem.hidden_weights, 2 * shift, *problem.positional()[3:])
        return modulated_siren(*arguments, backend=backend, precision="fast").square().mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    values = [function(problem.shift) for function in (compiled, loss)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, problem.shift)[0] for value in values))


@pytest.mark.parametrize("backend", BACKENDS)
def test_operators_of_derivatives_are_registered_as_torch_expects(backend, device):
    problem = make_problem(modulated="shift gain output", layers=2, count=7).to(torch.float32)
    problem = problem.map(lambda tensor: tensor.to(device))
    arguments = operator_arguments(problem, backend)
    tangents = {name: tangent.to(device) for name, tangent in make_tangents(problem, directions=2).items()}
    torch.library.opcheck(operators._siren_tangents, (*arguments, *(tangents[name] for name in SAMPLE_DIMS)))
    maps = [torch.ones(4, 2, 32, device=device), None, None, torch.ones(4, 2, device=device)]
    torch.library.opcheck(operators._siren_jacobian, (*arguments[:7], *maps))


@pytest.mark.parametrize(
    "function,backend",
    [(name, "triton") for name in ("ragged points", "shared trunk", "features", "tangents", "jacobian")]
    + [("shared trunk", "torch")],
)
def test_every_function_is_compiled_without_a_graph_break(function, backend, device):
    points = "ragged" if function == "ragged points" else "shared"
    modulated = {"shared trunk": "output", "features": "none"}.get(function, "shift")
    problem = make_problem(points=points, modulated=modulated, layers=2).to(torch.float32)
    problem = problem.map(lambda tensor: tensor.to(device))
    options = dict(backend=backend, precision="fast")
    x, weights, shift, gain, *output = problem.positional()
    along = torch.ones(4, *shift.shape, device=device)
    # A tensor's numbers are not known to the compiler: offsets are given as numbers.
    offsets = problem.options["offsets"].tolist() if points == "ragged" else None

    def evaluate(shift, along):
        if function == "features":
            return siren_features(x, weights, shift, **options)
        if function == "tangents":
            return modulated_siren_jvp(x, weights, shift, gain, *output, shift_tangent=along, **options)
        if function == "jacobian":
            return modulated_siren_jacobian(x, weights, shift, gain, *output, shift_map=along[:, 0], backend=backend)
        return modulated_siren(x, weights, shift, gain, *output, offsets=offsets, **options)

    torch.compiler.reset()  # the same code again: the limit of recompilations would be reached
    compiled = torch.compile(evaluate, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(shift, along), evaluate(shift, along))
