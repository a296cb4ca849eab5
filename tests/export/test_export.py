"""Exported graphs in onnxruntime, against queries of the same surrogates."""

import json
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_surrogates import UNIT, law, network, seen

from inrflow import Observations, Surrogate
from inrflow.data.batch import Normalisation, TimeScale
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.filter_net import FourierFilterNet
from inrflow.decoders.rbf_features import RadialFeatures
from inrflow.domains import NO_SLIP, Box, Flows, Sphere
from inrflow.domains.flows import Pressure
from inrflow.domains.triangulation import grid_mesh
from inrflow.dynamics.fields.autoregression import AutoregressionTerm
from inrflow.dynamics.fields.step_map import StepMapTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.flow import TRANSPORT, VISCOSITY
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.field import ChannelField, ResidualField
from inrflow.encoding.residual.places import Places
from inrflow.errors import UserError
from inrflow.export.decoding import Decode, DecodeAtPoints, _functions, needs_points
from inrflow.export.graphs import write_graph
from inrflow.export.model import _points as export_points
from inrflow.export.model import export
from inrflow.export.stepping import Forecast, Step
from inrflow.numerics.phases import phases_of
from inrflow.runtime.card import Exported, model_card

TIMES = UNIT * np.arange(4)


@pytest.fixture(autouse=True, scope="module")
def one_registry():
    """The functions of ONNX, a third of a small export, are collected once instead of for every graph."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


def session(folder, name):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("domain", [Box([0.0], [2.0], ["walled"]), Box([0.0, -1.0], [1.0, 1.0], ["periodic", "walled"]),
                                    Sphere()], ids=["walls", "mixed", "sphere"])
@pytest.mark.parametrize("boundary", ["natural", "held", "leaky 1.5"])
def test_harmonics_as_graphs_are_those_of_the_domain(domain, boundary):
    if boundary != "natural" and domain.dimensions == 3:
        pytest.skip("a sphere has no boundary")
    harmonics = domain.harmonics(30, boundary)
    x = np.random.default_rng(0).standard_normal((50, domain.dimensions))
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert np.allclose(_functions(harmonics)(torch.tensor(x)).numpy(), harmonics.values(x), rtol=0, atol=1e-12)


def agree(surrogate, observed, x, folder, step_length):
    """Assert that steps and values in onnxruntime, from the last observed state on, are those of queries at x."""
    solution = surrogate.assimilate(observed)
    time = np.array(solution.observed[1:])
    state = solution.states(torch.tensor(time))[0].numpy()[:, : surrogate.field.state_size]
    step, decode, rate = (session(folder, name) for name in ("step", "decode", "rate"))
    expected = solution.frames(time + TIMES, x)
    for values in expected:
        found = decode.run(None, {"x": x, "z": state[:, : surrogate.code_size]})[0][0]
        assert np.abs(found - values).max() <= 1e-5 * np.abs(expected).max()
        for _ in range(round(UNIT / step_length)):
            last, state = state, step.run(None, {"t": time, "s": state})[0]
            time = time + step_length
    with torch.no_grad():
        slope = surrogate.field(surrogate.scale.internal(torch.tensor(time)), torch.tensor(last)).numpy() / UNIT
    assert np.abs(rate.run(None, {"t": time, "s": last})[0] - slope).max() <= 1e-5 * np.abs(slope).max()


@pytest.mark.parametrize("surrogate", [law(), network()], ids=["law", "network"])
def test_steps_and_values_in_onnxruntime_are_those_of_queries(surrogate, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    written = export(surrogate, tmp_path)
    x = np.random.default_rng(1).random((7, 1))
    agree(surrogate, seen(surrogate), x, tmp_path, written.step)
    frames = seen(surrogate, frames=3).frames()
    noisy = frames.u + 0.05 * np.random.default_rng(2).standard_normal(frames.u.shape)
    agree(surrogate, Observations(frames.t, frames.x, noisy), x, tmp_path, written.step)
    program = torch.export.load(tmp_path / "decode.pt2").module()
    assert program(torch.tensor(x), torch.zeros(1, surrogate.code_size).double()).numpy().shape[:2] == (1, len(x))
    card = (tmp_path / "README.md").read_text()
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(card.split("```python\n")[1].split("```")[0], names)  # the program of the card
    assert names["u"].shape == (1, 5, len(surrogate.description.channels)) and np.isfinite(names["u"]).all()
    assert "step.onnx" in card and "decode.pt2" in card and not (tmp_path / "points.csv").exists()


def test_laws_with_a_constant_are_exported_for_any_number_of_states():
    terms, states = [Term(), Term((((0, VALUE),) * 2,))], torch.linspace(-1, 1, 60).reshape(6, 10).double()
    field = LawField.of(terms, Box([0.0], [1.0], ["walled"]).harmonics(10), torch.tensor([[0.3], [-1.0]]).double())
    t, size = torch.zeros(3).double(), torch.export.Dim("states", min=1)
    with torch.no_grad():
        program = torch.export.export(field, (t, states[:3]), dynamic_shapes=({}, {0: size}), strict=False)
        torch.testing.assert_close(program.module()(t, states), field(t, states))


def law_of(kind):
    """Law of a flow with its pressure, of a channel and the square of another, or of values between bounds."""
    line, u, square = Box([0.0], [1.0], ["walled"]), ((0, VALUE),), Term((((0, VALUE),) * 2,))
    if kind == "pressure":
        flows = Flows(*grid_mesh(*[np.linspace(0, 1, 5)] * 2), np.ones(2)).with_pressure(Pressure(2, 1.0, 0.02, 4))
        return LawTerm(flows, NO_SLIP, 12, [VISCOSITY.state(), TRANSPORT.state()], [[0.02], [-1.0]],
                       values=[[0.0], [1.7]])
    if kind == "square":
        return LawTerm(line, "natural", 8, [Term((u,), 1).state(), square.state()], [[0.01, 0.0], [0.0, 0.0]],
                       values=[[0.0, 0.0], [0.0, 1.0]])
    return LawTerm(line, "natural", 8, [Term((u,)).state(), square.state()], [[1.0], [-1.0]], rests=[[0.0, 0.4, 0.1]])


@pytest.mark.parametrize("kind", ["pressure", "square", "bounds"])
def test_channels_that_follow_from_others_and_bounds_are_those_of_the_integrator_in_exported_steps(kind):
    term = law_of(kind)
    n, size = term.law().size, torch.export.Dim("states", min=1)
    parts = SimpleNamespace(field=VectorField(n, [term]).double().eval(), integrator=Integrator("etd", 0.5),
                            scale=TimeScale(0.0, UNIT))
    step, s = Step(parts, torch.zeros(0)), 0.3 * torch.randn(5, n, generator=torch.Generator().manual_seed(0)).double()
    t, times = torch.zeros(5).double(), torch.tensor([0.0, 1 / step.steps]).double()
    with torch.no_grad():
        program = torch.export.export(step, (t[:3], s[:3]), dynamic_shapes=({0: size}, {0: size}), strict=False)
        torch.testing.assert_close(program.module()(t, s), parts.integrator(parts.field, s, times)[:, 1])


class _Season(torch.nn.Module):
    def forward(self, t):
        return phases_of((t - 318096.123) / 730.3, [12.1], [8])


def test_numbers_in_graphs_have_double_precision(tmp_path):
    pytest.importorskip("onnxruntime")
    t, free = 318096.123 + 1e7 * torch.rand(3, dtype=torch.float64), {"t": ["times"]}
    assert write_graph(tmp_path, "season", _Season(), {"t": t}, "phases", free) < 1e-9


def test_forecasts_of_an_autoregression_are_those_of_queries_at_any_lead(tmp_path):
    pytest.importorskip("onnxruntime")
    term = AutoregressionTerm(3, 2, 1.0, [12.1], [2], delayed=2, leads=4, stays=True, corrected=True).double()
    random = np.random.default_rng(0)
    companion = torch.zeros(5, 5, dtype=torch.float64)
    companion[:3] = torch.tensor(random.uniform(-0.3, 0.3, (3, 5)))
    companion[3:, :2] = torch.eye(2)
    damping, staying = 0.9 ** torch.arange(1.0, 5)[:, None] * torch.tensor([1.0, 0.9, 0.7]), 0.5 ** torch.arange(1.0, 5)
    term.set(companion, torch.eye(3).expand(4, 3, 3), damping, staying, torch.tensor([[-1.0] * 3, [1.0] * 3]),
             torch.tensor(random.uniform(-0.3, 0.3, (4, 2, 4))))
    torch.nn.init.constant_(term.bias, 0.1)
    parts = SimpleNamespace(field=VectorField(9, [term]).double().eval(), scale=TimeScale(318096.1, 730.3),
                            extent=SimpleNamespace(reach=50 * 730.3))
    t = 318096.1 + 730.3 * torch.tensor([0.0, 3.0, 1e4], dtype=torch.float64)
    s = torch.cat([term.phases(parts.scale.internal(t)), torch.tensor(random.standard_normal((3, 5)))], 1)
    inputs = {"t": t, "s": s, "ahead": 730.3 * torch.tensor([1.0, 2.4, 30.0], dtype=torch.float64)}
    assert write_graph(tmp_path, "forecast", Forecast(parts), inputs, "later", dict.fromkeys(inputs, ["n"])) < 1e-9
    for lead in (0.0, 1.0, 2.0, 3.4, 5.0, 40.0):
        times = parts.scale.internal(torch.stack([t, t + 730.3 * lead], 1))
        expected = Integrator("map")(parts.field, s, times)[:, 1].detach().numpy()
        given = {"t": t.numpy(), "s": s.numpy(), "ahead": np.full(3, 730.3 * lead)}
        np.testing.assert_allclose(session(tmp_path, "forecast").run(None, given)[0], expected, rtol=0, atol=1e-9)


def test_steps_of_a_map_around_a_seasonal_mean_are_those_of_queries():
    term = StepMapTerm(3, 1.0, 7.0, 1).double()
    step = torch.eye(4).double()
    step[1:, 1:] *= 0.8
    step[1:, 0] = 0.1
    term.set(torch.stack([step, torch.linalg.inv(step)]), torch.zeros(2, 4, 4), torch.rand(3, 3))
    parts = SimpleNamespace(field=VectorField(3, [term]).double().eval(), scale=TimeScale(2.0, UNIT),
                            integrator=Integrator("map"))
    t, s = 2.0 + UNIT * torch.tensor([0.0, 2.0, 5.0]).double(), torch.randn(3, 3).double()
    times = parts.scale.internal(torch.stack([t, t + UNIT], 1))
    torch.testing.assert_close(Step(parts, torch.zeros(0))(t, s), parts.integrator(parts.field, s, times)[:, 1])


def test_on_a_mesh_values_are_exported_at_its_nodes():
    surrogate = law("mesh")
    assert needs_points(surrogate.decoder) and not needs_points(law().decoder)
    nodes = surrogate.decoder.place.nodes
    z = torch.randn(3, surrogate.code_size, dtype=torch.float64)
    with torch.no_grad():
        expected = surrogate.decoder(torch.tensor(nodes), z).double() * 2 + 0.5
    assert torch.allclose(DecodeAtPoints(surrogate, nodes)(z), expected, atol=1e-6)
    with pytest.raises(UserError, match="finite ones"):
        export_points(surrogate, np.array([[np.nan, 0.0]]), [])


def test_a_gaussian_process_that_is_not_exported_is_named_with_its_size(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("inrflow.export.model.write_graph", lambda *_: 0.0)
    surrogate = law()
    dimensions, channels = len(surrogate.description.coordinates), len(surrogate.description.channels)
    form = Form((1.5,), 0.5, tuple(range(dimensions)), (False,) * dimensions)
    one = ChannelField(Covariance.of(form, [0.1, 1.0], [2.0, 2.0], 0.05, [[0.3] * dimensions]))
    surrogate.residual = ResidualField(Places((0.0,) * dimensions), (one,) * channels)
    surrogate.prior.noise[:] = 0.04
    told = " ".join(export(surrogate, tmp_path).missing)
    size = 0.2 * float(surrogate.normalisation.scale.ravel()[0])
    assert f"deviation {surrogate.description.channels[0]} {size:.2g})" in told


def test_an_adaptive_integrator_has_no_step():
    surrogate = network()
    surrogate.integrator = Integrator("dopri5")
    with pytest.raises(UserError, match="dopri5"):
        Step(surrogate, torch.zeros(0))


def test_a_model_card_holds_errors_candidates_and_no_markup_of_names():
    surrogate = network()
    object.__setattr__(surrogate.description, "name", "a|b`<script>")
    report = {"nmse": {"in_t": 1e-3, "out_t": 2e-3}, "references": {"persistence": {"nmse": {"in_t": 0.5}}},
              "trajectories": 4, "observed": {"frames": 2}, "coverage_90": 0.91}
    candidates = {"chosen": 1, "candidates": [
        {"recipe": "law", "candidate": "short", "validation_error": 2.0, "unknowns": 3},
        {"recipe": "neural", "candidate": "network", "validation_error": 1.0, "unknowns": None}]}
    card = model_card(surrogate, json.loads(json.dumps(report)), candidates, Exported([], [], False, None))
    assert "| **this model** | 1.00e-03 | 2.00e-03 |" in card and "| persistence | 5.00e-01 | - |" in card
    assert "| neural | network | - | 1.00e+00 | chosen |" in card and "hold 91.0%" in card
    assert "# a/b'(script>" in card and "<script>" not in card


def test_the_command_writes_a_folder_that_can_be_loaded_and_never_a_full_one(tiny_run, tmp_path, inrflow_command):
    pytest.importorskip("onnxruntime")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "decode.pt2").write_text("of an export that was killed")
    done = inrflow_command("export", f"run={tiny_run.run}", f"output={tmp_path / 'out'}")
    assert done.code == 0, done.err
    assert "card" in done.err
    surrogate = Surrogate.load(tmp_path / "out")
    with TrajectoryFile(tiny_run.test) as file:
        first = file.read(0, [0])
    code = surrogate.assimilate(Observations(first.t, first.x, first.u)).states(torch.tensor(first.t))[0].numpy()
    values = session(tmp_path / "out", "decode").run(None, {"x": first.x.astype(float), "z": code})[0][0]
    expected = surrogate.assimilate(Observations(first.t, first.x, first.u))(float(first.t[0]), first.x)
    assert np.abs(values - expected).max() <= 1e-5 * np.abs(expected).max()
    assert "**this model**" in (tmp_path / "out" / "README.md").read_text()
    again = inrflow_command("export", f"run={tiny_run.run}", f"output={tmp_path / 'out'}")
    assert again.code == 2 and "not empty" in again.err


def test_radial_functions_are_exported_for_any_number_of_points():
    x = torch.rand(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    embedding = RadialFeatures.through(make_embedding([0.0, 0.0], [1.0, 1.0], None, None, harmonics=0), x, x.sin())

    class Functions(torch.nn.Module):
        def forward(self, x):
            return embedding.evaluate_harmonics(x)

    points = {"x": {0: torch.export.Dim("points", min=1)}}
    program = torch.export.export(Functions(), (x,), dynamic_shapes=points, strict=False).module()
    for count in (1, 700):
        asked = torch.rand(count, 2, dtype=torch.float64)
        torch.testing.assert_close(program(asked), embedding.evaluate_harmonics(asked))


def test_the_filter_net_of_two_channels_is_exported(tmp_path):
    pytest.importorskip("onnxruntime")
    surrogate = network()
    surrogate.decoder = FourierFilterNet(make_embedding([0.0], [1.0], None, None, harmonics=0), 2, 6, width=8, depth=2)
    surrogate.normalisation = Normalisation(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 3.0]))
    x, z = torch.rand(4, 1).double(), torch.randn(3, 6).double()
    assert write_graph(tmp_path, "decode", Decode(surrogate), {"x": x, "z": z}, "u", {"x": ["points"], "z": ["states"]}
                       ) < 1e-6
    with torch.no_grad():
        expected = surrogate.normalisation.invert(surrogate.decoder(x.float(), z.float()).double())
    found = session(tmp_path, "decode").run(None, {"x": x.numpy(), "z": z.numpy()})[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
