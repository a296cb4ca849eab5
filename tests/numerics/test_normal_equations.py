"""Normal equations of an equation's coefficients, against least squares on the whole system."""

import torch

from inrflow.numerics.normal_equations import NormalEquations


def system(transitions: int = 40, codes: int = 6, unknowns: int = 5, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    gap = 0.5 + torch.rand(transitions, generator=random, dtype=torch.float64)
    design = torch.randn(transitions, codes, unknowns, generator=random, dtype=torch.float64) * gap[:, None, None]
    truth = torch.tensor([2.0, 0.0, -1.0, 0.0, 0.5]).double()[:unknowns]
    force = torch.randn(codes, generator=random, dtype=torch.float64)
    change = design @ truth + gap[:, None] * force
    return design, change, gap, truth, force


def of(design, change, gap):
    normal = NormalEquations.empty(design.shape[2], design.shape[1])
    for rows in torch.arange(len(gap)).split(7):
        normal.add(design[rows], change[rows], gap[rows])
    return normal


def test_a_force_is_taken_off_exactly_and_then_found():
    design, change, gap, truth, force = system()
    normal = of(design, change, gap)
    every = torch.ones(5, dtype=torch.bool)
    found = normal.solve(every, True)
    torch.testing.assert_close(found, truth, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(normal.force(found), force, rtol=1e-7, atol=1e-7)
    assert normal.misfit(found, True) < 1e-12
    columns = torch.linalg.lstsq(design.flatten(0, 1), change.flatten()[:, None]).solution[:, 0]
    torch.testing.assert_close(normal.solve(every, False), columns, rtol=1e-7, atol=1e-7)
    left = (change.flatten() - design.flatten(0, 1) @ columns).square().sum() / change.square().sum()
    assert abs(normal.misfit(columns, False) - float(left)) < 1e-9


def test_elimination_keeps_what_is_needed():
    design, change, gap, truth, _ = system(seed=1)
    noise = 1e-3 * torch.randn(change.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    normal = of(design, change + noise, gap)
    every = torch.ones(5, dtype=torch.bool)
    needed = normal.needed(every, True, 1.2)
    assert torch.equal(needed, truth != 0)
    steps = normal.elimination(every, True)
    assert [int(kept.sum()) for kept, _ in steps] == [5, 4, 3, 2, 1]
    for kept, misfit in steps:
        assert abs(misfit - normal.misfit(normal.solve(kept, True), True)) < 1e-9


def test_joined_systems_are_one_regression_on_terms_times_contexts():
    contexts = torch.tensor([[-1.0], [0.2], [0.8]]).double()
    slope = torch.tensor([0.3, 0.0, 0.0, 1.0, 0.0]).double()
    parts, force = [], None
    for e, context in enumerate(contexts):
        design, _, gap, truth, _ = system(seed=10 + e)
        force = torch.arange(6).double()
        parts.append(of(design, design @ (truth + context * slope) + gap[:, None] * force, gap))
    joined = NormalEquations.joined(parts, contexts)
    found = joined.solve(torch.ones(10, dtype=torch.bool), True)
    torch.testing.assert_close(found, torch.cat([truth, slope]), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(joined.force(found), force, rtol=1e-6, atol=1e-6)
    total = NormalEquations.total(parts)
    assert total.gaps == sum(part.gaps for part in parts)


def test_a_term_that_a_force_explains_is_no_trouble():
    design, change, gap, _, _ = system(seed=3)
    design = torch.cat([design, gap.new_ones(len(gap), design.shape[1], 1) * gap[:, None, None]], 2)
    normal = of(design, change, gap)
    every = torch.ones(6, dtype=torch.bool)
    found = normal.solve(every, True)
    assert bool(torch.isfinite(found).all()) and normal.misfit(found, True) < 1e-9
    assert not bool(normal.needed(every, True, 1.2)[5])
