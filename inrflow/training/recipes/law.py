"""Recipe: a law of physics on the harmonics of any domain, found by sparse regression in weak form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from inrflow.decoders.base import Decoder
from inrflow.dynamics.contexts.posterior import contexts_of_systems
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.states import frames_needed, with_contexts
from inrflow.encoding.encode import CodeData
from inrflow.encoding.posterior import MANY, GaussianPrior
from inrflow.errors import UserError, first_line
from inrflow.evaluation.place import shapes_of
from inrflow.model.surrogate import Surrogate
from inrflow.numerics.effort import effort
from inrflow.training.candidate import Candidate, Refitted, Score
from inrflow.training.judge import LawRollouts, explains
from inrflow.training.margins import DIVERGES, ROUNDING, STRAYS
from inrflow.training.parts.environments import ContextGroups
from inrflow.training.problem import Problem
from inrflow.training.recorder import Clock
from inrflow.training.run import Run

if TYPE_CHECKING:
    from inrflow.domains import Domain
    from inrflow.dynamics.laws import Law
    from inrflow.dynamics.laws.setting import EncodedData

Found = TypeVar("Found")

_SHARE, _MOST_SECONDS, _FRAME = 0.5, 60.0, 4096  # share of the budget; most seconds for that many values a frame
_OF_NETWORK, _ALONE = 0.25, 0.35  # shares of the budget for a network, with a law of few terms, and without
_AT_FIRST, _FAR_LESS = 0.05, 0.5  # share of the budget for an early network; residual ratio required of it
_FIRST_SECONDS, _FEWEST_SECONDS = 1.0, 2.0  # least number of seconds for that one, and for others
_GUARD = 0.75  # share of the budget, by the clock, after which the search is abandoned
_POOR, _LATE = 1.0, 0.5  # error of a law, relative to the variance, and share of the budget beyond which none is added
_FEWEST_FRAMES, _FEWEST_TRAJECTORIES, _SERIES = 4, 4, 12  # the last: least number of frames of a series
_FEWEST_PLACES, _ON_LINE = 64, 24  # least number of places, and on a line
_MOST_VALUES = 3e7  # largest number of values that a law is fitted to
_MANY = 400  # codes from which fewer trajectories calibrate: covariances have cubic cost
_VERY_MANY = 1024  # codes that are about as many as points, if they leave no residual
_RATED, _TOGETHER = 64, 8  # trajectories whose rates are estimated, and how many at once
_OF_RATES = 0.03  # share of the budget for each further block of these
_UNSURE, _LEAST_NOISE = 0.1, 1e-14  # tolerance of codes in fits of rates, relative to residuals; least of these
_OF_ROWS = 0.4  # share of the time for a law, to refine it by observed rows
_OF_STEPS = 0.1  # share of the budget for states of rest and shorter steps
_NEAR = -0.1, -0.03, -0.01, 0.0, 1e-7, 3e-7, 1e-6, 1e-5, 1e-4  # distances from states of rest relative to the range


class LawRecipe:
    """A local law on boxes with walls, regions given by a mesh or by points, and spheres."""

    name = "law"

    def is_late(self, problem: Problem) -> bool:
        """Whether other recipes are tried first: a single series seldom determines a law, and the search takes its
        whole budget. With fewer frames, other models are hardly more than an interpolation."""
        return not len(problem.validation) and len(problem.train) == 1 and problem.fitted_frames >= _SERIES

    def applies(self, problem: Problem, best: Candidate | None) -> str | None:
        """None, or why no law on harmonics is sought."""
        if best is not None and (best.explained or best.score.error < ROUNDING):
            return f"{best.recipe} explains the data"
        if not problem.has_solved_codes:
            return "the configured codes are not a linear solve"
        if asked := problem.setting_excluding_laws:
            return asked
        if problem.forcing_period and problem.environments is not None:
            return "the data have a periodic forcing and several systems"
        if problem.source.time_bins is not None:
            return "values have individual times, and splines in time are too inaccurate"
        if (frames := problem.fitted_frames) < _FEWEST_FRAMES:
            return f"the training data have {frames} frames, a law needs {_FEWEST_FRAMES}"
        if problem.source.moves:
            return "points move, and harmonics of single frames are too inaccurate"
        line = len(problem.description.coordinates) == 1
        few = problem.source.points < (_ON_LINE if line else _FEWEST_PLACES) and not len(problem.validation)
        if few and not problem.has_harmonics and (best is not None if self.is_late(problem) else not line):
            return "few trajectories at a few dozen places do not determine a law"
        return "a single place has no harmonics" if problem.source.points == 1 else None

    def propose(self, run: Run) -> Iterator[Candidate]:
        """The law with the best forecasts of held-out data, if one is found."""
        from inrflow.domains import flows_of, velocities_of  # finite elements take a second to import
        from inrflow.dynamics.fitting.diagnostic import Diagnostic, completed, require_own_fields, require_prognostic
        from inrflow.dynamics.laws import Systems, fit_law

        groups = None
        if run.problem.environments is not None:
            groups = ContextGroups(run.problem)
            if len(groups.used) <= max(groups.sizes(), default=0) + 1:
                run = run.on(run.problem.validated_in_time())  # contexts need all systems
                groups = ContextGroups(run.problem)
        problem = run.problem
        if problem.file.point_layout == "per_trajectory" and len(shapes := shapes_of(problem.file)) > 1:
            yield from _on_shapes(run, shapes)
            return
        scale = problem.source.normalisation.scale.double().flatten()
        each = problem.source.times.shape[1] * problem.source.points * len(scale)
        given = problem.fields(problem.train[: max(_FEWEST_TRAJECTORIES, int(_MOST_VALUES / each))])
        if given is None or not len(given[0]):
            return
        rows, t, x, u = given
        systems = None
        if groups is not None:
            counts = groups.sizes(run.log.say)
            told = tuple(form.numpy() for form in groups.candidates(alike=True))
            systems = Systems(groups.number.numpy()[rows], len(groups.used), counts, told)
        try:
            domains = problem.domains(x)
        except UserError as reason:
            run.log.say(f"law on the domain's harmonics: none found ({first_line(reason)})")
            return
        may_flow = x.shape[-1] == 2 and len(scale) in (2, 3) and np.equal(x, x[:1]).all()
        velocities = velocities_of(x[0], u, scale.numpy()) if may_flow else []
        flows = flows_of(domains, x[0], u[..., velocities], scale[velocities].numpy()) if may_flow else []
        tried = [*domains, *(flows if len(scale) == 2 else ())]
        further: dict[str, Any] = {"systems": systems, "seed": run.config.seed, "log": run.log.notes("law")}
        kept = [*range(len(scale))]  # channels that laws are sought for
        datasets: list[EncodedData] = []
        former: list[EncodedData] = []  # of all channels, where some are diagnostic
        networks: list[Law] = []
        divided = len(scale) > 1 and problem.noise is None and not problem.forcing_period  # channels may have no law
        network = "off" if problem.forcing_period else run.config.dynamics.network

        def with_network(name: str, share: float, basis: Law | EncodedData, **known: Any) -> list[Law]:
            from inrflow.dynamics.fitting.network_law import fit_network_law

            law = _found(run, f"law with a {name.replace('_', ' ')}", name, share, lambda seconds, _: fit_network_law(
                t, x, u[..., kept], basis, seconds=seconds, units=scale[kept].tolist(), **known, **further),
                max(share, _OF_NETWORK))
            return [] if law is None else [law]

        def at_data(encoded: EncodedData) -> None:
            datasets.append(encoded)
            if len(kept) == len(scale) and encoded.codes.harmonics.components == 1:
                require_own_fields(encoded, u)

        def at_first(encoded: EncodedData, missed: float, law: Law) -> None:
            if divided and len(kept) == len(scale) and encoded.codes.harmonics.components == 1:
                require_prognostic(encoded, law)
            if encoded.codes.harmonics.components == 1 and network != "off" and groups is None:
                seconds = run.budget.seconds(_AT_FIRST)
                if run.budget.decide("first_network", math.ceil(seconds) if seconds >= _FIRST_SECONDS else 0):
                    networks.extend(with_network("first_network", _AT_FIRST, encoded, most=_FAR_LESS * missed))

        def search(places: Sequence[Domain], seconds: float, clock: Clock) -> Law:
            return fit_law(t, x, u[..., kept], places, units=scale[kept].tolist(), seconds=seconds, clock=clock,
                           rates=run.config.dynamics.memory is None, noise=problem.unexplained,
                           period=problem.forcing_period, on_data=at_data if divided else datasets.append,
                           on_unexplained=at_first, **further)

        def refined(seconds: float, left: Clock) -> tuple[Law, Problem]:
            if flows and len(scale) > 2 and problem.noise is None:
                from inrflow.dynamics.fitting.flow_pressure import flow_law

                kept[:], seconds, later = velocities, seconds / 2, left() / 2  # as much for a law of all channels
                law = flow_law(lambda: search(flows, seconds, lambda: left() - later), t, x, u, velocities,
                               scale.numpy(), run.log.say)
                if law is not None:
                    return law, problem
                kept[:], datasets[:] = range(len(scale)), []
            if problem.noise is not None:
                from inrflow.training.parts.rows import by_rows
                later = _OF_ROWS * left()
                law = search(tried, (1 - _OF_ROWS) * seconds, lambda: left() - later)
                return by_rows(problem, law, _OF_ROWS * seconds, further["log"])
            try:
                return search(tried, seconds, left), problem
            except Diagnostic as found:
                former.append(datasets.pop())
                kept[:] = [c for c in kept if c not in found.channels]
                others = ", ".join(problem.description.channels[c] for c in found.channels)
                run.log.say(f"diagnostic channels, noise or determined by the others at each time: {others}")
            return search(domains, max(seconds - effort(), _FEWEST_SECONDS), left), problem

        short, smooth = _found(run, "law on the domain's harmonics", "law", _SHARE, refined, _GUARD) or (None, problem)
        explained, missed = False, math.inf
        noise = np.zeros(len(scale))
        noise[kept] = np.atleast_1d(datasets[-1].train.noise if datasets else 0.0)[: len(kept)]

        def whole(law: Law) -> Law:
            alone = law.values is None and len(kept) < len(scale)
            return completed(law, t, x, u, kept, former[0].boundary) if alone else law

        for law in [*([] if short is None else [short]), *networks]:
            for candidate in [] if explained else _candidates(
                    run, smooth if law is short else problem, whole(law), x, u, groups, noise):
                yield candidate
                explained, missed = explained or candidate.explained, min(missed, candidate.score.error)
        bases: list[Law | EncodedData] = [*([] if short is None or short.has_rates else [short]), *datasets]
        basis = next((one for one in bases if one.codes.harmonics.components == 1), None)
        if basis is not None and (network == "on" or (network == "auto" and not explained and missed > ROUNDING)):
            share = _ALONE if short is None else _OF_NETWORK
            late = missed > _POOR and run.budget.elapsed > _LATE * run.budget.total  # time for other recipes
            if short is not None and network != "on" and (late or run.budget.seconds(share) < _FEWEST_SECONDS):
                run.log.say("law with a network: not sought, for lack of time")
                return
            for law in with_network("network", share, basis, missed=missed):
                yield from _candidates(run, problem, whole(law), x, u, groups, noise)


def _found(run: Run, name: str, decision: str, share: float, fit: Callable[[int, Clock], Found], most: float = 1.0
           ) -> Found | None:
    """Result of a search with a budget of effort in seconds, a share of the time, and a clock of the remaining seconds;
    None if it finds nothing, or not within the share `most` of the time."""
    found, budget = None, run.budget
    size = run.problem.source.points * run.problem.source.normalisation.scale.numel() / _FRAME
    seconds = budget.decide(decision, math.ceil(min(_MOST_SECONDS * max(size, 1.0), budget.seconds(share))))
    try:
        with budget.part(most=most) as left:
            found = fit(seconds, left)
    except (UserError, ValueError, np.linalg.LinAlgError) as reason:
        run.log.say(f"{name}: none found ({first_line(reason)})")
        return None
    if found is None:
        run.log.say(f"{name}: none found within the time budget")
    return found


def _on_shapes(run: Run, shapes: list[np.ndarray]) -> Iterator[Candidate]:
    """One law for trajectories on different shapes, as a candidate on the shape with most of them."""
    from inrflow.training.recipes.shapes import ShapeProblem

    problem = run.problem
    if problem.environments is not None or not len(problem.validation):
        run.log.say("trajectories have different domains: a law of all is sought only for one system, with held-out "
                    "trajectories")
        return
    shaped = ShapeProblem(problem, shapes)
    found = _found(run, f"law of all {len(shapes)} shapes", "law", _SHARE, lambda seconds, _: shaped.law(
        seconds, run.config.seed, run.log.notes("law")))
    if found is None:
        return
    law, error, home = found
    run.log.say(f"one law of {len(shapes)} shapes")
    yield from _candidates(run, shaped.home_problem, law, home.x, home.u, None, np.zeros(1), error, shaped.calibrated)


def _candidates(
    run: Run, problem: Problem, law: Law, x: np.ndarray, u: np.ndarray, groups: ContextGroups | None, white: np.ndarray,
    error: float | None = None, refit_decoder: Callable[[Surrogate], Surrogate] | None = None,
) -> Iterator[Candidate]:
    """The candidate of a law for fields u (S, T, N, C) at points x (S, N, d) of a problem on its domain.

    white: variance of white noise, (C,) or (1,). error: of forecasts of held-out trajectories if these lie on other
    shapes."""
    from inrflow.dynamics.laws.rates import with_rates
    from inrflow.dynamics.laws.term import LawTerm, states_of_rest

    term, left = LawTerm.of(law), [law.residual_variance(*one) for one in zip(x[:16], u[:16], strict=True)]
    noise = np.maximum(np.median(left, 0), _LEAST_NOISE)  # a shock that forms in some is not noise of the others
    noise = np.where(noise < white / 2, white, noise)  # as many harmonics as grid points leave no residual
    decoder, prior = _basis(problem, law, noise)
    codes = [problem.codes(decoder, prior, rows) for rows in (problem.train, problem.validation) if len(rows)]
    _, judged, first = problem.judging(codes[0], codes[1] if len(codes) > 1 else None)
    size, memory = decoder.code_size, len(law.rates) * law.codes.harmonics.count
    field = VectorField(size + memory, [term], law.count).double()
    integrator = Integrator("etd", min(1.0, law.max_step))
    train, validation, contexts, refit = codes[0], judged, None, None
    if law.count:
        assert groups is not None
        every, number = torch.tensor(law.contexts), groups.validation if len(problem.validation) else groups.train()
        theirs, contexts = every[groups.train()[: len(train.codes)]], torch.where(number[:, None] < 0, 0, every[number])
        if len(problem.validation):
            contexts = groups.validation_contexts(every, contexts)
    if law.has_rates:
        needed = frames_needed(size, memory)
        first = max(first, min(needed - 1, judged.codes.shape[1] - 2))
        unsure, rated, known = _UNSURE * float(noise.sum()) ** 0.5, list[CodeData](), list[CodeData]()
        for done, some in enumerate(torch.arange(min(_RATED, len(train.codes))).split(_TOGETHER)):
            with run.budget.part(_OF_RATES if done else math.inf):
                known = known or [with_rates(law, judged, contexts, unsure, start=first)]
                rated.append(with_rates(law, train.at(some), theirs[some] if law.count else None, unsure, True))
            if len(rated) == done:
                break
        if not rated:
            run.log.say("law on harmonics: not used, for its rates were not estimated in time")
            return
        train, validation = CodeData.join(rated), known[0]
    if law.count and groups is not None and groups.parameters is None and bool((number < 0).any()):
        solved = None
        with run.budget.part():
            solved = contexts_of_systems(every, number, field, integrator, validation)
            if law.has_rates:  # rates above used the mean context
                solved = contexts_of_systems(every, number, field, integrator, with_rates(law, judged, solved, unsure))
                validation = with_rates(law, judged, solved, unsure, start=first)
        if solved is None:
            run.log.say("law on harmonics: not used, for contexts of held-out trajectories were not estimated in time")
            return
        contexts = solved
    if contexts is not None:
        train = with_contexts(train, size + memory, theirs[: len(train.codes)])
        validation = with_contexts(validation, size + memory, contexts)

        def refit() -> Refitted:
            assert groups is not None
            return Refitted(flown.field, contexts=groups.contexts(every, run.log.say))

    flown = LawRollouts(field, integrator, validation, judged, first, size, error)
    floor, rows = float(noise.mean()) + problem.unexplained, problem.white * problem.unexplained
    lines = _written(law, problem, groups)
    terms, waves = np.count_nonzero(law.theta), law.codes.harmonics.count
    run.log.say(f"law on {waves} harmonics ({law.domain.kind}, {law.boundary}): {terms} term{'s'[:int(terms != 1)]}, "
                f"{law.count} context{'s'[:int(law.count != 1)]}, validation error {flown.error + rows:.2e} of the "
                f"variance (harmonics alone {floor:.1e})")
    if not np.isfinite(flown.error):
        return
    with run.budget.part(_OF_STEPS):
        bounds = [] if law.has_rates or law.period else states_of_rest(u)
        for near in [near for near in _NEAR if bounds and (flown.lost or near < 0)]:
            rests = [[low, high, near * extent] for low, high, extent in bounds]
            held = VectorField(size, [LawTerm(**{**term.structure(), "rests": rests})], law.count).double()
            if flown.try_field(held, DIVERGES):
                run.log.say(f"law on harmonics: values within {near:.0e} of a bound rest, error {flown.error:.2e}")
        flown.shorten_steps()
    strays = first and not law.has_rates and flown.farthest > STRAYS
    if lost := 1.0 if strays else flown.lost:
        run.log.say(f"law on harmonics: {100 * lost:.0f} % of forecasts leave the range of the data; " + (
            "it is not used" if lost > DIVERGES else "do not trust forecasts far beyond the data"))
    if lost > DIVERGES:
        return
    for line in lines:
        run.log.say(f"  {line}")
    if law.has_rates:
        run.log.say(f"  a single frame does not determine the state: forecasts need at least {needed} observed frames "
                    f"(observe.frames={needed})")
    error = flown.error + rows
    name = f"law on harmonics, {law.size} coefficients" + ", with a network" * law.has_network
    yield Candidate(
        problem, LawRecipe.name, name, decoder, prior, flown.field, flown.integrator, train, validation, first,
        Score(error, floor, law.size), law.count, contexts,
        explained=explains(
            error, floor, law.is_linear, flown.elsewhere or not len(problem.validation), size > _VERY_MANY),
        refit=refit, calibrated=16 if size <= _MANY else 8 if size <= 2 * _MANY else 4,
        metadata={"symmetries": [], "equation": lines}, refit_decoder=refit_decoder,
    )


def _basis(problem: Problem, law: Law, noise: np.ndarray) -> tuple[Decoder, GaussianPrior]:
    """The decoder of the harmonics of a law, and the prior of their codes; noise (C,): their residual variance."""
    from inrflow.decoders.domain_harmonics import DomainHarmonicDecoder

    scale, mean = (getattr(problem.source.normalisation, name).double().flatten() for name in ("scale", "mean"))
    decoder = DomainHarmonicDecoder(law.domain, law.boundary, law.codes.harmonics.count, len(scale))
    with torch.no_grad():
        decoder.offset.copy_((problem.centre - mean / scale).float())
    variance = torch.as_tensor(law.codes.variance).flatten()
    return decoder, GaussianPrior(torch.as_tensor(law.codes.mean).flatten(),
                                  variance if len(variance) > MANY else variance.diag(), torch.as_tensor(noise))


def _written(law: Law, problem: Problem, groups: ContextGroups | None = None) -> list[str]:
    """A line for each channel, in the data's units; coefficients by known parameters where these give contexts."""
    from inrflow.domains import Flows
    from inrflow.dynamics.laws.terms import INVERSE, Term
    from inrflow.numerics.kinetics import FUNCTION, RECIPROCAL, changed, unit_power

    about, called, time = problem.description, None, problem.scale.unit
    if groups is not None and law.contexts_given and (told := groups.in_parameters(torch.tensor(law.contexts))):
        *numbers, called = told
        law = law.with_parameters(*(part.numpy() for part in numbers))
    if isinstance(law.domain, Flows):  # codes in the units of the data
        scaled = replace(law, theta=law.theta / time, std=law.std / time, by_context=law.by_context / time, values=None)
        names, pressure = [*about.channels], law.domain.pressure
        own = None if pressure is None else names.pop(pressure.channel)
        velocity = f"({', '.join(names)})"
        lines = scaled.written([velocity], about.coordinates, called)
        if own is None or pressure is None or law.values is None:
            return lines
        return [*lines, f"{own} = {law.values.max():.4g} times the pressure of {velocity}" + (
            f", with corrections linear in {len(pressure.linear)} velocities" if len(pressure.linear) else "")]
    scale = problem.source.normalisation.scale.double().flatten().numpy()
    seasons = [f"{name}(2 pi t / {about.time_period:g})" for name in ("cos", "sin")] if law.period else []
    scale = np.concatenate([scale, scale[list(law.rates)] / time, np.ones(len(seasons))])
    unit = np.array([
        scale[term.products[0][1][0]] if isinstance(term, Term) and term.solenoidal and term.signs else
        np.prod([scale[c] ** (unit_power(axis) if axis <= FUNCTION or axis == RECIPROCAL else 1.0)
                 for c, axis in term.products[0] if axis != INVERSE])
        * (term.sizes[term.component] if isinstance(term, Term) and term.solenoidal and term.forces else 1.0)
        if term.products else 1.0 for term in law.terms
    ])
    factor, values = scale[None] / unit[:, None] / time, law.values
    if values is not None:  # of diagnostic channels, no rates
        factor, values = np.where(values.any(0), time, 1.0) * factor, values * factor * time
    scaled = replace(law, theta=law.theta * factor, std=law.std * factor, by_context=law.by_context * factor,
                     values=values).with_functions(lambda c, number: changed(number, math.log(scale[c])))
    names = [*problem.differences, *(f"{about.channels[c]}_t" for c in law.rates), *seasons]
    lines, left = scaled.written(names, about.coordinates, called), [*about.channels, *names[len(about.channels) :]]
    return [line.replace(names[c], left[c], 1) for c, line in enumerate(lines[: len(names) - len(seasons)])
            if c not in law.rates]
