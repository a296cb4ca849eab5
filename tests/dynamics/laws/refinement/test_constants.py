"""Constants of functions in laws, changed and refined along rollouts."""

from math import log

import numpy as np
import pytest
import torch

from inrflow.domains import NATURAL, Box
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.refinement.constants import WithConstants, with_constants
from inrflow.dynamics.laws.refinement.rollouts import Refinement
from inrflow.dynamics.laws.setting import Data, EncodedData
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.encoding.harmonic_codes import fit_codes
from inrflow.numerics.kinetics import ARRHENIUS, HILL, kind_and_constant, number_of

LINE, X = Box([0.0], [2.0], ["walled"]), np.linspace(0.05, 1.95, 20)[:, None]
U, V = (0, VALUE), (1, VALUE)


def _law(saturation: float, heat: float) -> Law:
    """u_t = .01 u_xx + .5 u - v u / (u + a), v_t = .02 v_xx + .3 - exp(-b / v) on 8 harmonics."""
    saturated, heated = (V, (0, number_of(HILL[0], saturation))), ((1, number_of(ARRHENIUS, heat)),)
    terms = (Term(((U,),), 1), Term(((V,),), 1), Term(((U,),)), Term((saturated,)), Term(((V,),)), Term(),
             Term((heated,)))
    theta = np.array([[0.01, 0], [0, 0.02], [0.5, 0], [saturation, 0], [-1, 0], [0, 0.3], [0, -1]])
    starts = 1 + 0.2 * np.random.default_rng(0).standard_normal((6, 5, 20, 2))
    codes = fit_codes(LINE.harmonics(8, NATURAL), X, starts)
    return Law(LINE, NATURAL, terms, theta, np.zeros_like(theta), codes, max_step=0.05)


def _constants(law: Law) -> list[float]:
    return [kind_and_constant(number)[1] for _, number in law.functions]


def _refinement(law: Law, kind: type[Refinement] = WithConstants) -> Refinement:
    """Refinement of another law along three intervals of rollouts of the law."""
    t, codes = np.arange(4) * 0.4, torch.zeros(6, 2, 8, dtype=torch.float64)
    codes[:, :, 0], codes[..., 1:5] = 1.2, 0.2 * torch.tensor(np.random.default_rng(1).standard_normal((6, 2, 4)))
    u = law.decode(law.rollout(codes.flatten(1), t), X)
    encoded = EncodedData.of(law, Data.of(t, X, u))
    other = with_constants(law, [0.1, -0.05])
    return kind.along(other, encoded, encoded.known, 3, 10.0, uncertain=False)


def test_rates_after_a_change_of_constants_are_those_of_the_law_with_these() -> None:
    law = with_constants(_law(0.4, 2.0), [log(1.5), log(0.5)])
    assert _constants(law) == pytest.approx([0.6, 1.0], rel=1e-8)
    z = torch.full((1, 16), 0.1, dtype=torch.float64) + torch.eye(16)[:1] + torch.eye(16)[8:9]
    field = _law(0.4, 2.0).field().at(torch.tensor(law.theta), law.terms)
    torch.testing.assert_close(field(0.0, z), law.field()(0.0, z))
    same = torch.tensor(_law(0.6, 1.0).theta)  # the coefficient of the saturated rate contains its constant
    torch.testing.assert_close(field.at(same, law.terms)(0.0, z), _law(0.6, 1.0).field()(0.0, z), rtol=1e-7, atol=1e-9)


def test_constants_are_refined_along_rollouts_with_the_coefficients() -> None:
    law = _law(0.4, 2.0)
    refined = _refinement(law).run()
    assert _constants(refined) == pytest.approx([0.4, 2.0], rel=1e-4)
    np.testing.assert_allclose(refined.theta, law.theta, atol=1e-4)


def test_constants_stay_where_they_are_not_unknowns() -> None:
    refinement = _refinement(_law(0.4, 2.0), Refinement)
    assert _constants(refinement.run()) == _constants(refinement.law)


def test_constants_move_with_coefficients_that_are_dropped() -> None:
    refinement = _refinement(_law(0.4, 2.0))
    law, _ = refinement.estimated(refinement.run())
    index = [tuple(one) for one in refinement.active].index((4, 0))
    covariance = 1e-8 * np.eye(len(refinement.active) + 2)
    covariance[index, index] = 1.0  # the coefficient is one standard error from zero
    covariance[index, -2] = covariance[-2, index] = 1e-5
    fewer = refinement._significant(covariance, 3.0)
    assert fewer.theta[4, 0] == 0 and np.count_nonzero(fewer.theta) == len(refinement.active) - 1
    before, after = _constants(law), _constants(fewer)
    assert np.log(after[0] / before[0]) == pytest.approx(-1e-5 * law.theta[4, 0], rel=1e-3) and after[1] == before[1]
