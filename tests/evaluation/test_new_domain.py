"""Laws moved to other domains: heat in a box, whose solutions elsewhere are known in closed form."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from inrflow import Observations
from inrflow.data.batch import Normalisation, TimeScale
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.source import TrajectorySource
from inrflow.decoders.domain_harmonics import DomainHarmonicDecoder
from inrflow.domains import Box
from inrflow.dynamics.fields.linear import LinearTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.laws.term import LawTerm
from inrflow.errors import UserError
from inrflow.evaluation.evaluate import Observe, evaluate
from inrflow.evaluation.new_domain import Place, moved
from inrflow.evaluation.place import elsewhere_of, require_place
from inrflow.model.state_prior import StatePrior
from inrflow.model.surrogate import Surrogate

ABOUT = Description("heat", ("u",), ("x", "y"))
DIFFUSIVITY, COUNT = 0.02, 32
TIMES = np.linspace(0.0, 2.0, 5)
LAPLACIAN = {"products": [[[0, -1]]], "power": 1, "axis": -1}


@pytest.fixture
def heat():
    """u_t = .02 lap u on the unit box."""
    box = Box([0.0, 0.0], [1.0, 1.0], ["walled", "walled"])
    decoder = DomainHarmonicDecoder(box.state(), "natural", COUNT, 1)
    with torch.no_grad():
        decoder.offset[:] = 0.0
    count = decoder.count
    field = VectorField(count, [LawTerm(box.state(), "natural", count, [LAPLACIAN], [[DIFFUSIVITY]])]).double()
    variance = torch.tensor(1 / (1 + decoder.harmonics.eigenvalues) ** 2)
    prior = StatePrior(torch.zeros(count).double(), torch.diag(variance), torch.full((1,), 1e-6).double(),
                       1e-6 * variance, torch.ones(1).double(), farthest=1e4)
    return Surrogate(ABOUT, Normalisation(torch.zeros(1), torch.ones(1)), decoder.eval(), field.eval(),
                     Integrator("etd", 0.5), prior, TimeScale(0.0, 1.0), np.array([[0.0, 0.0], [1.0, 1.0]]), 2.0,
                     {"seed": 0, "points": 1.0, "same_points": False})


def lshape(n=12):
    """Nodes and triangles of [-1, 1]^2 without its upper right quarter."""
    axis = np.linspace(-1, 1, 2 * n + 1)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    corner = (np.arange(2 * n)[:, None] * (2 * n + 1) + np.arange(2 * n)).ravel()
    corner = corner[~((x[corner] >= -1e-9).all(1))]
    cells = np.concatenate([np.stack([corner, corner + 2 * n + 1, corner + 1], 1),
                            np.stack([corner + 2 * n + 2, corner + 1, corner + 2 * n + 1], 1)])
    used, flat = np.unique(cells, return_inverse=True)
    return x[used], flat.reshape(cells.shape)


def decaying(x, waves):
    """Fields (T, N, 1) of a product of cosines, which touch no wall of lattices of whole waves."""
    rate = DIFFUSIVITY * np.pi**2 * sum(k**2 for k in waves)
    shape = np.prod([np.cos(np.pi * k * x[:, j]) for j, k in enumerate(waves)], 0)
    return np.exp(-rate * TIMES)[:, None, None] * shape[:, None]


@pytest.fixture
def bent(tmp_path):
    """A file of heat on the L."""
    x, cells = lshape()
    u = np.stack([decaying(x, (1, 1)), 0.5 * decaying(x, (2, 1)) + decaying(x, (0, 1))])
    path = tmp_path / "bent.h5"
    write_trajectories(path, TIMES, x, u, ABOUT, extra={"triangles": cells})
    with TrajectoryFile(path) as file:
        yield file


def test_a_law_forecasts_on_a_domain_that_it_was_not_fitted_to(heat, bent):
    there = moved(heat, Place.of(bent), TrajectorySource(bent).batch(np.arange(2), normalised=False))
    x = bent.read(0).x
    forecast = there.assimilate(Observations(TIMES[:1], x, bent.read(0).u[:1])).frames(TIMES, x)
    np.testing.assert_allclose(forecast, decaying(x, (1, 1)), atol=0.03)


def test_harmonics_reach_to_the_same_eigenvalue_whatever_their_number(heat, bent):
    there = moved(heat, Place.of(bent))
    ours, theirs = heat.decoder.harmonics.eigenvalues, there.decoder.harmonics.eigenvalues
    assert 0.9 * ours[-1] < theirs[-1] <= ours[-1] * (1 + 1e-9)
    assert 2.5 * len(ours) < len(theirs) < 4 * len(ours)  # of an area of 3, on linear elements


def test_variances_follow_the_density_of_the_spectrum(heat, bent):
    there = moved(heat, Place.of(bent))
    ours, theirs = heat.prior.covariance.diagonal(), there.prior.covariance.diagonal()
    assert float(theirs[1:].sum()) == pytest.approx(float(ours[1:].sum()), rel=0.3)
    assert (theirs > 0).all() and (there.prior.process >= 0).all()


def test_an_evaluation_elsewhere_is_refused_until_the_law_has_moved(heat, bent):
    with pytest.raises(UserError, match=r"does not lie on the domain .* adapt.strength=none"):
        evaluate(heat, bent, Observe(1, 1.0))
    report = evaluate(moved(heat, Place.of(bent)), bent, Observe(1, 1.0)).report
    assert report["nmse"]["all"] < 1e-3


@pytest.mark.parametrize(("reach", "outside"), [(0.0, False), (0.1, True)])
def test_points_a_little_outside_of_a_guessed_outline_are_told_and_many_of_them_are_refused(
        heat, tmp_path, reach, outside):
    x, cells = lshape(8)
    heat.decoder.place = None
    heat.training["mesh"] = {"kind": "region", "nodes": x.tolist(), "cells": cells.tolist(), "order": 1}
    for name, points in (("near", x * (1 + reach)), ("far", x + 0.8)):
        write_trajectories(tmp_path / f"{name}.h5", TIMES, points, decaying(points, (1, 1))[None], ABOUT)
    with TrajectoryFile(tmp_path / "near.h5") as near, TrajectoryFile(tmp_path / "far.h5") as far, (
            pytest.warns(UserWarning, match="outside the region") if outside else nullcontext()):
        require_place(heat, near)
        with pytest.raises(UserError, match="of its points lie outside"):
            require_place(heat, far)


@pytest.mark.parametrize("name", ["near", "far"])
def test_points_a_little_beyond_guessed_walls_are_told_and_many_of_them_are_refused(heat, tmp_path, name):
    x = np.random.default_rng(0).uniform(0, {"near": 1.04, "far": 2.0}[name], (200, 2))
    write_trajectories(tmp_path / "test.h5", TIMES, x, decaying(x, (1, 2))[None], ABOUT)
    with TrajectoryFile(tmp_path / "test.h5") as file, (
            pytest.warns(UserWarning, match="outside the box") if name == "near" else
            pytest.raises(UserError, match="of its points lie outside")):
        require_place(heat, file)


def test_a_model_that_is_no_law_cannot_move(heat, bent):
    heat.field = VectorField(heat.code_size, [LinearTerm(heat.code_size, 0)]).double()
    with pytest.raises(UserError, match="is not a law on harmonics, so it cannot be moved"):
        moved(heat, Place.of(bent))


def test_a_file_of_the_same_domain_leaves_the_law_where_it_is(heat, tmp_path):
    x = np.random.default_rng(0).uniform(0, 1, (200, 2))
    write_trajectories(tmp_path / "same.h5", TIMES, x, decaying(x, (1, 2))[None], ABOUT)
    with TrajectoryFile(tmp_path / "same.h5") as file:
        assert elsewhere_of(heat, file) is None


def test_points_in_the_cut_of_a_moved_law_are_flagged(heat, bent):
    there = moved(heat, Place.of(bent))
    assert there.extent.outside(np.array([[0.5, 0.5], [-0.5, 0.5], [0.5, -0.2], [1.5, 0.0]])).tolist() == [
        True, False, False, True]


def test_a_moved_law_is_saved_and_loaded(heat, bent, tmp_path):
    there = moved(heat, Place.of(bent))
    there.save(tmp_path / "run")
    again = Surrogate.load(tmp_path / "run")
    x, u = bent.read(1).x, bent.read(1).u
    seen = Observations(TIMES[:1], x, u[:1])
    np.testing.assert_allclose(again.assimilate(seen).frames(TIMES, x), there.assimilate(seen).frames(TIMES, x),
                               atol=1e-6)


def test_a_model_that_is_no_law_flags_the_holes_of_the_mesh_that_it_was_trained_on(heat, bent):
    x, cells = lshape(4)
    heat.decoder.place = None
    heat.training["mesh"] = {"kind": "region", "nodes": x.tolist(), "cells": cells.tolist(), "order": 1}
    assert heat.extent.outside(np.array([[0.5, 0.5], [-0.5, 0.5]])).tolist() == [True, False]
    require_place(heat, bent)


def test_the_commands_move_a_law_and_say_so(heat, bent, tmp_path, inrflow_command):
    heat.save(tmp_path / "run")
    told = inrflow_command("adapt", f"run={tmp_path / 'run'}", f"data.train={bent.path}", "adapt.strength=none",
                           f"output={tmp_path / 'moved'}")
    assert told.code == 0 and "the law is moved from" in told.err and "of the new region" in told.err
    assert Surrogate.load(tmp_path / "moved").extent.domain.kind == "region"
    by_itself = inrflow_command("evaluate", f"run={tmp_path / 'run'}", f"data.test={bent.path}",
                                f"output={tmp_path / 'evaluated'}")
    report = json.loads((tmp_path / "evaluated" / "evaluation.json").read_text())
    assert by_itself.code == 0 and report["nmse"]["all"] < 1e-3
    assert "lies on another domain" in " ".join(by_itself.err.split())
