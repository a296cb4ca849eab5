import pytest
import torch
from inrflow_kernels import modulated_siren, operators
from inrflow_kernels.arguments import check_arguments
from siren_problems import make_problem

BACKENDS = ["torch", "triton"]


def operator_arguments(problem, backend):
    arguments = check_arguments(*problem.positional(), problem.options.get("offsets"))
    offsets = None if arguments.offsets is None else list(arguments.offsets)
    return (
        arguments.x,
        arguments.shift,
        arguments.gain,
        arguments.output_weight,
        arguments.output_bias,
        list(arguments.hidden_weights),
        offsets,
        backend,
        "fast",
    )


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
