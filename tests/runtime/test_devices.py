"""Training, encoding, assimilation and queries with decoder and field on a device other than that of the data: nothing
meets a tensor of the other device, and the numbers are those of the CPU."""

import copy

import numpy as np
import pytest
import torch
from pretended_device import AWAY, Pretended, PretendedDevice, take_there

from inrflow.adaptation.further import adapt_further
from inrflow.data.batch import TimeScale
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.source import TrajectorySource
from inrflow.data.transformations import Augmentation
from inrflow.decoders.base import choose_device
from inrflow.decoders.embeddings import Embedding, PeriodicEmbedding
from inrflow.decoders.filter_net import FourierFilterNet
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.encode import CodeData, Encoder, encode_with_covariance
from inrflow.encoding.posterior import GaussianPrior
from inrflow.errors import UserError
from inrflow.model.contexts import Contexts
from inrflow.model.state_prior import StatePrior
from inrflow.model.surrogate import Surrogate
from inrflow.training.judge import rollout_error
from inrflow.training.parts.rollouts import RolloutTraining
from inrflow.training.parts.trunk import DecoderTraining
from inrflow.training.recipes.auto_decoding import AutoDecoderTraining

WAVES = Description("waves", ("u", "v"), ("x",), period=(1.0,))
ROWS = np.arange(3)


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    """Kernels for a device that is not there are not asked for."""
    monkeypatch.setattr("inrflow_kernels.dispatch._triton_reason", lambda arguments: "the device is pretended")


@pytest.fixture
def source(tmp_path) -> TrajectorySource:
    random = np.random.default_rng(0)
    t, x = np.arange(5) * 0.2, random.random((30, 1))
    u = random.normal(size=(3, 1, 1, 2)) * np.sin(2 * np.pi * (x - t[:, None, None]) + np.array([0.0, 1.0]))
    u[1, 2, ::3] = np.nan
    write_trajectories(tmp_path / "waves.h5", t, x, u.astype(np.float32), WAVES)
    source = TrajectorySource(TrajectoryFile(tmp_path / "waves.h5"))
    source.fit_normalisation(ROWS)
    return source


def siren(*modulation: str, harmonics: int = 1) -> ModulatedSiren:
    torch.manual_seed(0)
    embedding = PeriodicEmbedding([0.0], [1.0], [1.0], 2, harmonics)
    return ModulatedSiren(embedding, 2, 4, width=16, w0=2.0, modulation=modulation)


def filter_net() -> FourierFilterNet:
    torch.manual_seed(0)
    return FourierFilterNet(Embedding([0.0], [1.0]), 2, 4, width=16, scale=16.0)


def vector_field() -> VectorField:
    torch.manual_seed(0)
    return VectorField.of(4, depth=1, width=8, forcing_period=1.0, forcing_harmonics=1)


def prior() -> GaussianPrior:
    return GaussianPrior(torch.zeros(4).double(), torch.eye(4).double(), torch.full((2,), 1e-3).double())


def codes() -> CodeData:
    random = torch.Generator().manual_seed(0)
    observed = torch.ones(3, 5, dtype=torch.bool)
    t = torch.arange(5).double().expand(3, 5) * 0.1
    return CodeData(torch.randn(3, 5, 4, generator=random).double(), t, observed)


def on_both(module, work):
    """Results of the work with the module on the CPU and on the pretended device, both on the CPU."""
    there = take_there(copy.deepcopy(module))
    here = work(module)
    with PretendedDevice():
        return here, work(there)


def gradients(module, loss) -> list[torch.Tensor]:
    value = loss(module, 1, 10, np.random.default_rng(0))
    value.backward()
    found = [value.detach(), *(p.grad for p in module.parameters() if p.grad is not None)]
    home = next(module.parameters()).device
    assert all(tensor.device == home for tensor in found)
    return [tensor.inner if isinstance(tensor, Pretended) else tensor for tensor in found]


def same(here, there) -> None:
    assert not isinstance(there, Pretended)
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-6)


def test_what_is_pretended_refuses_to_meet_the_cpu():
    with PretendedDevice():
        there = torch.ones(3).to(AWAY)
        assert there.device == AWAY and (there + 1).device == AWAY and (there + 1).cpu().sum() == 6
        assert torch.zeros(2, device=AWAY).device == AWAY
        with pytest.raises(RuntimeError, match="two devices"):
            there + torch.ones(3)


def test_losses_of_the_decoder_stage(source):
    augmentation = Augmentation(WAVES.symmetries, np.ones(1), (1.0,))
    training = DecoderTraining(source, ROWS, ROWS[:1], augmentation)
    for here, there in zip(*on_both(siren("output"), lambda d: gradients(d, training.loss)), strict=True):
        same(here, there)
    here, there = on_both(siren("output"), training.score)
    assert there == pytest.approx(here, rel=1e-4)
    here, there = on_both(siren("output").double(), lambda d: training.fit_modes(d, 6, iterations=2).variances)
    same(here, there)


@pytest.mark.parametrize("method", ["adam", "gauss_newton", "gradient_steps"])
def test_losses_of_table_training(method, source):
    training = AutoDecoderTraining(source, ROWS, ROWS[:1])
    module = training.make(siren("shift", "scale"), method)
    for here, there in zip(*on_both(module, lambda m: gradients(m, training.loss)), strict=True):
        same(here, there)
    here, there = on_both(module, training.score)
    assert there == pytest.approx(here, rel=1e-3)
    same(*(p.mean for p in on_both(module, training.prior)))


def test_losses_of_rollouts():
    integrator, states = Integrator("rk4", 0.1), codes()
    training = RolloutTraining(states, integrator, 4)
    for here, there in zip(*on_both(vector_field(), lambda f: gradients(f, training.loss)), strict=True):
        same(here, there)
    here, there = on_both(vector_field(), lambda f: rollout_error(f, integrator, states, states, 0, 4))
    assert there == pytest.approx(here, rel=1e-4)


@pytest.mark.parametrize("method", ["solve", "adam", "gradient_steps"])
@pytest.mark.parametrize("make", [lambda: siren("output"), lambda: siren("shift", "output"), filter_net])
def test_encoding(make, method, source):
    batch = source.batch(ROWS)
    encoder = Encoder(method, 3, 1e-2) if method != "solve" else Encoder()
    here, there = on_both(make(), lambda d: encode_with_covariance(d, batch, prior(), True, encoder))
    torch.testing.assert_close(there[0], here[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(there[1], here[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: siren("output"), lambda: siren("shift", "scale"), filter_net])
def test_decoders_answer_where_the_points_are(make):
    x, z = torch.rand(6, 1), torch.randn(3, 4)

    def everything(decoder):
        with torch.no_grad():
            return decoder(x, z), *decoder.linearise(x, z), decoder.slopes(x, z)

    for here, there in zip(*on_both(make(), everything), strict=True):
        same(here, there)


def test_adaptation_of_context_decoder_and_field(source, monkeypatch):
    monkeypatch.setattr("inrflow.adaptation.further.PULLS", (1e-2, 1.0))
    batch = source.batch(ROWS, normalised=False)
    torch.manual_seed(1)
    field = VectorField.of(4, context_size=1).double()
    generator = 0.3 * torch.randn(2, 4, 4)
    field.set_linear(generator[0], torch.zeros(4))
    field.linear.set_context(generator[1:], torch.zeros(1, 4))
    whole = StatePrior(
        torch.zeros(5).double(), torch.eye(5).double(), torch.full((2,), 1e-3).double(),
        torch.full((5,), 1e-4).double(), torch.ones(2).double(),
    )
    contexts = Contexts("environment", torch.tensor([[-1.0], [1.0]]).double(), torch.arange(2))

    def adapted(decoder):
        surrogate = Surrogate(WAVES, source.normalisation, decoder, field, Integrator("rk4", 0.5), whole,
                              TimeScale(0.0, 0.2), np.array([[0.0], [1.0]]), 0.8, {}, contexts=contexts)
        result = adapt_further(surrogate, [batch], True)[0]
        output = result.surrogate.decoder.output
        assert output.device == decoder.output.device
        return result.estimate.mean, output.detach().cpu().double(), result.surrogate.field.linear.matrix.detach()

    for here, there in zip(*on_both(siren("output"), adapted), strict=True):
        same(here, there)


def test_a_model_is_loaded_onto_a_device_that_exists(tiny_run, monkeypatch):
    assert next(Surrogate.load(tiny_run.run, "cpu").decoder.parameters()).device.type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="no CUDA device"):
        Surrogate.load(tiny_run.run, "cuda")
    with pytest.raises(UserError, match="abacus"):
        choose_device("abacus")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == choose_device("cuda").type == "cuda"


def test_one_of_several_cuda_devices_is_chosen_by_its_number(monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert choose_device("cuda:1") == torch.device("cuda", 1) and current == [1]
    with pytest.raises(UserError, match="device=cuda:2, but torch finds the CUDA devices 0 to 1"):
        choose_device("cuda:2")
    for name in ("cuda:", "cuda:-1", "cuda:x", "cuda:1:2"):
        with pytest.raises(UserError, match="choose auto, cpu, cuda or cuda:N"):
            choose_device(name)
