import logging
import subprocess
import sys

import pytest
import torch
from inrflow_kernels import modulated_siren, modulated_siren_jvp, operators, reference, siren_features
from inrflow_kernels.arguments import SirenArguments
from siren_problems import make_problem


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_function_transforms_are_served(backend):
    problem = make_problem(modulated="shift gain", count=6)
    _, weights, shift, gain, output_weight, output_bias = problem.positional()

    def field(x, one_shift):
        return modulated_siren(x, weights, one_shift, None, output_weight, output_bias, backend=backend)[0]

    def expected(x, one_shift):
        return reference.modulated_siren(SirenArguments(x, weights, one_shift, None, output_weight, output_bias))[0]

    x = problem.x
    for transform in (
        lambda f: torch.func.jacfwd(f)(x, shift[0]),
        lambda f: torch.func.jacrev(f, 1)(x, shift[0]),
        lambda f: torch.func.vmap(f, (None, 0))(x, shift),
        lambda f: torch.func.jvp(f, (x, shift[0]), (torch.ones_like(x), torch.ones_like(shift[0])))[1],
    ):
        torch.testing.assert_close(transform(field), transform(expected))


def test_forward_mode_through_dual_numbers_is_served():
    problem = make_problem(modulated="shift", count=6)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(problem.x, torch.ones_like(problem.x))
        value = modulated_siren(dual, *problem.positional()[1:], backend="torch")
        tangent = torch.autograd.forward_ad.unpack_dual(value).tangent
    _, expected = torch.func.jvp(
        lambda x: reference.modulated_siren(SirenArguments(x, *problem.positional()[1:])),
        (problem.x,),
        (torch.ones_like(problem.x),),
    )
    torch.testing.assert_close(tangent, expected)


def test_a_fallback_is_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(operators, "_logged", set())
    problem = make_problem()
    with caplog.at_level(logging.INFO, logger="inrflow_kernels"):
        for _ in range(2):
            modulated_siren(*problem.positional(), backend="triton")
    assert len(caplog.records) == 1
    assert "runs on torch" in caplog.text


def test_a_kernel_that_is_too_large_for_the_device_leaves_the_work_to_torch(monkeypatch, caplog):
    errors = pytest.importorskip("triton.runtime.errors")
    from inrflow_kernels.triton import launch_backward, launch_forward

    def refuse(*arguments):
        raise errors.OutOfResources(300_000, 232_448, "shared memory")

    monkeypatch.setattr(operators, "_logged", set())
    for module, name in ((launch_forward, "forward"), (launch_forward, "tangents"), (launch_backward, "backward")):
        monkeypatch.setattr(module, name, refuse)
    problem = make_problem(dtype=torch.float32).trainable()
    exact = reference.modulated_siren(problem.arguments())
    with caplog.at_level(logging.INFO, logger="inrflow_kernels"):
        value = modulated_siren(*problem.positional(), backend="triton", precision="fast")
        found = torch.autograd.grad(value.sum(), problem.shift)
        still = [tensor.detach() for tensor in (problem.x, problem.shift)]
        weights = [weight.detach() for weight in problem.hidden_weights]
        output = problem.output_weight.detach(), problem.output_bias.detach()
        tangent = torch.ones(1, *problem.shift.shape)
        modulated_siren_jvp(still[0], weights, still[1], None, *output, shift_tangent=tangent, backend="triton")
    torch.testing.assert_close(value, exact)
    torch.testing.assert_close(found, torch.autograd.grad(exact.sum(), problem.shift))
    assert len(caplog.records) == 3 and caplog.text.count("shared memory") == 3


def test_mixed_dtypes_are_brought_to_the_widest():
    problem = make_problem()
    x = problem.x.float()
    assert modulated_siren(x, *problem.positional()[1:]).dtype == torch.float64
    half = problem.to(torch.bfloat16)
    assert modulated_siren(*half.positional()).dtype == torch.float32


@pytest.mark.parametrize(
    "change,message",
    [
        (dict(x=torch.zeros(4, 17)), "17 coordinates"),
        (dict(x=torch.zeros(4, 3)), r"hidden_weights\[0\]"),
        (dict(shift=torch.zeros(2, 32)), "shift"),
        (dict(gain=torch.zeros(3, 3, 8)), "gain"),
        (dict(gain=torch.zeros(4, 3, 32)), "samples"),
        (dict(output_weight=torch.zeros(2, 8)), "output_weight"),
        (dict(output_bias=torch.zeros(3)), "output_bias"),
        (dict(output_weight=torch.zeros(17, 32), output_bias=torch.zeros(17)), "17 channels"),
        (dict(x=torch.zeros(4, 2, dtype=torch.int64)), "floating"),
        (dict(hidden_weights=[]), "empty"),
        (dict(offsets=[0, 40]), "offsets"),
        (dict(offsets=[0, 40, 37]), "decrease"),
        (dict(backend="cuda"), "backend"),
        (dict(precision="double"), "precision"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    problem = make_problem()
    keys = ("x", "hidden_weights", "shift", "gain", "output_weight", "output_bias")
    arguments = dict(zip(keys, problem.positional(), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        modulated_siren(**arguments)


def test_features_refuse_per_sample_shifts():
    problem = make_problem(modulated="shift")
    with pytest.raises(ValueError, match="shift"):
        siren_features(problem.x, problem.hidden_weights, problem.shift)


def without_triton(script: str) -> None:
    """Run a script in a process that cannot import triton."""
    prelude = """
import sys
sys.modules["triton"] = None
import torch
from inrflow_kernels import modulated_siren, modulated_siren_jacobian, modulated_siren_jvp, siren_features
arguments = torch.zeros(9000, 2), [torch.zeros(64, 2)], torch.zeros(1, 64), None, torch.zeros(1, 64), torch.ones(1)
"""
    subprocess.run([sys.executable, "-c", prelude + script], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_torch_computes_where_triton_is_missing():
    without_triton("""
for backend in ("auto", "torch", "reference"):
    u = modulated_siren(*arguments, backend=backend)
    assert u.shape == (1, 9000, 1) and bool((u == 1).all())
""")


def test_triton_that_is_missing_cannot_be_chosen_by_name():
    without_triton("""
calls = [
    lambda: modulated_siren(*arguments, backend="triton"),
    lambda: modulated_siren_jvp(*arguments, shift_tangent=torch.ones(1, 1, 64), backend="triton"),
    lambda: modulated_siren_jacobian(*arguments, shift_map=torch.ones(1, 1, 64), backend="triton"),
    lambda: siren_features(*arguments[:3], backend="triton"),
]
for call in calls:
    try:
        call()
    except ImportError as error:
        assert "install triton or choose backend='auto'" in str(error)
    else:
        raise AssertionError("no error")
""")
