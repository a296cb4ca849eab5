"""Choices between dynamics, on codes that are made up."""

import re
from types import SimpleNamespace

import torch

from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.dynamics.states import CodeData
from inrflow.encoding.prior.modes import OutputModes
from inrflow.training.parts.decoder import FittedDecoder
from inrflow.training.recipes.reduced_order import choose_closure

MODES, SIZE = 170, 140  # more codes than the modes that a closure follows by itself


def test_a_closure_is_tried_for_however_many_codes():
    random = torch.Generator().manual_seed(0)
    embedding = make_embedding([0.0], [1.0], (1.0,), None, 2, 90)
    decoder = HarmonicDecoder(embedding, 1)
    vectors = torch.eye(decoder.features_size)[:MODES, None, :].double()
    variances = 0.9 ** torch.arange(MODES).double()
    mean, noise = torch.zeros(1, decoder.features_size).double(), torch.tensor([1e-6]).double()
    modes = OutputModes(mean, vectors, variances, noise)
    codes = torch.randn(6, 8, MODES, generator=random, dtype=torch.float64) * variances.sqrt()
    codes[..., SIZE] = 0.1 * (codes[..., 0] ** 2 - 1)  # what a function of the leading codes may say
    data = CodeData(codes, torch.arange(8.0).expand(6, -1), torch.ones(6, 8, dtype=torch.bool))
    said: list[str] = []
    run = SimpleNamespace(
        problem=SimpleNamespace(device=torch.device("cpu")), config=SimpleNamespace(seed=0),
        log=SimpleNamespace(say=said.append),
    )
    closed, prior = choose_closure(run, FittedDecoder(decoder, modes, None), SIZE, data)
    without, with_it = (float(word) for word in re.findall(r"\d\.\d+e-\d+", said[0]))
    assert (prior is not None) == (with_it < 0.65 * without)
    if prior is None:
        assert closed is decoder
    else:
        assert closed.code_size == SIZE and len(prior.mean) == SIZE
