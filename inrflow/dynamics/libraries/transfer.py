"""Product transfer: the quadratic terms of a known physics, seen by another through linear maps of its waves.

The new physics has coefficients U, the known one V. With maps E and D of each wave, V_k = E_k U_k, and the rate of U_k
is b_k + A_k U_k + D_k [products of V]_k. Products are taken over; E, D (a velocity from a vorticity, say, and back) and
the linear part are fitted: a few numbers a wave instead of one for every product, which a trajectory or two determine.
Given E, the others are linear least squares; E is found by Levenberg-Marquardt with those projected out, on few waves
first, from several random starts, then on more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from inrflow.dynamics.libraries.spectral import Block, SpectralFit, SpectralForm
from inrflow.dynamics.libraries.waves import SpectralOperator, Waves
from inrflow.dynamics.states import CodeData
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels
from inrflow.numerics.levenberg_marquardt import Linearisation, damped_descent

Source = Callable[[HarmonicLabels], tuple[Waves, SpectralOperator]]  # the known physics on the waves of some labels

_STARTS, _FOLLOWED, _FIRST_STEPS, _STEPS = 48, 3, 15, 8
_CORRECTIONS, _LAST_CORRECTIONS = 1, 3
_RIDGE, _DAMPING, _SETTLED = 1e-8, 1e-2, 0.999
_SLOPES = 1e7  # derivatives of what products of waves drive that are kept at once
_QUIET = 1e-3  # coefficients below this share of the largest count as that large


class ProductTransfer:
    """Maps E (Cs, C, H) of each wave from C channels to the Cs of a known physics, on the transitions of a fit.

    Args:
        fit: of the new physics.
        latent, source: the known physics on the same waves.
    """

    def __init__(self, fit: SpectralFit, latent: Waves, source: SpectralOperator) -> None:
        self.fit, self.waves, self.sources = fit, fit.waves, latent.channels
        waves, full = fit.waves, 2 * fit.waves.count - 1
        self.left, self.right = (waves.left // full, waves.left % full), (waves.right // full, waves.right % full)
        self.weights = self._weights(latent, source.products)
        seen = waves.coefficients(fit.seen)[..., : waves.count]
        size = seen.abs().square().mean(0).sqrt()
        self.size = size.clamp(min=_QUIET * float(size.max()))  # (C, H)

    def _weights(self, latent: Waves, products: Tensor) -> Tensor:
        """(Cs, Cs, Cs, M): of the known physics, for out, left and right channels at each product of the new one."""
        full = 2 * self.waves.count - 1
        base = self.sources * full
        keys = (latent.out * base + latent.left) * base + latent.right
        order = keys.argsort()
        channel_left, i = self.left
        channel_right, j = self.right
        weights = products.new_zeros(self.sources, self.sources, self.sources, len(i))
        for a in range(self.sources):
            for b in range(self.sources):
                one, other = a * full + i, b * full + j
                key = (self.waves.out * base + torch.minimum(one, other)) * base + torch.maximum(one, other)
                place = order[torch.searchsorted(keys[order], key).clamp(max=len(keys) - 1)]
                weight = torch.where(keys[place] == key, products[:, place], 0.0)
                if a != b:
                    weight = torch.where(i == j, weight / 2, weight)
                weights[:, a, b] = torch.where((i == j) & (channel_left != channel_right), 2 * weight, weight)
        return weights

    def start(self, seed: int) -> Tensor:
        """Maps that are smooth in the wavenumber, so that waves agree in phase (from random phases the search ends in
        local minima): random combinations of 1 and i k / |k|, of the latter alone where the seed is even."""
        random = torch.Generator().manual_seed(seed)
        k = self.waves.vectors.double()
        directions = 1j * k.T / k.norm(dim=1).clamp(min=1)
        symbols = torch.cat([torch.ones(1, len(k)).to(directions), directions])
        parts = torch.randn(self.sources, self.waves.channels, len(symbols), generator=random, dtype=torch.float64)
        if seed % 2 == 0:
            parts[..., 0] = 0
        shell = torch.unique(k.square().sum(1), return_inverse=True)[1]
        mean = torch.stack([self.size[:, shell == one].mean(1) for one in range(int(shell.max()) + 1)], 1)[:, shell]
        return 0.3 * (parts.to(symbols) @ symbols) / mean

    def products(self, maps: Tensor) -> Tensor:
        """Weights (Cs, M) of the new physics' products in each channel of the known one."""
        left, right = self._factors(maps)
        return torch.einsum("cabm,am,bm->cm", self.weights, left, right)

    def _factors(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        every = torch.cat([maps, maps[..., 1:].conj()], -1)
        return every[:, self.left[0], self.left[1]], every[:, self.right[0], self.right[1]]

    # ---- what is linear, given the maps ----

    def design(self, maps: Tensor, block: Block) -> Tensor:
        """(H, B, 1 + C + Cs) integrals of the constant, the coefficients, and the products that reach each wave."""
        step, linear, products = block[:3]
        zero = torch.zeros(len(step), self.waves.count, dtype=torch.complex128)
        driven = [zero.index_add(1, self.waves.out, products * w) for w in self.products(maps)]
        own = list(linear[..., : self.waves.count].unbind(1))
        return torch.stack([step.to(torch.complex128).expand_as(zero), *own, *driven], -1).transpose(0, 1)

    def solve(self, maps: Tensor, block: Block) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients (H, F, C) of the design, what they leave (H, B, C), and the design itself, of unit columns."""
        design, target = self.design(maps, block), block.change.permute(2, 0, 1)
        unit = design.abs().square().sum(1, keepdim=True).sqrt().clamp(min=1e-300)
        design = design / unit
        gram = design.mH @ design + _RIDGE * torch.eye(design.shape[-1])
        solution = torch.linalg.solve(gram, design.mH @ target)
        return solution / unit.mT, target - design @ solution, design

    def operator(self, maps: Tensor, block: Block) -> SpectralOperator:
        """The operator with these maps."""
        channels = self.waves.channels
        solution = self.solve(maps, block)[0]
        back = solution[:, 1 + channels :].permute(2, 1, 0)[..., self.waves.out]
        return SpectralOperator(
            solution[:, 0].T.contiguous(), solution[:, 1 : 1 + channels].mT.contiguous(),
            (back * self.products(maps)).sum(1),
        )

    # ---- the maps ----

    def improve(self, maps: Tensor, block: Block, steps: int) -> tuple[Tensor, float]:
        """Maps after some steps of Levenberg and Marquardt, and the share of the changes that they leave."""
        block = block._replace(products=block.products.to(torch.complex128))
        total = float(block.change.abs().square().sum())
        outcome = self.solve(maps, block)

        def share_left(maps: Tensor) -> float:
            nonlocal outcome
            outcome = self.solve(maps, block)
            return float(outcome[1].abs().square().sum()) / total

        def linearise(maps: Tensor, _: bool) -> Linearisation[Tensor]:
            hessian, gradient = self._normal_equations(maps, block, *outcome)
            diagonal = hessian.diagonal().clamp(min=1e-12 * float(hessian.diagonal().max()))

            def propose(damping: float) -> Tensor:
                move = torch.linalg.solve(hessian + torch.diag(damping * diagonal), gradient)
                return maps + torch.complex(*move.unflatten(0, (2, *maps.shape)))

            return Linearisation(float(outcome[1].abs().square().sum()) / total, propose)

        maps, _ = damped_descent(
            maps, linearise, share_left, steps=steps, tries=4, damping=_DAMPING, lowered=0.2, raised=8.0, least=1e-9,
            settled=_SETTLED,
        )
        return maps, share_left(maps)

    def _normal_equations(
        self, maps: Tensor, block: Block, solution: Tensor, left: Tensor, design: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Hessian and gradient of real and imaginary parts of the maps, the linear unknowns projected out."""
        waves, products = self.waves, block.products.to(torch.complex64)  # single precision directs steps well
        channels, count, full = waves.channels, waves.count, 2 * waves.count - 1
        back = solution[:, 1 + channels :].permute(2, 1, 0)[..., waves.out]  # (C, Cs, M)
        one, other = self._factors(maps)
        size = self.sources * channels * count
        hessian, gradient = torch.zeros(2 * size, 2 * size), torch.zeros(2 * size, dtype=torch.float64)
        basis = torch.linalg.qr(design)[0].to(torch.complex64)  # (H, B, F)
        for channel in range(channels):
            weights = torch.einsum("cm,cabm->abm", back[channel], self.weights)
            slopes = torch.zeros(len(products), count * self.sources * channels * full, dtype=torch.complex64)
            for factors, (own, wave) in (
                (torch.einsum("abm,bm->am", weights, other), self.left),
                (torch.einsum("abm,am->bm", weights, one), self.right),
            ):
                for a, factor in enumerate(factors):
                    place = ((waves.out * self.sources + a) * channels + own) * full + wave
                    slopes.index_add_(1, place, products * factor.to(torch.complex64))
            slopes = slopes.unflatten(1, (count, self.sources * channels, full)).transpose(0, 1)
            positive, negative = slopes[..., :count], torch.nn.functional.pad(slopes[..., count:], (1, 0))
            imaginary = 1j * (positive - negative)
            imaginary[..., 0] = 0  # the constant of a real field is real
            moves = torch.cat([(positive + negative).flatten(2), imaginary.flatten(2)], -1)  # (H, B, 2 size)
            moves = moves - basis @ (basis.mH @ moves)
            real = torch.view_as_real(moves.transpose(1, 2)).flatten(2)  # (H, 2 size, 2 B)
            missed = torch.view_as_real(left[..., channel].contiguous()).flatten(1)
            for own_moves, own_missed in zip(real, missed, strict=True):
                hessian.addmm_(own_moves, own_moves.T)
                gradient.addmv_(own_moves.double(), own_missed)
        return hessian.double(), gradient


def _leading(candidates: list[Tensor], transfer: ProductTransfer, block: Block) -> Tensor:
    """The maps that leave least once integrals are taken along their own flow."""
    refined = []
    for maps in candidates:
        along = transfer.fit.gathered(transfer.operator(maps, block))
        if bool(torch.isfinite(torch.view_as_real(along[3])).all()):
            refined.append(transfer.improve(maps, along, _FIRST_STEPS))
    return min(refined, key=lambda pair: pair[1])[0] if refined else candidates[0]


def transferred_form(
    states: CodeData, labels: HarmonicLabels, sizes: list[int], source: Source, validation: CodeData, first: int
) -> SpectralForm | None:
    """The best operator on rising `sizes` by rollouts of `validation` codes from frame `first`.

    None where every one diverges. The form's prior is the operator itself.
    """
    maps: Tensor | None = None
    best: SpectralForm | None = None
    for size in sizes:
        own = Waves(labels.first(size))
        latent, operator = source(labels.first(size))
        slopes = len(own.vectors) ** 2 * 2 * own.channels * latent.channels
        fit = SpectralFit(states, own.labels, waves=own, transitions=_SLOPES / slopes)
        transfer = ProductTransfer(fit, latent, operator)
        block = fit.gathered(None)
        if maps is None:
            tried = [transfer.improve(transfer.start(seed), block, _FIRST_STEPS) for seed in range(_STARTS)]
            tried.sort(key=lambda pair: pair[1])
            maps = _leading([one for one, _ in tried[:_FOLLOWED]], transfer, block)
        else:
            maps = torch.nn.functional.pad(maps, (0, fit.waves.count - maps.shape[-1]))
            maps = transfer.improve(maps, block, _STEPS)[0]
        operator = transfer.operator(maps, block)
        for _ in range(_LAST_CORRECTIONS if size == sizes[-1] else _CORRECTIONS):
            block = fit.gathered(operator)
            if not bool(torch.isfinite(torch.view_as_real(block.change)).all()):
                return best
            maps = transfer.improve(maps, block, _STEPS)[0]
            operator = transfer.operator(maps, block)
        form = SpectralForm(fit.waves, operator, operator, (), fit.rollout_error(operator, validation, first))
        if math.isfinite(form.score) and (best is None or form.score < best.score):
            best = form
    return best
