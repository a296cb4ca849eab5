"""Functions through the components of frames at fixed points; noise is told from structure."""

import torch

from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.decoders.rbf_features import RadialFeatures
from inrflow.encoding.prior.rbf_residual import error_between_points, principal_functions, restricted_to_points

INNER = Embedding([0, 0], [1, 1])


def scene(noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points, and frames of a smooth field there, of four patterns: sine and cosine of each channel."""
    random = torch.Generator().manual_seed(0)
    x = torch.rand(200, 2, generator=random, dtype=torch.float64)
    t = torch.linspace(0, 6, 12, dtype=torch.float64)
    u = torch.stack([torch.sin(4 * x[:, 0] + t[:, None]), torch.cos(4 * x[:, 1] - t[:, None])], -1)
    return x, u + noise * torch.randn(u.shape, generator=random, dtype=torch.float64)


def test_functions_and_a_constant_leave_nothing_at_the_points():
    x, u = scene()
    functions = principal_functions(INNER, x, u, 192)
    assert functions is not None and functions.harmonics == 4
    features = torch.cat([torch.ones(200, 1).double(), functions.evaluate_harmonics(x)], -1)
    columns = u.movedim(1, 0).flatten(1)
    missed = columns - features @ torch.linalg.lstsq(features, columns).solution
    assert float(missed.square().mean() / columns.square().mean()) < 1e-8
    few = principal_functions(INNER, x, u, 3)
    assert few is not None and few.harmonics == 3


def test_frames_that_miss_values_are_left_out_and_without_any_other_there_are_no_functions():
    x, u = scene()
    u[3, 5] = torch.nan
    functions = principal_functions(INNER, x, u, 192)
    assert functions is not None and bool(torch.isfinite(functions.weights).all())
    u[:, 5] = torch.nan
    assert principal_functions(INNER, x, u, 192) is None


def test_constant_frames_have_no_functions():
    x, u = scene()
    assert principal_functions(INNER, x, u[:, :1].expand_as(u), 192) is None


def test_structure_is_met_at_points_left_out_and_noise_is_not():
    held = torch.arange(0, 200, 10)
    x, u = scene()
    noise = scene(0.5)[1] - u
    assert error_between_points(INNER, x, u, held) < 0.02 * float(u.square().mean())
    assert error_between_points(INNER, x, noise, held) > float(noise.square().mean())


def test_a_decoder_that_knows_some_points_alone_says_nothing_of_the_values_at_others():
    x, u = scene()
    hidden = torch.arange(200) % 3 == 0
    decoded = []
    for change in (0.0, 5.0):
        values = u[:3].flatten(2).movedim(1, 0).flatten(1).clone()  # (200, 3 frames of 2 channels)
        values[hidden] += change
        decoder = HarmonicDecoder(RadialFeatures.through(INNER, x, values), 2, 3).double()
        kept = restricted_to_points(decoder, x[~hidden])
        codes = torch.eye(3, dtype=torch.float64)[None]
        torch.testing.assert_close(kept(x[None, None, ~hidden], codes), decoder(x[None, None, ~hidden], codes),
                                   atol=1e-4, rtol=1e-4)
        decoder.set_output(*(torch.ones_like(part) for part in (decoder.output, decoder.output_map)))
        decoded.append(restricted_to_points(decoder, x[~hidden])(x[None, None, hidden], codes))
    torch.testing.assert_close(*decoded, atol=5e-3, rtol=0)  # of 5: functions through points have a nugget
