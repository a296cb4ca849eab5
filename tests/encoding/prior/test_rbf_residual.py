"""What features leave at fixed points, taken up by functions around them; noise is told from structure."""

import torch

from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.decoders.rbf_features import RadialFeatures
from inrflow.encoding.prior.rbf_residual import errors_between_points, known_at, with_radial_features

INNER = Embedding([0, 0], [1, 1])


def scene(noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points, features that are too few, and frames of a smooth field there."""
    random = torch.Generator().manual_seed(0)
    x = torch.rand(200, 2, generator=random, dtype=torch.float64)
    features = torch.stack([torch.ones(200), x[:, 0], x[:, 1]], -1)
    t = torch.linspace(0, 6, 12, dtype=torch.float64)
    u = torch.stack([torch.sin(4 * x[:, 0] + t[:, None]), torch.cos(4 * x[:, 1] - t[:, None])], -1)
    return x, features, u + noise * torch.randn(u.shape, generator=random, dtype=torch.float64)


def left(features: torch.Tensor, u: torch.Tensor) -> float:
    columns = u.movedim(1, 0).flatten(1)
    missed = columns - features @ torch.linalg.lstsq(features, columns).solution
    return float(missed.square().mean() / columns.square().mean())


def test_features_and_functions_together_leave_nothing_at_the_points():
    x, features, u = scene()
    functions = with_radial_features(INNER, x, features, u)
    assert functions is not None and functions.harmonics == 4  # the field has four patterns: sin and cos of each
    together = torch.cat([features, functions.evaluate_harmonics(x)], -1)
    assert left(features, u) > 1e-2 and left(together, u) < 1e-8


def test_frames_that_miss_values_are_left_out_and_without_any_other_there_are_no_functions():
    x, features, u = scene()
    u[3, 5] = torch.nan
    functions = with_radial_features(INNER, x, features, u)
    assert functions is not None and bool(torch.isfinite(functions.weights).all())
    u[:, 5] = torch.nan
    assert with_radial_features(INNER, x, features, u) is None


def test_nothing_is_added_where_nothing_is_left():
    x, features, u = scene()
    u = torch.einsum("np,fpc->fnc", features, torch.ones(4, 3, 2, dtype=torch.float64))
    assert with_radial_features(INNER, x, features, u) is None


def test_structure_helps_at_points_left_out_and_noise_does_harm():
    held = torch.arange(0, 200, 10)
    for noise, helps in ((0.0, True), (0.5, False)):
        x, features, u = scene(noise)
        if not helps:  # all of the structure is known
            u = u - scene()[2]
        missed, mended = errors_between_points(INNER, x, features, u, held)
        assert (mended < missed) == helps


def test_a_decoder_that_knows_some_points_alone_says_nothing_of_the_values_at_others():
    x, _, u = scene()
    hidden = torch.arange(200) % 3 == 0
    decoded = []
    for change in (0.0, 5.0):
        values = u[:3].flatten(2).movedim(1, 0).flatten(1).clone()  # (200, 3 frames of 2 channels)
        values[hidden] += change
        decoder = HarmonicDecoder(RadialFeatures.through(INNER, x, values), 2, 3).double()
        kept = known_at(decoder, x[~hidden])
        codes = torch.eye(3, dtype=torch.float64)[None]
        torch.testing.assert_close(kept(x[None, None, ~hidden], codes), decoder(x[None, None, ~hidden], codes),
                                   atol=1e-4, rtol=1e-4)
        decoder.set_output(*(torch.ones_like(part) for part in (decoder.output, decoder.output_map)))
        decoded.append(known_at(decoder, x[~hidden])(x[None, None, hidden], codes))
    torch.testing.assert_close(*decoded, atol=5e-3, rtol=0)  # of 5: functions through points have a nugget
