"""Equations of laws as text, in the units of the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from inrflow.dynamics.laws.law import Law
from inrflow.training.parts.environments import ContextGroups
from inrflow.training.problem import Problem


def equations_of(law: Law, problem: Problem, groups: ContextGroups | None = None) -> list[str]:
    """A line for each channel, in the data's units; coefficients by known parameters where these give contexts."""
    from inrflow.domains import Flows
    from inrflow.dynamics.laws.terms import INVERSE, RECIPROCAL, Term

    about, called, time = problem.description, None, problem.scale.unit
    if groups is not None and law.told and (told := groups.in_parameters(torch.tensor(law.contexts))):
        *numbers, called = told
        law = law.in_terms_of(*(part.numpy() for part in numbers))
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
        np.prod([scale[c] ** (-1.0 if axis == RECIPROCAL else 1.0) for c, axis in term.products[0] if axis != INVERSE])
        * (term.sizes[term.component] if isinstance(term, Term) and term.solenoidal and term.forces else 1.0)
        if term.products else 1.0
        for term in law.terms
    ])
    factor, values = scale[None] / unit[:, None] / time, law.values
    if values is not None:  # of diagnostic channels, no rates
        factor, values = np.where(values.any(0), time, 1.0) * factor, values * factor * time
    scaled = replace(law, theta=law.theta * factor, std=law.std * factor, by_context=law.by_context * factor,
                     values=values)
    names = [*problem.differences, *(f"{about.channels[c]}_t" for c in law.rates), *seasons]
    lines, left = scaled.written(names, about.coordinates, called), [*about.channels, *names[len(about.channels) :]]
    return [line.replace(names[c], left[c], 1) for c, line in enumerate(lines[: len(names) - len(seasons)])
            if c not in law.rates]
