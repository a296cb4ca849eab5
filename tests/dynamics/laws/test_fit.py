"""Which laws a search judges first."""

from dataclasses import replace

import numpy as np
import pytest

from inrflow.domains import Box
from inrflow.dynamics.laws import fit
from inrflow.dynamics.laws.families import families_of
from inrflow.dynamics.laws.refinement import final
from inrflow.dynamics.laws.setting import Data, EncodedData, prepare_data
from inrflow.dynamics.laws.terms import VALUE, Term


def _search(late: bool = False, noise: float = 0.0) -> fit.LawSearch:
    """Of waves on a circle, of which a share of the variance counts as noise."""
    random, x, t = np.random.default_rng(0), np.arange(24) / 24, np.arange(8) * 0.1
    phase = 2 * np.pi * np.arange(1, 4)[:, None] * (x - t[:, None, None])  # (T, 3, N)
    u = np.einsum("sk,tkn->stn", random.standard_normal((8, 3)), np.sin(phase))[..., None]
    encoded, judge, floor = prepare_data(Data.of(t, x[:, None], u), [Box([0], [1], ["periodic"])], None, 0,
                                         lambda _: None)
    families = families_of(encoded.domain, encoded.codes.harmonics, encoded.states)
    encoded = replace(encoded, train=replace(encoded.train, noise=noise * encoded.train.u.var((0, 1, 2))))
    floor += 1.2 * noise
    return fit.LawSearch(encoded, judge, families, floor, lambda _: None, fit.effort(), 5.0, 0.0, lambda: float(late))


@pytest.mark.parametrize(("share", "taken", "left_out"), [(0.8, False, False), (0.3, True, False), (0.05, True, True)])
def test_laws_of_settled_frames_come_first_where_they_miss_half(
    share: float, taken: bool, left_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = _search()
    calm = search.encoded.take(np.arange(4))
    law = search.encoded.law(search.families.all_terms, np.zeros((len(search.families.all_terms), 1)),
                             np.zeros((len(search.families.all_terms), 1)))
    monkeypatch.setattr(fit, "without_transients", lambda _: calm)
    monkeypatch.setattr(fit, "regress", lambda datasets, *_: [(5e-3 * (share if datasets[0] is calm else 1), law)])
    search.regress(1)
    assert search.regressions[0][0] == 5e-3 * (share if taken else 1)
    assert (search.after_transients is calm) == left_out


def test_a_law_of_noisy_data_that_misses_less_than_their_noise_does_not_end_the_search() -> None:
    assert _search(noise=1e-2).enough == pytest.approx(2e-3, rel=1e-3)  # codes of 1.2 times the noise miss .2 of it
    assert _search(noise=1e-4).enough == pytest.approx(1e-4)


@pytest.mark.parametrize("noise", [0.0, 1e-2])
def test_further_families_that_explain_no_more_are_forecast_where_noise_hides_what_they_explain(
    noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = _search(noise=noise)
    law = search.encoded.law(search.families.all_terms, np.zeros((len(search.families.all_terms), 1)),
                             np.zeros((len(search.families.all_terms), 1)))
    monkeypatch.setattr(fit, "regress", lambda *_: [(5e-3, law)])
    search.regress(1)
    assert (len(search.regressions) > 1) == (noise > 0)


@pytest.mark.parametrize(("left", "tried"), [(1e-7, True), (4e-6, False)])
def test_friction_is_tried_for_a_law_that_explains_nearly_all_and_kept_if_it_halves_the_misfit(
    left: float, tried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, done = _search(), list[str]()

    def regress(_: object, families: fit.Families, period: float) -> list[tuple[float, fit.Law]]:
        done.append([*families.terms][-1])
        law = search.encoded.law(families.all_terms, *np.zeros((2, len(families.all_terms), 1)))
        return [(left if done[-1] == "drag" else 5e-6, law)]

    monkeypatch.setattr(fit, "regress", regress)
    monkeypatch.setattr(search, "_missed", lambda families: 0.1 if "drag" in families.terms else 1.0)
    search.regress(1)
    assert done == [[*search.families.terms][-1], "drag"] and len(search.regressions) == 1 + tried


def test_a_costly_further_family_is_left_out_where_a_law_explains_nearly_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in (0.0, 1.2):  # of five
        fit.effort.restart()
        search, done = _search(), list[str]()

        def regress(_: object, families: fit.Families, period: float, search: fit.LawSearch = search,
                    done: list[str] = done, seconds: float = seconds) -> list[tuple[float, fit.Law]]:
            done.append([*families.terms][-1])
            fit.effort.add(seconds=seconds)
            return [(5e-6, search.encoded.law(families.all_terms, *np.zeros((2, len(families.all_terms), 1))))]

        monkeypatch.setattr(fit, "regress", regress)
        monkeypatch.setattr(search, "_missed", lambda families: 0.1 if "drag" in families.terms else 1.0)
        search.regress(1)
        assert ("drag" in done) == (seconds == 0)


def test_a_law_of_fewer_terms_is_forecast_before_one_that_hardly_misses_less(monkeypatch: pytest.MonkeyPatch) -> None:
    search = _search()
    long, short = (search.encoded.law(search.families.all_terms[:n], np.ones((n, 1)), np.ones((n, 1))) for n in (9, 1))
    for ratio, first in ((1.1, short), (1.2, long)):  # a term is worth 2 %, eight of them 17 %
        monkeypatch.setattr(fit, "regress", lambda *_, ratio=ratio: [(1e-6, long), (ratio * 1e-6, short)])
        assert search._regressed(search.families)[1][0] is first


@pytest.mark.parametrize("vain", [1.5, 0.0])
def test_a_search_that_has_no_law_ends_after_so_many_times_its_effort(vain: float, monkeypatch: pytest.MonkeyPatch
                                                                      ) -> None:
    monkeypatch.setattr(fit, "_VAIN", vain)
    monkeypatch.setattr(fit, "_FAIR", 0.0)
    search = _search()
    search.regress(1)
    search.run(search.families_in_turn())
    assert bool(search.scored) == (vain > 0)


@pytest.mark.parametrize("late", [False, True])
def test_a_first_law_is_forecast_at_once_where_the_clock_is_late(late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    search, flown = _search(late), list[fit.Law]()

    def along(_: object, law: fit.Law, __: object) -> object:
        flown.append(law)
        return iter(())

    monkeypatch.setattr(fit, "rollout_regression", along)
    _, laws, families = search._regressed(search.families)
    search._judge(1e-3, laws[:2], families, 1.0)
    assert bool(flown) != late
    assert search.least < 1e-6


def test_a_busy_clock_ends_forecasts_after_two_laws() -> None:
    laws = {}
    for share in (0.0, 0.9):
        search = _search()
        search.used, search.seconds = (lambda share=share: share), 100.0
        every = search._regressed(search.families)[1]
        search._forecast(every, 0.45)
        laws[share] = len(search.scored)
    assert laws[0.9] == 2 < laws[0.0]


def test_a_further_family_without_a_solution_leaves_the_search_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    search, own = _search(), list[fit.Families]()

    def regress(datasets: object, families: fit.Families, period: float) -> list[tuple[float, fit.Law]]:
        own.append(families)
        if families is not search.families:
            raise np.linalg.LinAlgError("singular")
        return [(0.5, search.encoded.law(families.all_terms, *np.zeros((2, len(families.all_terms), 1))))]

    monkeypatch.setattr(fit, "regress", regress)
    monkeypatch.setattr(fit, "without_transients", lambda _: None)
    search.regress(1)
    assert [each[0] for each in search.ranked] == [0.5] and search.least_misfit == 0.5 and len(own) == 2
    assert [each and each[0] for each in search.families_in_turn()] == [0.5, None]
    assert not search.pending and len(own) > 3  # the others were tried, too


@pytest.mark.parametrize(("misfits", "turns"), [((0.6, 0.7, 0.8), (0.6, None, 0.7, 0.8)),
                                                ((0.1, 0.7, 0.8), (0.1, 0.7, 0.8, None)),
                                                ((1e-3, 4e-3, 0.8), (1e-3, None, 4e-3, 0.8))])
def test_single_steps_come_second_where_splines_explain_less_than_half_or_nearly_all(
    misfits: tuple[float, ...], turns: tuple[float | None, ...]
) -> None:
    search = _search()
    search.ranked = search.regressions = [(misfit, [], search.families) for misfit in misfits]
    search.least_misfit = misfits[0]
    assert tuple(each and each[0] for each in search.families_in_turn()) == turns


@pytest.mark.parametrize("poor", [True, False])
def test_families_that_explain_more_are_judged_at_once_where_laws_forecast_poorly(
    poor: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The likeliest of those that wait comes first, by the misfit of a few trajectories."""
    search, misfits, done = _search(), {"drag": 1e-5, "steep": 2e-2, "force": 1e-3}, list[str]()
    search.ranked = search.regressions = [(4e-3, [], search.families)]
    search.least_misfit = 4e-3
    search.pending = [replace(search.families, terms={name: []}) for name in ("force", "steep", "drag")]
    search.scored = [(np.full(2, 0.05 if poor else 5e-3), search.encoded.law((), *np.zeros((2, 0, 1))))]

    def regressed(families: fit.Families) -> tuple[float, list[fit.Law], fit.Families]:
        done.extend(families.terms)
        return misfits[done[-1]], [], families

    monkeypatch.setattr(search, "_regressed", regressed)
    monkeypatch.setattr(search, "_missed", lambda families: misfits[[*families.terms][0]])
    turns = search.families_in_turn()
    assert [next(turns)[0], next(turns)[0]] == [4e-3, 1e-5]
    assert done == (["drag"] if poor else ["force", "steep", "drag"])
    assert [each and each[0] for each in turns] == [1e-3, None, 2e-2]


def test_poor_laws_of_a_family_are_not_forecast_on_and_on_while_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for waiting, count in (([None], 7), ([], 12)):
        search = _search()
        law = search.encoded.law((), *np.zeros((2, 0, 1)))
        monkeypatch.setattr(fit.team, "map", lambda _, laws: [(one, np.full(2, 0.1)) for one in laws])
        search.pending = list(waiting)
        monkeypatch.setattr(fit.Law, "size", 1)
        for _ in range(2):  # families are compared with the best law of all, each by its own laws
            before = len(search.scored)
            search._forecast([law] * 12, 1.0)
            assert len(search.scored) == before + count


def test_whole_powers_come_before_fractions_that_miss_as_little(monkeypatch: pytest.MonkeyPatch) -> None:
    search = _search()

    def regress(_: object, families: fit.Families, period: float) -> list[tuple[float, fit.Law]]:
        law = search.encoded.law(families.all_terms, *np.zeros((2, len(families.all_terms), 1)))
        return [({"steep": 0.0371, "multipliers": 0.037}.get([*families.terms][-1], 0.5), law)]

    monkeypatch.setattr(fit, "regress", regress)
    monkeypatch.setattr(fit, "without_transients", lambda _: None)
    search.regress(1)
    assert [[*families.terms][-1] for _, _, families in search.ranked[:2]] == ["steep", "multipliers"]


def test_errors_that_refinement_compares_with_are_those_of_shortened_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    search = _search()
    law = replace(search._regressed(search.families)[1][0], max_step=0.4)
    monkeypatch.setattr(final, "forecast_errors", lambda one, _: np.full(2, max(one.max_step, 0.1)))
    encoded, judge = search.encoded, search.judge
    end = final._FinalRefinement(np.full(2, 0.4), law, encoded, encoded.train, judge, fit.effort(), 5.0, print)
    end.shorten_steps()
    assert end.law.max_step == 0.1 and end.errors.tolist() == [0.1, 0.1]


def test_laws_are_judged_in_steps_whose_errors_are_below_those_of_harmonics() -> None:
    """Burgers' equation: its forecasts differ from those of short steps by far less than by the harmonics' errors."""
    search, judged = _search(), list[tuple[np.ndarray, fit.Law]]()
    law = search.encoded.law([Term((((0, VALUE), (0, 0)),)), Term((((0, VALUE),),), 1)], np.array([[-1.0], [0.02]]),
                             np.zeros((2, 1)))
    for floor in (0.0, 1e-4):
        own = fit.LawSearch(search.encoded, search.judge, search.families, floor, print, fit.effort(), 5.0, 0.0)
        own._forecast([law], 1.0)
        judged += own.scored
    (exactly, short), (roughly, long) = judged
    assert long.max_step >= 2 * short.max_step
    assert np.abs(np.sqrt(roughly) - np.sqrt(exactly)).max() < 0.5 * np.sqrt(1e-4)


_LINE = (np.arange(32) + 0.5) / 32
_WAVES = 0.1 * np.cos(np.pi * np.arange(1, 9)[:, None, None] * _LINE) * np.linspace(1, 0.9, 6)[:, None]


def _between_walls(u: np.ndarray) -> tuple[EncodedData, Data]:
    """Training data of fields u (S, T, N) on a line between walls, and trajectories that judge laws."""
    data = Data.of(np.arange(6) * 0.2, _LINE[:, None], u[..., None])
    return prepare_data(data, [Box([0], [1], ["walled"])], None, 0, lambda _: None)[:2]


def test_nonlinear_diffusion_is_split_and_takes_longer_steps() -> None:
    """u_t = b lap(u^4), and .5 lap(u^4) - 2 lap u, whose linear part alone grows without limit."""
    linear, fourth = Term((((0, VALUE),),), 1), Term((((0, VALUE),) * 4,), 1)
    encoded, judge = _between_walls(1.2 + _WAVES)
    for away, own, longer in ((0.0, 0.01, 1), (0.0, 0.1, 4), (2.0, 0.5, 4)):
        law = encoded.law([linear, fourth], np.array([[-away], [own]]), np.zeros((2, 1)))
        found = fit._with_forecast_errors(encoded.train, encoded.states, 1e-3, judge, fit.MOST_STEPS, law)
        assert found is not None and np.isfinite(found[1]).all() and found[0].about is not None
        whole = fit.integrable(law, encoded.train.t, encoded.states, 1e-3)
        assert whole is None or found[0].max_step >= longer * whole.max_step
    assert found[0].split() is None and encoded.law([linear], np.ones((1, 1)), np.zeros((1, 1))).split() is None


def test_nonlinear_diffusion_is_well_posed_where_it_is_about_the_values_of_the_data() -> None:
    """du/dt = a lap u + b lap(u^2) diffuses by a + 2 b u: at values about 1, not at negative ones."""
    linear, square = Term((((0, VALUE),),), 1), Term((((0, VALUE),) * 2,), 1)
    encoded, _ = _between_walls(1 + _WAVES)
    for a, b, diffuses in ((0.0, 0.1, True), (0.0, -0.1, False), (-0.1, 0.1, True), (0.1, -0.1, False)):
        law = encoded.law([linear, square], np.array([[a], [b]]), np.zeros((2, 1)))
        assert fit.well_posed(law, encoded.train.t) == diffuses
        assert np.allclose(law.usual, np.quantile(1 + _WAVES, [0.001, 0.999])[:, None], atol=1e-3)


def test_an_ill_posed_law_takes_the_equation_of_one_channel_from_another_law() -> None:
    """u_t = v + b lap v, v_t = lap u: its short waves grow as exp(t k (b k^2 - 1)^.5) if b > 0."""
    x, t = (np.arange(32) + 0.5) / 32, np.arange(6) * 0.1
    modes = np.pi * np.arange(1, 9)[:, None, None]
    u = np.stack([np.cos(modes * x) * np.cos(modes * t[:, None]), -modes * np.cos(modes * x) * np.sin(
        modes * t[:, None])], -1)
    encoded, _, _ = prepare_data(Data.of(t, x[:, None], u), [Box([0], [1], ["walled"])], None, 0, lambda _: None)
    terms = [Term((((1, VALUE),),)), Term((((1, VALUE),),), 1), Term((((0, VALUE),),), 1)]

    def law(b: float, c: float) -> fit.Law:
        return encoded.law(terms, np.array([[1.0, 0.0], [b, 0.0], [0.0, c]]), np.zeros((3, 2)))

    laws, t = [law(1e-2, 1.0), law(0.0, -1.0)], encoded.train.t
    assert not any(fit.well_posed(one, t) for one in laws)
    found = fit.well_posed_mixtures(laws, t)
    assert found[0].theta.tolist() == law(0.0, 1.0).theta.tolist() and all(fit.well_posed(one, t) for one in found)
    assert fit.well_posed_mixtures([law(1e-2, 1.0), law(2e-2, 0.5)], t) == []


def test_where_all_laws_are_ill_posed_mixtures_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    search, judged = _search(), list[list[fit.Law]]()
    _, laws, families = search._regressed(search.families)
    mixed, shorter = (replace(laws[0], theta=factor * laws[0].theta) for factor in (2.0, 3.0))
    monkeypatch.setattr(search, "_forecast", lambda laws, _: judged.append(laws))
    monkeypatch.setattr(fit, "well_posed_mixtures", lambda *_: [mixed])
    monkeypatch.setattr(fit, "damped", lambda _: shorter)
    for posed in (False, True):
        monkeypatch.setattr(fit, "well_posed", lambda law, _, posed=posed: law is shorter or (posed and law is laws[0]))
        search._judge(0.0, laws[:2], families, 1.0)
    assert [[*map(id, one)] for one in judged] == [[id(mixed), id(shorter)], [id(laws[0]), id(shorter)]]


def test_powers_of_the_laplacian_by_which_short_waves_grow_are_left_out() -> None:
    """u_t = lap u + b lap^2 u: waves of number k grow as exp(t k^2 (b k^2 - 1)); b < 0 damps them."""
    x, t = (np.arange(32) + 0.5) / 32, np.arange(6) * 0.01
    modes = np.pi * np.arange(9)[:, None, None]
    u = (np.cos(modes * x) * np.exp(-(modes**2) * t[:, None]))[..., None]
    encoded, _, _ = prepare_data(Data.of(t, x[:, None], u), [Box([0], [1], ["walled"])], None, 0, lambda _: None)
    for b, left in ((1e-1, 0.0), (-1e-1, -1e-1)):
        terms = [Term((((0, VALUE),),), power) for power in (1, 2)]
        law = encoded.law(terms, np.array([[1.0], [b]]), np.zeros((2, 1)))
        assert fit.well_posed(law, encoded.train.t) == (b < 0)
        assert fit.damped(law).theta.tolist() == [[1.0], [left]]
        assert fit.well_posed(fit.damped(law), encoded.train.t)


def test_fluxes_that_run_up_steeper_gradients_than_those_seen_are_not_used() -> None:
    """u_t = .5 (u_x - a u_x^3)_x: of slopes up to 1, diffusion runs backwards beyond 1 / (3 a)^.5."""
    x = (np.arange(48) + 0.5) / 48
    start = np.cos(np.pi * x) + 1e-3 * np.cos(8 * np.pi * x)
    u = start * np.linspace(0.5, 1, 6)[:, None, None] / np.pi * np.ones((6, 1))
    encoded, judge, _ = prepare_data(Data.of(np.arange(6) * 0.5, x[:, None], u[..., None]), [
        Box([0], [1], ["walled"])], None, 0, lambda _: None)
    terms = [Term((((0, VALUE),),), 1), Term((((0, 0), (0, 0), (0, 0)),), axis=0, flux=True)]
    for a, used in ((0.1, True), (-1.0, True), (0.8, False)):
        law = encoded.law(terms, np.array([[0.5], [-0.5 * a]]), np.zeros((2, 1)))
        found = fit._with_forecast_errors(encoded.train, encoded.states, 1e-3, judge, fit.MOST_STEPS, law)
        assert (found is not None) == used
