"""Model files: round trips, files of earlier versions, terms of a user's own, and files that are damaged."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import inrflow
import inrflow.dynamics.fields.base as base
import inrflow.runtime.tensor_files as tensor_files
from inrflow.dynamics.fields.base import FieldTerm, register_term
from inrflow.dynamics.fields.sum import VectorField
from inrflow.errors import UserError
from inrflow.model.family import Family
from inrflow.model.store import MODEL_FILE, is_family, model_format
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.tensor_files import load_tensors, save_tensors

FORMAT_1 = Path(__file__).parent / "format_1"
EXPECTED = json.loads((FORMAT_1 / "expected.json").read_text())


def answers(surrogate, asked):
    seen = {name: np.array(values) for name, values in asked["observations"].items()}
    t, x = np.array(asked["t"]), np.array(asked["x"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        solution = surrogate.assimilate(inrflow.Observations(seen["t"], seen["x"], seen["u"]))
        answer = solution.query(t, x, std=True, derivatives=True)
    return {"u": answer["mean"], "std": answer["std"], "du_dx": answer["dx"], "du_dt": answer["dt"]}


def compare(surrogate, asked):
    for name, values in answers(surrogate, asked).items():
        expected = np.array(asked[name])
        scale = np.abs(expected).max()
        np.testing.assert_allclose(values, expected.reshape(values.shape), rtol=1e-4, atol=1e-5 * scale, err_msg=name)
    assert surrogate.code_size == asked["code_size"] and surrogate.parameters == asked["parameters"]


@pytest.mark.parametrize("name", EXPECTED)
def test_files_of_format_1_give_the_answers_that_they_gave(name):
    asked = EXPECTED[name]
    compare(Surrogate.load(FORMAT_1 / asked["run"]), asked)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_model_that_is_saved_and_loaded_gives_the_same_answers(name, tmp_path):
    asked = EXPECTED[name]
    Surrogate.load(FORMAT_1 / asked["run"]).save(tmp_path)
    again = Surrogate.load(tmp_path)
    compare(again, asked)
    again.save(tmp_path / "again")
    once = Surrogate.load(tmp_path / "again")
    for key, value in answers(again, asked).items():
        np.testing.assert_array_equal(answers(once, asked)[key], value)


def test_what_a_file_holds_is_told_by_its_header_alone(monkeypatch, tmp_path):
    several, single = two_physics(tmp_path), FORMAT_1 / "codes"
    monkeypatch.setattr(tensor_files, "load_tensors", None)
    assert is_family(several) and not is_family(single) and not is_family(FORMAT_1)
    assert (model_format(several), model_format(single)) == ("inrflow-family", "inrflow-surrogate")


def test_a_directory_without_a_model_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match="does not exist; give one that inrflow train has written"):
        Surrogate.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no model.safetensors"):
        Surrogate.load(tmp_path)
    for use in (Surrogate.load, Surrogate.load(FORMAT_1 / "codes").save):
        with pytest.raises(UserError, match="a run directory is a path, not int"):
            use(5)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match="has not finished: continue it with inrflow train resume="):
        Surrogate.load(tmp_path)


def two_physics(directory):
    """A run of two physics."""
    names = "codes", "recipe"
    return Family({name: Surrogate.load(FORMAT_1 / name) for name in names}).save(directory).parent


def test_a_physics_is_asked_for_by_its_name(tmp_path):
    several = two_physics(tmp_path)
    with pytest.raises(UserError, match="holds several physics; give physics=NAME, one of"):
        Surrogate.load(several)
    with pytest.raises(UserError, match="physics=sound is unknown; this run holds"):
        Surrogate.load(several, physics="sound")
    with pytest.raises(UserError, match="physics=sound is unknown; .* holds only wave"):
        Surrogate.load(FORMAT_1 / "codes", physics="sound")
    with pytest.raises(UserError, match="holds one physics"):
        Family.load(FORMAT_1 / "codes")


def changed(directory, change):
    """A copy of a stored model, in the present format, whose state and metadata a function has changed."""
    Surrogate.load(FORMAT_1 / "codes").save(directory)
    state, metadata = load_tensors(directory / MODEL_FILE)
    change(state, metadata)
    save_tensors(directory / MODEL_FILE, state, metadata)
    return directory


@pytest.mark.parametrize(("part", "key", "value", "message"), [
    ("normalisation", "scale", -1.0, "wave: scale holds -1 where a finite number above 0"),
    ("normalisation", "scale", float("nan"), "normalisation.scale holds nan where a number is expected"),
    ("normalisation", "mean", float("inf"), "wave: mean holds inf where a finite number is expected"),
    ("prior", "noise", float("nan"), "prior.noise holds nan"),
    ("prior", "noise", -1e-3, "wave: prior.noise holds -0.001 where a finite number of at least 0"),
    ("prior", "covariance", -1.0, "prior.covariance is not a covariance"),
    ("prior", "spread", -1.0, "wave: prior.spread holds -1"),
    ("prior", "covariance", float("nan"), "prior.covariance holds nan"),
    ("field", "terms.linear.matrix", float("nan"), "field.terms.linear.matrix holds nan"),
    ("decoder", "output", float("inf"), "wave: decoder.output holds inf"),
])
def test_numbers_that_no_model_has_are_refused(tmp_path, part, key, value, message):
    def damage(state, metadata):
        state[part][key].view(-1)[0] = value

    with pytest.raises(UserError, match=message):
        Surrogate.load(changed(tmp_path, damage))


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: state.update(box=state["box"].flatten()), r"box has the shape \(4,\) where \(2, 2\) is expected"),
    (lambda state: state.update(box=state["box"].flip(0).contiguous()), "box holds a minimum above the maximum"),
    (lambda state: state["prior"].update(noise=state["prior"]["noise"][:-1]), r"prior.noise has the shape \(1,\)"),
    (lambda state: state["prior"].update(noise=state["prior"]["noise"].half()), "prior.noise is of the type torch.flo"),
    (lambda state: state["normalisation"].update(mean=torch.zeros(0)), r"mean has the shape \(0,\)"),
])
def test_tensors_of_another_shape_or_type_are_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        Surrogate.load(changed(tmp_path, lambda state, metadata: change(state)))


@pytest.mark.parametrize(("part", "key", "value"), [
    ("decoder", "output_map", 1e30), ("prior", "noise", 0.0), ("field", "terms.linear.matrix", 1e30),
])
def test_numbers_that_leave_no_answer_are_told_where_the_model_is_asked(tmp_path, part, key, value):
    def damage(state, metadata):
        flat = state[part][key].view(-1)
        flat[flat.numel() // 2 if value else slice(None)] = value

    damaged = Surrogate.load(changed(tmp_path, damage))
    random = np.random.default_rng(0)
    x, u = random.uniform(0, 1.75, (20, 2)), random.standard_normal((3, 20, 2))
    with pytest.raises(UserError, match="computation with the model .* failed .*; check the units") as caught, \
            warnings.catch_warnings():
        warnings.simplefilter("ignore")
        damaged.assimilate(inrflow.Observations(np.arange(3) * damaged.scale.unit, x, u)).query(0.5, x, std=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "message"), [
    (lambda state, metadata: metadata.update(horizon=[1.0]), "horizon is of the type list"),
    (lambda state, metadata: metadata["scale"].update(unit="x"), "timescale.unit is of the type str"),
    (lambda state, metadata: state["prior"].update(mean=state["prior"]["mean"].long()), "prior.mean is of .*int64"),
    (lambda state, metadata: state["prior"]["covariance"].zero_(), "prior.covariance is 0 everywhere"),
    (lambda state, metadata: metadata["decoder"].update(depth=10**6), "declares depth=1000000, more than a file"),
    (lambda state, metadata: metadata.update(description=7), "damaged, or of another version"),
    (lambda state, metadata: metadata.update(integrator={"step": {}, "method": 3}), "integrator.step is of the type"),
])
def test_values_of_other_types_and_sizes_are_refused_in_one_line(tmp_path, change, message):
    with pytest.raises(UserError, match=message) as caught:
        Surrogate.load(changed(tmp_path, change))
    assert "\n" not in str(caught.value)


def test_damaged_and_later_files_are_refused_in_one_line(tmp_path):
    def later(state, metadata):
        metadata["version"] = 99

    def without_decoder(state, metadata):
        del metadata["decoder"]

    def without_matrix(state, metadata):
        del state["field"]["terms.linear.matrix"]

    for change, message in ((later, "version 99; this inrflow reads inrflow-surrogate of version 1, inrflow-surrogate"),
                            (without_decoder, "another version of inrflow .'decoder'"),
                            (without_matrix, "another version of inrflow")):
        with pytest.raises(UserError, match=message) as caught:
            Surrogate.load(changed(tmp_path, change))
        assert "\n" not in str(caught.value)
    shutil.copy(FORMAT_1 / "codes" / MODEL_FILE, tmp_path)
    state, metadata = load_tensors(tmp_path / MODEL_FILE)
    del metadata["field"]["depth"]
    save_tensors(tmp_path / MODEL_FILE, state, metadata)
    with pytest.raises(UserError, match="is damaged .*depth"):
        Surrogate.load(tmp_path)


@pytest.mark.parametrize(("size", "message"), [
    ("quadratic_rank", "quadratic part of given rank .*train again with dynamics.products"),
    ("local", "a local equation of an earlier version of inrflow, .*train again"),
    ("couplings", "sparse products of an earlier version of inrflow, .*train again"),
])
def test_fields_that_earlier_versions_had_are_refused_with_what_to_do(tmp_path, size, message):
    state, metadata = load_tensors(FORMAT_1 / "codes" / MODEL_FILE)
    metadata["field"][size] = 4
    save_tensors(tmp_path / MODEL_FILE, state, metadata)
    with pytest.raises(UserError, match=message):
        Surrogate.load(tmp_path)


@pytest.mark.parametrize("kind", ["box", "region"])
def test_models_of_meshes_whose_eigenfunctions_had_no_orientation_are_refused(tmp_path, kind):
    domain = {"kind": kind, "nodes": [[0.0, 0.0]]}

    def before(state, metadata):
        metadata["version"] = 2
        metadata["field"]["terms"][0]["domain"] = domain

    with pytest.raises(UserError, match="depend on the machine.*train again" if kind == "region" else "does not fit"):
        Surrogate.load(changed(tmp_path, before))


def test_models_of_the_version_before_without_a_mesh_are_read(tmp_path):
    folder = changed(tmp_path, lambda state, metadata: metadata.update(version=2))
    assert Surrogate.load(folder).code_size == Surrogate.load(FORMAT_1 / "codes").code_size


def test_families_with_shared_equations_are_refused_with_what_to_do(tmp_path):
    state, metadata = load_tensors(two_physics(tmp_path) / MODEL_FILE)
    save_tensors(tmp_path / MODEL_FILE, state, {**metadata, "version": 3})
    with pytest.raises(UserError, match="'inrflow-family' version 3; this inrflow reads .*version 5: train again"):
        Family.load(tmp_path)


def test_a_term_of_a_users_own_is_saved_and_needs_its_registration_to_be_loaded(tmp_path, registries):
    @register_term("damping")
    class Damping(FieldTerm):
        def __init__(self, state_size):
            super().__init__()
            self.state_size = state_size
            self.rate = nn.Parameter(torch.full((state_size,), 0.3))

        def forward(self, t, z, c=None):
            return -self.rate * z.square().sum(-1, keepdim=True) * z

    surrogate = Surrogate.load(FORMAT_1 / "codes")
    linear = surrogate.field.linear
    surrogate.field = VectorField(linear.state_size, [linear, Damping(linear.state_size)]).double()
    surrogate.save(tmp_path)
    asked = EXPECTED["codes"]
    for key, value in answers(Surrogate.load(tmp_path), asked).items():
        np.testing.assert_array_equal(value, answers(surrogate, asked)[key])
        assert np.isfinite(value).all()
    base.TERMS.pop("damping")
    with pytest.raises(UserError, match="a term 'damping', which is not registered; import the module"):
        Surrogate.load(tmp_path)
    with pytest.raises(UserError, match="Damping is not registered"):
        surrogate.save(tmp_path)


def test_surrogates_and_solutions_are_written_in_a_line(tmp_path):
    surrogate = Surrogate.load(FORMAT_1 / "codes")
    asked = EXPECTED["codes"]["observations"]
    solution = surrogate.assimilate(inrflow.Observations(*(np.array(asked[name]) for name in "txu")))
    for value in (surrogate, solution):
        assert len(repr(value)) < 200 and "\n" not in repr(value) and "wave" in repr(value)


@pytest.mark.parametrize(("change", "message"), [
    (lambda state, metadata: metadata["field"].update(state_size=1e30), "wave has the sizes code 12, state 1e.30"),
    (lambda state, metadata: metadata["field"].update(context_size=-1), "context -1"),
    (lambda state, metadata: metadata.update(training={"rate": float("nan")}), "training.rate holds nan"),
    (lambda state, metadata: state["prior"].update(spread=torch.full((2,), 1e160, dtype=torch.float64)),
     "answers .* (std|with std)"),
    (lambda state, metadata: state["normalisation"].update(least=torch.full((2,), float("inf"))), "with quantiles"),
    (lambda state, metadata: metadata["description"].update(period=[-1.0, 0.0]), "model.safetensors: period is"),
    (lambda state, metadata: state["decoder"].update(output_map=state["decoder"]["output_map"][:1]), "damaged"),
])
def test_parts_that_do_not_fit_each_other_are_refused_with_the_file(tmp_path, change, message):
    with pytest.raises(UserError, match=message) as caught:
        Surrogate.load(changed(tmp_path, change))
    assert str(tmp_path / MODEL_FILE) in str(caught.value) and "\n" not in str(caught.value)
