"""Laws of coarse frames, along their own flow and single steps, against the law that made the paths."""

from dataclasses import replace

import numpy as np
import torch

from inrflow.domains import NATURAL, Box
from inrflow.dynamics.laws import Law, fit_law
from inrflow.dynamics.laws.families import Families
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.law import Segments, node_rollouts, segments
from inrflow.dynamics.laws.library import Library
from inrflow.dynamics.laws.regression import normal_equations
from inrflow.dynamics.laws.setting import Data, EncodedData, encode
from inrflow.dynamics.laws.shooting import SingleStepRefinement, along_single_steps
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.encoding.harmonic_codes import HarmonicCodes, fit_codes
from inrflow.numerics.effort import effort

LINE = Box([0.0], [1.0], ["walled"])
VALUES = [Term((((0, VALUE),) * degree,)) for degree in (1, 2, 3)]
TERMS = (Term((((0, VALUE),),), 1), *VALUES)
TRUTH = np.array([[0.02], [1.0], [0.0], [-1.0]])  # u_t = 0.02 lap u + u - u^3
GAP = 1.5  # of frames: values near 0.3 grow to near 1


def _paths(trajectories: int, frames: int, theta: np.ndarray = TRUTH) -> np.ndarray:
    """Codes (S, T, 1, K) of a law."""
    generator = np.random.default_rng(0)
    field = LawField(Library(TERMS, LINE.harmonics(12)), torch.tensor(theta))
    z = [torch.tensor(0.5 * generator.standard_normal((trajectories, 12)) / (1 + np.arange(12)) ** 1.5)]
    for _ in range(frames - 1):
        z.append(field.advance(z[-1], GAP, 64))
    return torch.stack(z, 1).numpy()[:, :, None]


def _law(theta: np.ndarray) -> Law:
    codes = HarmonicCodes(LINE.harmonics(12), np.zeros((1, 12)), np.ones((1, 12)))
    return Law(LINE, NATURAL, TERMS, theta, np.zeros_like(theta), codes, max_step=GAP / 32, largest=10.0)


def _flights(t: np.ndarray, paths: np.ndarray) -> Segments:
    return segments(t, paths, np.zeros((len(paths), *paths.shape[2:])), 1)


def test_steps_correct_coefficients_with_which_some_of_them_diverge_and_show_which_terms_are_needless() -> None:
    truth = np.array([[0.02], [0.1], [0.0], [-1.0]])
    paths = _paths(12, 6, truth)
    t = np.tile(GAP * np.arange(6), (12, 1))
    start = _law(np.array([[0.03], [0.05], [0.2], [0.7]]))
    steps = SingleStepRefinement(start, _flights(t, paths), np.ones((1, 12)), 60.0)
    later = start.field().advance(torch.tensor(paths[:, :-1]).flatten(0, 1).flatten(1), GAP, 32)
    assert 0 < torch.isfinite(later).all(1).sum() < len(later)
    refined = steps.run()
    np.testing.assert_allclose(refined.theta, truth, atol=2e-5)
    shortest = list(steps.sparser(refined))[-1]
    assert (shortest.theta[:, 0] != 0).tolist() == [True, True, False, True]


def test_needless_terms_of_noisy_steps_go_and_no_law_is_fitted_twice() -> None:
    paths, t = _paths(24, 8, np.array([[0.02], [0.1], [0.0], [-1.0]])), np.tile(GAP * np.arange(8), (24, 1))
    noisy = paths + 1e-3 * np.random.default_rng(1).standard_normal(paths.shape)
    start = _law(np.array([[0.02], [0.1], [0.02], [-0.9]]))
    steps = SingleStepRefinement(start, _flights(t, noisy), np.ones((1, 12)), 60.0)
    laws = list(steps.sparser(steps.run()))
    sizes = [law.size for law in laws]
    assert sizes == sorted(set(sizes), reverse=True) and sizes[0] < 4
    assert (laws[0].theta[:, 0] != 0).tolist() == [True, True, False, True]


def test_coefficients_are_those_of_the_data_after_some_rounds_along_their_own_flow() -> None:
    paths, t = _paths(12, 6), np.tile(GAP * np.arange(6), (12, 1))
    law = _law(np.array([[0.03], [0.9], [0.1], [-0.8]]))
    harmonics, none = LINE.harmonics(12), np.zeros((12, 1, 12))
    for _ in range(8):
        own = node_rollouts(law, t, paths, np.zeros(12))
        assert own is not None
        law = replace(law, theta=normal_equations(
            TERMS, harmonics, t, paths, none, np.ones((1, 12)), (False,), paths=own)[0].solved([[0, 1, 2, 3]], 4)[0])
    np.testing.assert_allclose(law.theta, TRUTH, atol=5e-4)  # four Gauss points in each interval


def test_law_of_frames_too_coarse_for_splines_is_found() -> None:
    x, t = (np.arange(24)[:, None] + 0.5) / 24, GAP * np.arange(5)
    u = np.swapaxes(_paths(12, 5) @ LINE.harmonics(12).values(x).T, 2, 3)
    law = fit_law(t, x, u, LINE, seconds=4)
    forecast = law.decode(law.rollout(law.encode(x, u[:, 0]), t), x)
    assert ((forecast - u) ** 2).mean() < 1e-7 * u.var()
    assert sorted(term.written(["u"], ["x"]) for term in law.terms) == ["lap u", "u", "u^3"]


def test_codes_none_of_which_is_determined_correct_nothing() -> None:
    paths, t = _paths(12, 6), np.tile(GAP * np.arange(6), (12, 1))
    refined = SingleStepRefinement(_law(TRUTH), _flights(t, paths), np.zeros((1, 12)), 60.0).run()
    np.testing.assert_array_equal(refined.theta, TRUTH)


def test_laws_are_those_with_terms_where_steps_tell_nothing() -> None:
    x, t = (np.arange(24)[:, None] + 0.5) / 24, np.tile(GAP * np.arange(5), (6, 1))
    values = np.random.default_rng(0).standard_normal((6, 5, 1, 6)) @ LINE.harmonics(6).values(x).T
    data = Data.of(t, np.broadcast_to(x, (6, *x.shape)), np.swapaxes(values, 2, 3))
    codes = fit_codes(LINE.harmonics(6), data.x, data.u)
    encoded = EncodedData(LINE, NATURAL, codes, data, *encode(codes, data))
    families = Families({"products": VALUES}, (("products",),))
    assert all(law.size for law in along_single_steps(encoded, families, effort() + 10))
