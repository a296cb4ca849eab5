"""Coefficients and first codes by values that each have a time and place of their own."""

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

from inrflow.domains import NATURAL, Box
from inrflow.dynamics.laws import Law
from inrflow.dynamics.laws.law import pruned
from inrflow.dynamics.laws.refinement.rows import RowRefinement, refined_by_rows, rows_along, smoothed
from inrflow.dynamics.laws.setting import Data, EncodedData
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.encoding.harmonic_codes import HarmonicCodes

LINE, CODES, NOISE, FRAMES = Box([0.0], [1.0], ["walled"]), 4, 0.05, np.linspace(0, 1, 5)
TERMS = Term((((0, VALUE),),), 1), Term((((0, VALUE),) * 3,)), Term((((0, VALUE),) * 2,))
VARIANCE = (1 / (1 + np.arange(CODES)) ** 1.5)[None] ** 2


def _law(*theta: float) -> Law:
    """u_t = theta_0 u_xx + theta_1 u^3 + theta_2 u^2."""
    codes = HarmonicCodes(LINE.harmonics(CODES), np.zeros((1, CODES)), VARIANCE)
    return Law(LINE, NATURAL, TERMS, np.array(theta)[:, None], np.zeros((3, 1)), codes, max_step=0.1, largest=10.0)


def _seen(count: int, seed: int, rows: int = 90) -> tuple[EncodedData, list[tuple[np.ndarray, ...]], np.ndarray]:
    """Rows of u_t = .02 u_xx - u^3 with noise, by scipy; codes of frames that miss these by a tenth, and exact ones."""
    random, field, law = np.random.default_rng(seed), _law(0.02, -1.0, 0.0).field(), _law(0.02, -1.0, 0.0)
    seen, states = [], np.zeros((count, len(FRAMES), 1, CODES))
    exact = np.zeros_like(states)
    for one, true in zip(states, exact, strict=True):
        path = solve_ivp(lambda _, z: field(0.0, torch.tensor(z)[None])[0].numpy(), (0, 1),
                         random.standard_normal(CODES) * np.sqrt(VARIANCE[0]), rtol=1e-8, dense_output=True).sol
        t, x = np.sort(random.uniform(0, 1, rows)), random.uniform(0, 1, (rows, 1))
        u = (law.codes.harmonics.values(x) * path(t).T).sum(1)
        seen.append((t, x, u[:, None] + NOISE * random.standard_normal((rows, 1))))
        true[:, 0] = path(FRAMES).T
        one[:, 0] = true[:, 0] + 0.1 * random.standard_normal((len(FRAMES), CODES)) * np.sqrt(VARIANCE)
    x = np.linspace(0, 1, 9)[:, None]
    data = Data.of(FRAMES, x, law.codes.decode(states, x))
    return EncodedData(LINE, NATURAL, law.codes, data, states, np.full((count, 1, CODES), 1e-3)), seen, exact


def test_values_along_a_path_are_those_of_its_spline_in_time() -> None:
    t, x, law = np.random.default_rng(0).uniform(0, 1, 5), np.linspace(0, 1, 5)[:, None], _law(1.0, 0.0, 0.0)
    path = np.stack([np.cos((1 + k) * FRAMES / 3) for k in range(CODES)], 1)
    expected = sum(np.cos((1 + k) * t / 3) * law.codes.harmonics.values(x)[:, k] for k in range(CODES))
    values = rows_along(law, FRAMES, (t, x, np.zeros((5, 1)))).of(torch.tensor(path)[None])
    np.testing.assert_allclose(values[0, :, 0], expected, atol=1e-3)


def test_coefficients_and_first_codes_are_those_of_dense_least_squares_of_all_unknowns() -> None:
    encoded, rows, _ = _seen(2, 0)
    refinement = RowRefinement.by(_law(0.06, -0.3, 0.0), encoded, rows, 60.0)
    law = refinement.run()
    sd = float(refinement._variance(refinement._path(law)).sqrt())

    def missed(unknown: np.ndarray) -> np.ndarray:
        moved = _law(*unknown[:2], 0.0)
        paths = moved.rollout(torch.tensor(unknown[2:].reshape(2, CODES)), FRAMES)
        left = [(one.of(path[None])[0] - one.values).ravel() / sd
                for one, path in zip(refinement.segment_rows, paths, strict=True)]
        return np.concatenate([*left, unknown[2:] / np.tile(np.sqrt(VARIANCE[0]), 2)])

    start = np.concatenate([[0.06, -0.3], encoded.states[:, 0].ravel()])
    best = least_squares(missed, start, x_scale="jac")
    std = np.sqrt(np.diag(np.linalg.inv(best.jac.T @ best.jac)))
    assert (np.abs(law.theta[:2, 0] - best.x[:2]) < 0.1 * std[:2]).all()
    assert (law.std[:2, 0] > 0.95 * std[:2]).all()  # those of whole trajectories may be larger
    assert (np.abs(refinement.data.codes[:, 0].flatten().numpy() - best.x[2:]) < 0.1 * std[2:]).all()
    assert np.abs((best.x[:2] - [0.06, -0.3]) / std[:2]).min() > 2  # it has gone far


def test_a_law_refined_by_rows_has_the_terms_that_they_need_and_none_is_taken_that_others_refuse() -> None:
    encoded, rows, _ = _seen(4, 1, 400)
    judge, judging, _ = _seen(2, 2, 400)
    start = pruned(_law(0.03, 0.0, -0.5))
    law = refined_by_rows(start, TERMS, encoded, rows, judge, judging, 0.01, 60.0, lambda _: None)
    assert law.terms == TERMS[:2] and (np.abs(law.theta[:, 0] - [0.02, -1.0]) < 4 * law.std[:, 0]).all()
    true = _law(0.02, -1.0, 0.0)
    wrong = [(t, x, u[::-1]) for t, x, u in rows]  # of which nothing is to be learned
    assert refined_by_rows(true, TERMS, encoded, wrong, judge, judging, 0.01, 60.0, lambda _: None) is true


def test_rows_beyond_the_frames_of_a_ground_are_left_out() -> None:
    encoded, rows, _ = _seen(2, 3)
    later = [(np.append(t, 1.5), np.append(x, [[0.5]], 0), np.append(u, [[9.0]], 0)) for t, x, u in rows]
    seen = RowRefinement.by(_law(0.02, -1.0, 0.0), encoded, later, 60.0).segment_rows
    assert [len(one.values) for one in seen] == [90, 90]


def test_fields_along_flights_are_nearer_to_the_truth_than_those_of_frames() -> None:
    encoded, rows, exact = _seen(3, 4, 200)
    fields, left = smoothed(_law(0.02, -1.0, 0.0), encoded, rows, NOISE**2, 60.0) or ((), ())
    missed = [np.square(one - encoded.codes.decode(exact, encoded.train.x[0])).mean() for one in (fields,
                                                                                                  encoded.train.u)]
    assert missed[0] < 0.2 * missed[1] and abs(left[0] / NOISE**2 - 1) < 0.2
