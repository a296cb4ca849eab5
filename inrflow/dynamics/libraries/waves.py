"""Quadratic dynamics of Fourier coefficients that commute with translations: which waves may drive which.

With U_k the coefficients of exp(i k x), a field that commutes with all translations has the form
dU_k/dt = A_k U_k + sum over p + q = k of W_pq U_p U_q: far fewer unknowns than all products. A forcing that depends on
the place adds a constant b_k, the only part that need not commute. This module holds the bookkeeping between real codes
(cosines and sines) and complex coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.fields.quadratic import Couplings
from inrflow.dynamics.fields.sum import VectorField
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels

_ROOT = 2**-0.5


class Waves:
    """The complex coefficients of n real codes and the products that may drive each of them.

    H waves, one of each pair {k, -k} and the constant first; L = 2 H - 1 with their opposites; C channels. Coefficients
    are ordered by channel, then wave.

    Attributes:
        vectors: (H, d) wave vectors, whole multiples of the fundamental ones.
        out: (M,) wave that the product of coefficients left (M,) and right (M,), of C * L, drives; sorted by wave.
        ranges: (first, last) of the products of each wave.
    """

    def __init__(self, labels: HarmonicLabels, products: bool = True) -> None:
        self.labels = labels
        self.channels = int(labels.channel.max()) + 1
        vectors = [tuple(v) for v in labels.waves.tolist()]
        half = list(dict.fromkeys(vectors))
        constant = (0,) * labels.waves.shape[1]
        half.sort(key=lambda v: v != constant)
        place = {v: i for i, v in enumerate(half)}
        self.count = len(half)
        self.vectors = torch.tensor(half, dtype=torch.int64).reshape(len(half), -1)
        self.cosine = torch.full((self.channels, self.count), -1, dtype=torch.int64)
        self.sine = self.cosine.clone()
        for code, (vector, sine, channel) in enumerate(
            zip(vectors, labels.sine.tolist(), labels.channel.tolist(), strict=True)
        ):
            (self.sine if sine else self.cosine)[channel, place[vector]] = code
        negative = [tuple(-c for c in v) for v in half[1:]]
        every = {v: i for i, v in enumerate(half + negative)}
        self._pairs(half, every if products else {})

    def _pairs(self, half: list[tuple[int, ...]], every: dict[tuple[int, ...], int]) -> None:
        full = max(1, len(every))
        out: list[int] = []
        left: list[int] = []
        right: list[int] = []
        self.ranges: list[tuple[int, int]] = []
        for wave, k in enumerate(half):
            first = len(out)
            for p, i in every.items():
                j = every.get(tuple(a - b for a, b in zip(k, p, strict=True)))
                if j is None:
                    continue
                for a in range(self.channels):
                    for b in range(self.channels):
                        if a * full + i <= b * full + j:
                            out.append(wave)
                            left.append(a * full + i)
                            right.append(b * full + j)
            self.ranges.append((first, len(out)))
        self.out, self.left, self.right = (torch.tensor(v, dtype=torch.int64) for v in (out, left, right))

    def coefficients(self, codes: Tensor) -> Tensor:
        """Complex coefficients (..., C, L) of codes (..., n)."""
        cosine, sine = codes[..., self.cosine], codes[..., self.sine.clamp(min=0)]
        sine = torch.where(self.sine >= 0, sine, 0.0)
        scale = torch.full((self.count,), _ROOT, dtype=codes.dtype)
        scale[0] = 1.0
        half = torch.complex(cosine * scale, -sine * scale)
        return torch.cat([half, half[..., 1:].conj()], -1)

    def codes(self, half: Tensor) -> Tensor:
        """Codes (..., n) of coefficients (..., C, H)."""
        scale = torch.full((self.count,), 1 / _ROOT, dtype=half.real.dtype)
        scale[0] = 1.0
        result = half.real.new_zeros(*half.shape[:-2], len(self.labels))
        result[..., self.cosine] = half.real * scale
        has = self.sine >= 0
        result[..., self.sine[has]] = (-half.imag * scale)[..., has]
        return result

    def products(self, coefficients: Tensor) -> Tensor:
        """Products (..., M) of coefficients (..., C, L)."""
        flat = coefficients.flatten(-2)
        return flat[..., self.left] * flat[..., self.right]

    def rates(self, operator: SpectralOperator, coefficients: Tensor, products: Tensor) -> Tensor:
        """Rates (..., C, H) by an operator, of coefficients (..., C, L) whose products are known."""
        rate = torch.einsum("...hca,...ah->...ch", operator.linear, coefficients[..., : self.count])
        if not operator.products.shape[-1]:
            return rate + operator.constant
        driven = operator.products * products[..., None, :]
        return rate.index_add(-1, self.out, driven) + operator.constant

    def nothing(self) -> SpectralOperator:
        """The operator of no motion."""
        return SpectralOperator(
            torch.zeros(self.channels, self.count, dtype=torch.complex128),
            torch.zeros(self.count, self.channels, self.channels, dtype=torch.complex128),
            torch.zeros(self.channels, len(self.out), dtype=torch.complex128),
        )

    # ---- as a field of real codes ----

    def field(self, operator: SpectralOperator) -> VectorField:
        """The real vector field (float64) of an operator, with the contexts that it has."""
        n, contexts = len(self.labels), operator.contexts
        triples, weight = self._couplings(operator)
        count = len(triples[0])
        field = VectorField.of(
            n, couplings=count, context_size=len(contexts), context_couplings=operator.coupled
        ).double()
        field.set_linear(self._matrix(operator), self.codes(operator.constant))
        if contexts:
            field.set_context_linear(
                torch.stack([self._matrix(one) for one in contexts]),
                torch.stack([self.codes(one.constant) for one in contexts]),
            )
        if count:
            field.term(Couplings).set(triples, weight[0], weight[1:] if operator.coupled else None)
        return field

    def _matrix(self, operator: SpectralOperator) -> Tensor:
        """The real matrix (n, n) of the linear part."""
        identity = torch.eye(len(self.labels), dtype=torch.float64)
        linear = torch.einsum("hca,sah->sch", operator.linear, self.coefficients(identity)[..., : self.count])
        return self.codes(linear).T

    def operator(self, field: VectorField) -> SpectralOperator:
        """The operator of a real quadratic field of these codes: what commutes with translations, and its bias."""
        found = self.nothing()
        found.constant = self.coefficients(field.linear.bias.detach().double())[:, : self.count]
        moved = self.coefficients(field.linear.matrix.detach().double().T)[..., : self.count]  # of each code
        for channel in range(self.channels):
            even = moved[self.cosine[channel]]
            odd = torch.where(self.sine[channel, :, None, None] >= 0, moved[self.sine[channel].clamp(min=0)], 0.0)
            every = torch.arange(self.count)
            unit = torch.where(every > 0, 2.0, 1.0).double() * _scale(every)
            found.linear[:, :, channel] = (even + 1j * odd)[every, :, every] / unit[:, None]
        couplings = field.get(Couplings)
        if couplings is not None:
            found.products = self._products_of(couplings)
        return found

    def _products_of(self, part: Couplings) -> Tensor:
        """Weights (C, M) of the couplings of a real field: each code is a sum of the coefficients of k and of -k."""
        full = 2 * self.count - 1
        wave, sine = torch.zeros(len(self.labels), dtype=torch.int64), torch.zeros(len(self.labels)).bool()
        channels = torch.zeros(len(self.labels), dtype=torch.int64)
        for channel in range(self.channels):
            for codes, odd in ((self.cosine[channel], False), (self.sine[channel], True)):
                there = codes >= 0
                wave[codes[there]] = there.nonzero()[:, 0]
                sine[codes[there]], channels[codes[there]] = odd, channel
        vectors = torch.cat([self.vectors, -self.vectors[1:]])

        def halves(code: Tensor) -> list[tuple[Tensor, Tensor]]:
            """Index and factor of both coefficients of a code; the constant has one."""
            of, odd = wave[code], sine[code]
            factor = torch.where(odd, 0.5j / _ROOT, torch.tensor(0.5 / _ROOT, dtype=torch.complex128))
            one = torch.where(of > 0, factor, 1.0)
            other = torch.where(of > 0, torch.where(odd, -factor, factor), 0.0)
            return [(of, one), (torch.where(of > 0, of + self.count - 1, 0), other)]

        out_wave, out_channel = wave[part.out], channels[part.out]
        rate = torch.where(sine[part.out], -1j, torch.tensor(1.0, dtype=torch.complex128)) * _scale(out_wave)
        rate = rate * part.weight.detach().double()
        size = self.channels * full
        keys = (self.out * size + self.left) * size + self.right
        order = keys.argsort()
        weights = torch.zeros(self.channels, len(self.out), dtype=torch.complex128)
        for i, left in halves(part.left):
            for j, right in halves(part.right):
                a, b = channels[part.left] * full + i, channels[part.right] * full + j
                key = (out_wave * size + torch.minimum(a, b)) * size + torch.maximum(a, b)
                place = order[torch.searchsorted(keys[order], key).clamp(max=len(keys) - 1)]
                kept = (keys[place] == key) & (vectors[i] + vectors[j] == vectors[out_wave]).all(1)
                weights.index_put_(
                    (out_channel[kept], place[kept]), (rate * left * right)[kept], accumulate=True
                )
        return weights

    def _couplings(self, operator: SpectralOperator) -> tuple[Tensor, Tensor]:
        """Triples (3, K) of products of real codes and weights (1 + P, K): their own and what contexts add, if any."""
        full = 2 * self.count - 1

        def parts(index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """Cosine code, sine code (-1: none), sign of the sine and scale of coefficients."""
            channel, wave = index // full, index % full
            half = torch.where(wave < self.count, wave, wave - self.count + 1)
            sign = 1.0 - 2.0 * (wave >= self.count).double()
            return self.cosine[channel, half], self.sine[channel, half], sign, _scale(half)

        cos_l, sin_l, sign_l, scale_l = parts(self.left)
        cos_r, sin_r, sign_r, scale_r = parts(self.right)
        scale = scale_l * scale_r / _scale(self.out)
        triples, weights = [], []
        several = torch.stack([operator.products, *(one.products for one in operator.contexts if operator.coupled)])
        for channel in range(self.channels):
            w = several[:, channel] * scale
            x, y = w.real, w.imag
            for out, even, odd in (
                (self.cosine[channel, self.out], x, y),
                (self.sine[channel, self.out], -y, x),
            ):
                for left, right, weight in (
                    (cos_l, cos_r, even),
                    (sin_l, sin_r, -even * sign_l * sign_r),
                    (cos_l, sin_r, odd * sign_r),
                    (sin_l, cos_r, odd * sign_l),
                ):
                    kept = (left >= 0) & (right >= 0) & (out >= 0) & (weight != 0).any(0)
                    low, high = torch.minimum(left, right), torch.maximum(left, right)
                    triples.append(torch.stack([out, low, high])[:, kept])
                    weights.append(weight[:, kept])
        return coalesced(torch.cat(triples, 1), torch.cat(weights, 1))


@dataclass
class SpectralOperator:
    """Unknowns of a field that commutes with translations, complex128.

    Attributes:
        constant: (C, H).
        linear: (H, C, C), of each wave on itself.
        products: (C, M) weights of the products; (C, 0) for none.
        contexts: what each of P contexts adds; its products are none where they do not depend on contexts.
    """

    constant: Tensor
    linear: Tensor
    products: Tensor
    contexts: tuple[SpectralOperator, ...] = ()

    @property
    def coupled(self) -> bool:
        """Whether the products depend on contexts."""
        return bool(self.contexts) and bool(self.contexts[0].products.shape[-1])

    def at(self, context: Tensor) -> SpectralOperator:
        """The operators of contexts (S, P), the parts that depend on them with a dimension (S,) in front."""
        if not self.contexts:
            return self

        def affine(name: str) -> Tensor:
            parts = torch.stack([getattr(one, name) for one in self.contexts])
            return getattr(self, name) + torch.tensordot(context.to(parts), parts, 1)

        products = affine("products") if self.coupled else self.products
        return SpectralOperator(affine("constant"), affine("linear"), products)


def _scale(wave: Tensor) -> Tensor:
    """Coefficient of exp(i k x) for a unit code: 1 for the constant, else 1 / sqrt(2)."""
    return torch.where(wave > 0, torch.tensor(_ROOT, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))


def coalesced(triples: Tensor, weight: Tensor, tolerance: float = 1e-14) -> tuple[Tensor, Tensor]:
    """Distinct triples (3, M) among (3, K) and the sums (..., M) of their weights (..., K), without negligible ones."""
    base = int(triples.max()) + 1 if triples.numel() else 1
    keys, which = torch.unique((triples[0] * base + triples[1]) * base + triples[2], return_inverse=True)
    distinct = torch.stack([keys // base**2, keys // base % base, keys % base])
    total = weight.new_zeros(*weight.shape[:-1], distinct.shape[1]).index_add(-1, which, weight)
    size = total.abs() if total.dim() == 1 else total.abs().amax(0)
    kept = size > tolerance * size.amax().clamp(min=1e-300) if size.numel() else size > 0
    return distinct[:, kept], total[..., kept]
