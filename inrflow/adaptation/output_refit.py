"""The output layer of an affine decoder refitted to a few frames, with a penalty on its change.

u - D(x; z) = sum_k z~_k W_k psi(x), z~ = [1, z]: linear least squares for a correction W of the output weights. The
penalty has the weight of `pull` times as many frames of pretraining that the present decoder explains exactly. In
coordinates in which those codes and features are white, conjugate gradients need few iterations, even with missing
values."""

from __future__ import annotations

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import AffineDecoder
from inrflow.numerics.conjugate_gradients import conjugate_gradients

_SETTLED, _ITERATIONS = 1e-8, 100  # relative tolerance of the residual, and iterations, of conjugate gradients
_FLOOR = 1e-10  # relative to the largest eigenvalue of the Gram matrix of the features


def refitted_output(
    decoder: AffineDecoder, batches: list[TrajectoryBatch], codes: list[Tensor], variances: Tensor, pull: float
) -> tuple[Tensor, Tensor]:
    """Mean (C, F) and modes (Z, C, F) of the output layer, float64.

    Args:
        batches: normalised values; codes: (S, T, Z) of their frames.
        variances: (Z,) of the codes in pretraining.
        pull: weight of pretraining, in units of the weight of the frames.
    """
    spread = torch.cat([variances.new_ones(1), variances]).double().sqrt()
    width = decoder.features_size
    parts, gram, points = [], torch.zeros(width, width, dtype=torch.float64), 0
    for batch, code in zip(batches, codes, strict=True):
        x, u = batch.groups()
        z = code.double().reshape(*u.shape[:2], -1)
        with torch.no_grad():
            x = x.to(decoder.output.dtype)  # the decoder moves it to its device and returns results on the original one
            features = decoder.features(x).double()
            missed = u.double() - decoder(x[:, None], z.to(x.dtype)).double()
        parts.append((torch.cat([torch.ones_like(z[..., :1]), z], -1) * spread.reciprocal(), features, missed))
        gram = gram + torch.einsum("gnf,gnh->fh", features, features)
        points += features.shape[0] * features.shape[1]
    values, vectors = torch.linalg.eigh(gram / points)
    kept = values > _FLOOR * values[-1]
    whitening = vectors[:, kept] / values[kept].sqrt()
    parts = [(z, features @ whitening, missed) for z, features, missed in parts]
    count = sum(int(torch.isfinite(missed).sum()) for _, _, missed in parts)

    def transposed(values: list[Tensor]) -> Tensor:
        total = torch.zeros(len(spread), decoder.channels, whitening.shape[1], dtype=torch.float64)
        for (z, features, _), value in zip(parts, values, strict=True):
            total = total + torch.einsum("gsk,gscf->kcf", z, torch.einsum("gsnc,gnf->gscf", value, features))
        return total / count

    def normal(flat: Tensor) -> Tensor:
        weights, forward = flat.view(right.shape), []
        for z, features, missed in parts:
            decoded = torch.einsum("gscf,gnf->gsnc", torch.einsum("gsk,kcf->gscf", z, weights), features)
            forward.append(torch.where(torch.isfinite(missed), decoded, 0.0))
        return (transposed(forward) + pull / decoder.channels * weights).flatten()

    right = transposed([missed.nan_to_num(0.0) for _, _, missed in parts])
    correction = conjugate_gradients(normal, right.flatten(), _SETTLED, _ITERATIONS).view(right.shape)
    correction = (correction @ whitening.T) / spread[:, None, None]
    mean, modes = (v.detach().cpu().double() for v in (decoder.output, decoder.output_map))
    return mean + correction[0], modes + correction[1:]
