"""The vector field: its parts against their formulas, its zero start, and forcing of the declared period."""

import itertools
import math

import pytest
import torch

from inrflow.dynamics.fields.sum import FieldShape, VectorField


def filled(shape, seed=0):
    """A float64 field whose parameters, those that start at zero too, are random."""
    torch.manual_seed(seed)
    field = VectorField(shape).double()
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return field


def states(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_every_part_is_its_formula_and_they_add_up():
    field = filled(FieldShape(3, quadratic_rank=2, width=5, depth=1, forcing_period=4.0, forcing_harmonics=2))
    s, t = states(3), 1.3
    A, b, forcing = field.matrix.tolist(), field.bias.tolist(), field.forcing.tolist()
    left, right, out = (m.tolist() for m in (field.quadratic_left, field.quadratic_right, field.quadratic_out))
    w = 2 * math.pi / 4.0
    phases = [math.cos(w * t), math.cos(2 * w * t), math.sin(w * t), math.sin(2 * w * t)]
    first, _, last = field.residual
    hidden = first.weight @ torch.cat([s, torch.tensor(phases, dtype=torch.float64)]) + first.bias
    residual = (last.weight @ (hidden / (1 + torch.exp(-hidden))) + last.bias).tolist()
    expected = []
    for i in range(3):
        value = b[i] + sum(A[i][j] * s[j].item() for j in range(3)) + sum(forcing[i][k] * phases[k] for k in range(4))
        for r in range(2):
            value += (out[i][r] * sum(left[r][j] * s[j].item() for j in range(3))
                      * sum(right[r][j] * s[j].item() for j in range(3)))
        expected.append(value + residual[i])
    found = field(torch.tensor(t, dtype=torch.float64), s)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [FieldShape(3),
                                   FieldShape(3, quadratic_rank=2, depth=2, width=4, forcing_period=2.0)])
def test_batches_of_states_and_times_are_the_single_ones(shape):
    field = filled(shape)
    s, t = states(4, 5, 3), torch.rand(4, 5, dtype=torch.float64)
    together = field(t, s)
    for i, j in itertools.product(range(4), range(5)):
        torch.testing.assert_close(together[i, j], field(t[i, j], s[i, j]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(field(torch.tensor(0.3), s), field(torch.full((4, 5), 0.3), s), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("period", [0.0, 3.0])
def test_parts_can_be_left_out(linear, rank, depth, period):
    field = VectorField(FieldShape(3, linear=linear, quadratic_rank=rank, depth=depth, width=4, forcing_period=period))
    names = {name.split(".")[0] for name, _ in field.named_parameters()}
    expected = {"matrix": linear, "bias": linear, "forcing": bool(period), "quadratic_left": bool(rank),
                "quadratic_right": bool(rank), "quadratic_out": bool(rank), "residual": bool(depth)}
    assert names == {name for name, there in expected.items() if there}
    assert field.is_linear == (not rank and not depth)
    assert field(torch.zeros(2), torch.randn(2, 3)).shape == (2, 3)


def test_what_training_adds_starts_at_zero_and_can_leave_it():
    torch.manual_seed(0)
    field = VectorField(FieldShape(3, quadratic_rank=2, depth=2, width=8, forcing_period=3.0))
    matrix, bias = torch.randn(3, 3), torch.randn(3)
    field.set_linear(matrix, bias)
    s = torch.randn(10, 3)
    rate = field(torch.linspace(0, 5, 10), s)
    torch.testing.assert_close(rate, s @ matrix.T + bias)
    rate.square().sum().backward()
    assert float(field.quadratic_out.grad.abs().max()) > 0 and float(field.residual[-1].weight.grad.abs().max()) > 0


def test_forcing_has_the_declared_period_even_far_from_the_origin():
    field = filled(FieldShape(2, forcing_period=7.3, forcing_harmonics=3))
    t, s = torch.linspace(0, 7.3, 9, dtype=torch.float64)[:-1], states(8, 2)
    torch.testing.assert_close(field(t + 7.3, s), field(t, s), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(field(t + 1e6 * 7.3, s), field(t, s), rtol=0, atol=1e-7)
    assert not torch.allclose(field(t + 7.3 / 2, s), field(t, s), atol=1e-2)


def test_a_float32_field_sees_phases_of_float64_times():
    field = filled(FieldShape(1, forcing_period=1.0, forcing_harmonics=1)).float()
    t = 1e7 + torch.tensor([0.0, 0.25], dtype=torch.float64)  # float32 cannot tell these times apart
    cosine, sine = field.phases(t).T
    torch.testing.assert_close(torch.stack([cosine, sine]), torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64),
                               atol=1e-6, rtol=0)
    assert field(t, torch.zeros(2, 1)).dtype == torch.float32


def test_set_linear_keeps_the_forcing_unless_one_is_given():
    field = filled(FieldShape(2, forcing_period=1.0))
    before = field.forcing.detach().clone()
    field.set_linear(torch.eye(2), torch.ones(2))
    torch.testing.assert_close(field.forcing.detach(), before)
    field.set_linear(torch.eye(2), torch.ones(2), torch.full((2, 4), 3.0))
    assert bool((field.forcing == 3.0).all()) and bool((field.matrix == torch.eye(2)).all())


def test_set_quadratic_sets_the_first_factors_and_leaves_the_others_without_effect():
    torch.manual_seed(2)
    field = VectorField(FieldShape(3, linear=False, quadratic_rank=4)).double()
    left, right, out = torch.randn(2, 3), torch.randn(2, 3), torch.randn(3, 2)  # float32: converted
    kept = field.quadratic_left[2:].detach().clone()
    field.set_quadratic(left, right, out)
    s = states(6, 3)
    expected = torch.einsum("ir,rj,rk,sj,sk->si", out.double(), left.double(), right.double(), s, s)
    torch.testing.assert_close(field(torch.tensor(0.0), s), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(field.quadratic_left[2:].detach(), kept)
    assert float(kept.abs().max()) > 0


def test_a_shape_survives_its_dictionary():
    shape = FieldShape(3, quadratic_rank=1, depth=2, forcing_period=2.5)
    assert FieldShape(**shape.to_dict()) == shape


# ---- contexts ----

WITH_CONTEXT = FieldShape(3, quadratic_rank=2, width=5, depth=1, forcing_period=4.0, forcing_harmonics=1,
                          context_size=2)


def at_context(field, context):
    """The field without contexts that one with them is at a context: every part combined by hand."""
    plain = VectorField(FieldShape(3, quadratic_rank=2, width=5, depth=1, forcing_period=4.0,
                                   forcing_harmonics=1)).double()
    state = {key: value.clone() for key, value in field.state_dict().items() if not key.startswith("context_")}
    for name in ("matrix", "bias", "forcing", "quadratic_out"):
        for k, c in enumerate(context):
            state[name] += c * getattr(field, f"context_{name}")[k].detach()
    for name in ("residual.2.weight", "residual.2.bias"):
        first, *others = state[name].split(3)
        state[name] = first + sum(c * other for c, other in zip(context, others, strict=True))
    plain.load_state_dict(state)
    return plain


@pytest.mark.parametrize("context", [(0.0, 0.0), (0.7, -1.3)])
def test_every_part_is_affine_in_the_context_and_the_context_stays(context):
    field, s, t = filled(WITH_CONTEXT), states(4, 3), torch.linspace(0, 3, 4).double()
    joined = torch.cat([s, torch.tensor(context, dtype=torch.float64).expand(4, 2)], 1)
    rate = field(t, joined)
    torch.testing.assert_close(rate[:, :3], at_context(field, context)(t, s), rtol=1e-12, atol=1e-12)
    assert bool((rate[:, 3:] == 0).all())
    matrix = field.matrix_at(torch.tensor(context, dtype=torch.float64))
    torch.testing.assert_close(matrix, at_context(field, context).matrix)


def test_a_field_with_a_context_is_linear_only_given_it():
    field = VectorField(FieldShape(3, context_size=1))
    assert field.is_linear_at_context and not field.is_linear
    assert not VectorField(WITH_CONTEXT).is_linear_at_context
