"""The vector field ds/dt = A s + b + forcing(t) + quadratic(s) + residual(s, t) that moves latent states.

A state s is the code z of the field followed by hidden memory m (which the decoder does not see), for systems whose
frame is not their state, and by the context c: what stays constant along a trajectory (an equation's parameters, an
environment). Every part is affine in it, A(c) = A_0 + sum_k c_k A_k and so on, and dc/dt = 0.
The linear part (and the quadratic one, which a Galerkin projection of many PDEs has exactly) starts from least squares
on observed transitions; the residual network starts at zero, so that training can only add what the closed form leaves.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from inrflow.dynamics.fields.local import LocalProducts
from inrflow.dynamics.fields.quadratic import Couplings, Products
from inrflow.dynamics.libraries.fourier_grid import LocalBasis
from inrflow.numerics.sparse_columns import SparseColumns


@dataclass
class FieldShape:
    """What a vector field is made of.

    Attributes:
        state_size: n, code and memory together.
        linear: with a linear part.
        quadratic_rank: rank of the trained quadratic part, 0 for none.
        products: number of products of components in the fitted quadratic part, 0 for none.
        couplings: number of triples in the sparse quadratic part, 0 for none.
        width, depth: of the residual network; depth counts hidden layers, 0 for no network.
        forcing_period: period of an external forcing in internal time units, 0 for an autonomous field.
        forcing_harmonics: how many multiples of the forcing's frequency enter.
        swish: the network's activations are learnable Swish and its last layer starts as any other (DINo's field)
            instead of SiLU and zero.
        context_size: P, numbers at the end of a state that do not move and on which the parts depend affinely.
        context_couplings: whether the sparse quadratic part is one of them.
        local: products of derivatives of the decoded field (`local_terms.to_plain`), None for none; they need a decoder
            (`VectorField.attach`). channels: of that field.
    """

    state_size: int
    linear: bool = True
    quadratic_rank: int = 0
    width: int = 256
    depth: int = 0
    forcing_period: float = 0.0
    forcing_harmonics: int = 2
    products: int = 0
    swish: bool = False
    couplings: int = 0
    context_size: int = 0
    context_couplings: bool = True
    local: list | None = None
    channels: int = 0

    def to_dict(self) -> dict:
        return asdict(self)


class Swish(nn.Module):
    """x sigmoid(softplus(beta) x) / 1.1 with a learned beta, 0.5 at the start, as in DINo (Yin et al., ICLR 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(torch.nn.functional.softplus(self.beta) * x) / 1.1


class VectorField(nn.Module):
    """dynamics of states (..., n + P) at times t, a scalar or (...,), both in internal units (see `Surrogate`)."""

    def __init__(self, shape: FieldShape) -> None:
        super().__init__()
        self.shape = shape
        self._sparse: tuple[tuple, tuple[SparseColumns | None, SparseColumns | None]] | None = None
        size, contexts = shape.state_size, shape.context_size
        if shape.linear:
            self.matrix = nn.Parameter(torch.zeros(size, size))
            self.bias = nn.Parameter(torch.zeros(size))
            if contexts:
                self.context_matrix = nn.Parameter(torch.zeros(contexts, size, size))
                self.context_bias = nn.Parameter(torch.zeros(contexts, size))
        if shape.forcing_period:
            self.forcing = nn.Parameter(torch.zeros(size, 2 * shape.forcing_harmonics))
            if contexts:
                self.context_forcing = nn.Parameter(torch.zeros(contexts, size, 2 * shape.forcing_harmonics))
        if shape.products:
            self.products = Products(size, shape.products, contexts)
        if shape.couplings:
            self.couplings = Couplings(shape.couplings, contexts if shape.context_couplings else 0)
        if shape.local:
            self.local = LocalProducts(shape.local, shape.channels, contexts)
        if shape.quadratic_rank:
            spread = 1 / math.sqrt(size)
            self.quadratic_left = nn.Parameter(torch.randn(shape.quadratic_rank, size) * spread)
            self.quadratic_right = nn.Parameter(torch.randn(shape.quadratic_rank, size) * spread)
            self.quadratic_out = nn.Parameter(torch.zeros(size, shape.quadratic_rank))
            if contexts:
                self.context_quadratic_out = nn.Parameter(torch.zeros(contexts, size, shape.quadratic_rank))
        if shape.depth:
            inputs = size + (2 * shape.forcing_harmonics if shape.forcing_period else 0)
            layers: list[nn.Module] = []
            for _ in range(shape.depth):
                layers += [nn.Linear(inputs, shape.width), Swish() if shape.swish else nn.SiLU()]
                inputs = shape.width
            last = nn.Linear(inputs, size * (1 + contexts))
            if not shape.swish:
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
            self.residual = nn.Sequential(*layers, last)

    @property
    def is_linear(self) -> bool:
        """True when the field is affine in the whole state, whatever the time."""
        return self.is_linear_at_context and not self.shape.context_size

    @property
    def is_linear_at_context(self) -> bool:
        """True when the field of code and memory is affine in them, given the context."""
        return not (self.shape.products or self.shape.couplings or self.shape.local or self.shape.quadratic_rank
                    or self.shape.depth)

    def matrix_at(self, context: Tensor) -> Tensor:
        """A(c) (..., n, n) of the linear part at contexts (..., P)."""
        if not self.shape.context_size:
            return self.matrix.expand(*context.shape[:-1], *self.matrix.shape)
        return self.matrix + torch.einsum("...k,kij->...ij", context, self.context_matrix)

    def phases(self, t: Tensor) -> Tensor:
        """cos and sin of the forcing's harmonics at times t (...,), shape (..., 2 K)."""
        multiples = torch.arange(1, self.shape.forcing_harmonics + 1, dtype=torch.float64, device=t.device)
        angle = 2 * math.pi * torch.remainder(t.double() / self.shape.forcing_period, 1.0)[..., None] * multiples
        return torch.cat([angle.cos(), angle.sin()], -1)

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        rate = self.without_products(t, state)
        size, contexts = self.shape.state_size, self.shape.context_size
        code, context = state[..., :size], state[..., size:] if contexts else None
        added = self.products(code, context) if self.shape.products else None
        if self.shape.couplings:
            coupled = self.couplings(code, context)
            added = coupled if added is None else added + coupled
        if self.shape.local:
            local = self.local(code, context)
            added = local if added is None else added + local
        return rate if added is None else rate + torch.nn.functional.pad(added, (0, contexts))

    def without_products(self, t: Tensor, state: Tensor) -> Tensor:
        """The rate but for the fitted products, whose derivative is known by itself."""
        size, contexts = self.shape.state_size, self.shape.context_size
        context = state[..., size:] if contexts else None
        state = state[..., :size] if contexts else state
        rate = torch.zeros_like(state)
        if self.shape.linear:
            own, added = self._sparse_parts()
            rate = torch.nn.functional.linear(state, self.matrix, self.bias) if own is None else own(state) + self.bias
            if context is not None:
                parts = state @ self.context_matrix.flatten(0, 1).T if added is None else added(state)
                rate = rate + _weighted(parts.unflatten(-1, (contexts, size)), context) + context @ self.context_bias
        phases = None
        if self.shape.forcing_period:
            phases = self.phases(torch.as_tensor(t)).to(state.dtype)
            phases = phases.expand(*state.shape[:-1], phases.shape[-1])
            rate = rate + phases @ self.forcing.T
            if context is not None:
                rate = rate + _combined(self.context_forcing, phases, context)
        if self.shape.quadratic_rank:
            products = (state @ self.quadratic_left.T) * (state @ self.quadratic_right.T)
            rate = rate + products @ self.quadratic_out.T
            if context is not None:
                rate = rate + _combined(self.context_quadratic_out, products, context)
        if self.shape.depth:
            outputs = self.residual(state if phases is None else torch.cat([state, phases], -1))
            if context is not None:
                parts = outputs.unflatten(-1, (1 + contexts, size))
                outputs = parts[..., 0, :] + (context[..., None] * parts[..., 1:, :]).sum(-2)
            rate = rate + outputs
        return rate if context is None else torch.cat([rate, torch.zeros_like(context)], -1)

    def _sparse_parts(self) -> tuple[SparseColumns | None, SparseColumns | None]:
        """The linear part of an equation on harmonics, each of which moves a few others: gathers, where nobody asks for
        derivatives by its numbers."""
        if not self.shape.local or torch.is_grad_enabled():
            return None, None
        several = [self.matrix, *([self.context_matrix] if self.shape.context_size else [])]
        key = tuple((one.data_ptr(), one._version) for one in several)
        if self._sparse is None or self._sparse[0] != key:
            parts = [SparseColumns.of(one.flatten(0, -2).T) for one in several]
            self._sparse = key, (parts[0], parts[1] if len(parts) > 1 else None)
        return self._sparse[1]

    def set_linear(self, matrix: Tensor, bias: Tensor, forcing: Tensor | None = None) -> None:
        """Set the linear part (and the forcing (n, 2 K)) to a fitted one."""
        with torch.no_grad():
            self.matrix.copy_(matrix)
            self.bias.copy_(bias)
            if forcing is not None:
                self.forcing.copy_(forcing)

    def attach(self, basis: LocalBasis) -> None:
        """Give the local products the basis of the decoder whose codes the states are."""
        self.local.attach(basis)

    def set_context_linear(self, matrices: Tensor, biases: Tensor) -> None:
        """Set what each context adds to the linear part: matrices (P, n, n) and biases (P, n)."""
        with torch.no_grad():
            self.context_matrix.copy_(matrices)
            self.context_bias.copy_(biases)

    def set_quadratic(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        """Set the first factors of the quadratic part; the remaining ones keep their start with zero output."""
        rank = len(left)
        with torch.no_grad():
            self.quadratic_left[:rank] = left.to(self.quadratic_left)
            self.quadratic_right[:rank] = right.to(self.quadratic_right)
            self.quadratic_out[:, :rank] = out.to(self.quadratic_out)


def _combined(weights: Tensor, inputs: Tensor, context: Tensor) -> Tensor:
    """sum_k c_k W_k inputs: weights (P, out, in), inputs (..., in), context (..., P)."""
    return _weighted((inputs @ weights.flatten(0, 1).T).unflatten(-1, weights.shape[:2]), context)


def _weighted(parts: Tensor, context: Tensor) -> Tensor:
    """sum_k c_k parts_k: parts (..., P, n), context (..., P)."""
    return (context[..., None] * parts).sum(-2)
