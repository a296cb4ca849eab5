import math

import torch
from inrflow_kernels import reference
from inrflow_kernels.arguments import SirenArguments
from siren_problems import make_problem


def by_hand(problem, sample, point):
    """The same network, one scalar operation at a time."""
    pick = lambda tensor, dims: tensor[sample] if tensor.dim() == dims else tensor  # noqa: E731
    h = [float(value) for value in point]
    for layer, weight in enumerate(problem.hidden_weights):
        shift = pick(problem.shift, 3)[layer]
        gain = None if problem.gain is None else problem.gain[sample, layer]
        h = [
            math.sin(
                (1.0 if gain is None else float(gain[i])) * sum(float(weight[i, k]) * h[k] for k in range(len(h)))
                + float(shift[i])
            )
            for i in range(weight.shape[0])
        ]
    weight, bias = pick(problem.output_weight, 3), pick(problem.output_bias, 2)
    return [sum(float(weight[c, i]) * h[i] for i in range(len(h))) + float(bias[c]) for c in range(weight.shape[0])]


def test_reference_is_the_formula_evaluated_by_scalars():
    problem = make_problem(modulated="shift gain output", points="per_sample", count=3, width=8)
    value = reference.modulated_siren(problem.arguments())
    expected = torch.tensor(
        [[by_hand(problem, s, problem.x[s, n]) for n in range(3)] for s in range(3)], dtype=value.dtype
    )
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_ragged_rows_belong_to_the_sample_their_offsets_name():
    problem = make_problem(modulated="shift gain output", points="ragged", counts=(2, 0, 3), width=8)
    value = reference.modulated_siren(problem.arguments())
    expected = torch.tensor(
        [by_hand(problem, s, problem.x[r]) for r, s in enumerate((0, 0, 2, 2, 2))], dtype=value.dtype
    )
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_without_anything_per_sample_the_result_has_one_sample():
    problem = make_problem(modulated="none", count=5)
    assert reference.modulated_siren(problem.arguments()).shape == (1, 5, 2)


def test_reference_is_twice_differentiable():
    problem = make_problem(modulated="shift gain output", samples=2, count=2, width=3, layers=2).trainable()
    leaves = problem.leaves()

    def function(x, first, second, *rest):
        return reference.modulated_siren(SirenArguments(x, [first, second], *rest))

    assert torch.autograd.gradgradcheck(function, leaves)
