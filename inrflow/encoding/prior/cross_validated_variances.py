"""Variances of codes estimated on held-out frames (cross-validated eigenvalues).

Eigenvalues of a sample covariance are biased: the leading ones are too large, the trailing ones too small, by orders of
magnitude where frames are few and alike (Ledoit and Wolf 2004). A prior with such variances encodes sparse frames worse
and makes intervals too narrow. Variances along the same directions in frames that the modes were not fitted to have no
such bias (Bartz 2016, "Cross-validation based nonlinear shrinkage").
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inrflow.encoding.posterior import GaussianPrior, condition
from inrflow.encoding.prior.expectation_maximisation import NOISE_FLOOR
from inrflow.encoding.prior.modes import OutputModes

_DETERMINED = 1.2  # observed values per code, from which on MacKay's fixed point is used for the noise


def refit_variances(
    modes: OutputModes,
    features: Callable[[Tensor], Tensor],
    groups: Sequence[tuple[Tensor, Tensor]],
    iterations: int = 3,
) -> OutputModes:
    """The same modes with variances and noise of other frames, by expectation maximisation; ordered by variance.

    Args:
        modes: as fitted.
        features: map of points (N, d) to features (N, F).
        groups: frames that the modes were not fitted to, grouped by shared points, each x (N, d) and u (frames, N, C)
            with NaN = not observed. Without any the modes are returned unchanged.
    """
    groups = [(x, u[torch.isfinite(u).flatten(1).any(1)]) for x, u in groups]
    groups = [(x, u) for x, u in groups if len(u)]
    if not groups:
        return modes
    variances, noise = modes.variances.double(), modes.noise.double()
    for _ in range(iterations):
        prior = GaussianPrior(torch.zeros_like(variances), torch.diag(variances), noise)
        second, count = torch.zeros_like(variances), 0
        residual, leverage, values = torch.zeros(3, len(noise), dtype=torch.float64)
        for x, u in groups:
            psi = features(x).double()
            offset = psi @ modes.mean.double().T
            basis = torch.einsum("nf,zcf->ncz", psi, modes.modes.double())
            codes, spread = condition(offset, basis, u, prior, covariance=True)
            assert spread is not None
            second += codes.square().sum(0) + spread.diagonal(dim1=-2, dim2=-1).expand(len(u), -1).sum(0)
            error = u.double() - offset - torch.einsum("ncz,fz->fnc", basis, codes)
            finite = torch.isfinite(error)
            average = spread if spread.dim() == 2 else spread.mean(0)
            uncertainty = torch.einsum("ncz,ncz->nc", basis @ average, basis)
            residual += error.square().where(finite, 0.0).sum((0, 1))
            leverage += uncertainty.expand_as(error).where(finite, 0.0).sum((0, 1)) / noise
            values += finite.sum((0, 1))
            count += len(u)
        variances = second / count
        if float(values.sum()) > _DETERMINED * count * len(variances):  # MacKay's fixed point, as in `maximise`
            estimate = residual / (values - leverage).clamp(min=1)
        else:
            estimate = (residual + leverage * noise) / values.clamp(min=1)
        noise = torch.where(values > 0, estimate, noise).clamp(min=NOISE_FLOOR)
    order = variances.argsort(descending=True)
    return OutputModes(modes.mean, modes.modes[order], variances[order], noise)
