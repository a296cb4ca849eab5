"""Decoders, maps (x, z) -> u from points and a code to field values that can be linearised in the code, and the
registry of their names in saved models. Decoders compute on the device of their parameters and return results on that
of their input; codes and priors, which are small and float64, stay in main memory.

A user-defined decoder is saved and loaded like those of the package once its module is imported:

    @register_decoder("polynomial")
    class Polynomial(Decoder):
        def structure(self): return {"channels": self.channels, "code_size": self.code_size}

`structure()` gives the arguments of the constructor; weights are kept apart, by `state_dict`.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from inrflow.errors import UserError

if TYPE_CHECKING:
    from inrflow.domains import Domain

_CLASSES: dict[str, type[nn.Module]] = {}  # registered decoders and embeddings
_ELSEWHERE = {"domain_harmonics": "inrflow.decoders.domain_harmonics"}  # imported on demand
Class = TypeVar("Class", bound=type[nn.Module])
_MANY = 4_000_000  # number of values times code size above which observations are compressed by QR
_TANGENTS = 2**17  # codes x points x code dimensions linearised at once: 64 MiB per layer of width 128 in float32


def choose_device(name: str) -> torch.device:
    """Device of a name: "auto" (CUDA if available), "cpu", "cuda" or "cuda:N". Raises UserError.

    "cuda:N" becomes the current device of torch, on which kernels are launched.
    """
    indexed = re.fullmatch(r"cuda:([0-9]{1,3})", name)
    if name not in ("auto", "cpu", "cuda") and indexed is None:
        raise UserError(f"device={name}; choose auto, cpu, cuda or cuda:N")
    if name == "cpu" or not torch.cuda.is_available():
        if name not in ("auto", "cpu"):
            raise UserError(f"device={name}, but torch finds no CUDA device; give device=auto or device=cpu")
        return torch.device("cpu")
    if indexed is None:
        return torch.device("cuda")
    number, count = int(indexed[1]), torch.cuda.device_count()
    if number >= count:
        raise UserError(f"device={name}, but torch finds the CUDA devices 0 to {count - 1}; give one of them")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters."""
    return next(module.parameters()).device


def on_own_device(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a module's method: tensors are moved to the module's device, the result to the first tensor's."""

    @functools.wraps(method)
    def moving(module: nn.Module, *tensors: Tensor) -> Any:
        away, home = tensors[0].device, next(module.parameters()).device
        if all(tensor.device == home for tensor in tensors):
            return method(module, *tensors)
        result = method(module, *(tensor.to(home) for tensor in tensors))
        return result.to(away) if isinstance(result, Tensor) else tuple(part.to(away) for part in result)

    return moving


class Decoder(nn.Module):
    """Decoder u = D(x; z), in normalised units of the channels.

    Shapes: x (..., N, d) and z (..., Z); their leading dimensions broadcast against each other, and points that are
    shared by several codes (a leading 1, or none) are evaluated once wherever the decoder allows it. u is (..., N, C).
    Tensors are taken to the decoder's device and results back to that of x.

    A subclass defines `forward` and `structure`, sets `channels` and `code_size`, and is registered by
    `register_decoder`; if it is affine in the code, it also defines `basis`.
    """

    code_size: int
    channels: int
    #: True when u is affine in z, so that encoding is one linear solve (`basis` is then available).
    affine: bool = False
    #: True when z holds one code per channel, all of the same size, and no channel depends on the code of another.
    code_per_channel: bool = False
    #: Domain of the field, if the decoder has one.
    place: Domain | None = None

    def structure(self) -> dict[str, Any]:
        """Arguments of the constructor: plain values or registered modules."""
        raise NotImplementedError(f"{type(self).__name__} does not define structure()")

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Field values u (..., N, C) at points x (..., N, d) for codes z (..., Z)."""
        raise NotImplementedError

    def basis(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Offset (..., N, C) and basis (..., N, C, Z) with u = offset + basis z; only for affine decoders."""
        raise NotImplementedError(f"{type(self).__name__} is not affine in its code")

    def together(self, x: Tensor, most: int) -> int:
        """Best number of the points (N, d) to decode at once, about `most`."""
        return most

    def tail(self, z: Tensor) -> Tensor:
        """Mean squares (..., C) of the finest details that codes (..., Z) represent, as an estimate of the truncation
        error; 0 if code dimensions are not ordered by scale."""
        return z.new_zeros(*z.shape[:-1], self.channels)

    @on_own_device
    def linearise(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Value u (B, N, C) and Jacobian du/dz (B, N, C, Z) at codes z (B, Z) and points x (N, d) or (B, N, d)."""
        if self.affine:
            offset, basis = self.basis(x)
            return offset + torch.einsum("...ncz,bz->bnc" if x.dim() == 2 else "bncz,bz->bnc", basis, z), basis.expand(
                len(z), *basis.shape[-3:]
            )
        shared = x.dim() == 2

        def single(z_one: Tensor, x_one: Tensor) -> tuple[Tensor, Tensor]:
            u = self.forward(x_one, z_one)
            return u, u

        # Every layer stores tangents for all codes of a chunk, points and code dimensions.
        chunk = max(1, min(64, _TANGENTS // (x.shape[-2] * self.code_size)))
        jacobian, u = torch.func.vmap(
            torch.func.jacfwd(single, has_aux=True), in_dims=(0, None if shared else 0), chunk_size=chunk
        )(z, x)
        return u, jacobian

    @on_own_device
    def slopes(self, x: Tensor, z: Tensor) -> Tensor:
        """Derivatives du/dx (..., N, C, d) in the coordinates, at points x (..., N, d) and codes z (..., Z)."""
        moving = x.expand(*torch.broadcast_shapes(x.shape[:-2], z.shape[:-1]), *x.shape[-2:]).detach()
        moving = moving.clone().requires_grad_(True)
        with torch.enable_grad():
            u = self.forward(moving, z)
            parts = [
                torch.autograd.grad(u[..., channel].sum(), moving, retain_graph=True)[0]
                for channel in range(u.shape[-1])
            ]
        return torch.stack(parts, -2)


class AffineDecoder(Decoder):
    """Decoder whose code sets a linear output layer over features of the points alone.

        u_c(x; z) = (output_c + sum_k z_k output_map_kc) . features(x)

    So u is affine in z, and code dimensions are output modes: `set_output` replaces them by any others over the same
    features, for example the principal components of the training data (`inrflow.encoding.prior.modes`).

    A subclass defines `features` and calls `draw_output` at the end of its constructor. If codes also act elsewhere, it
    sets `affine` to False and overrides `forward`; see `has_output_layer`.

    Attributes:
        output: (C, F) output weights at the zero code.
        output_map: (Z, C, F) output weights of each code dimension.
    """

    affine = True
    output: nn.Parameter
    output_map: nn.Parameter

    def features(self, x: Tensor) -> Tensor:
        """Features (..., N, F) at points x (..., N, d); the first is the constant 1."""
        raise NotImplementedError

    @property
    def features_size(self) -> int:
        """Number F of features."""
        return self.output.shape[-1]

    def draw_output(self, features_size: int, by_code: bool = True) -> None:
        """Random output layer over F features for `channels` and `code_size`; without `output_map` unless `by_code`."""
        drawn = torch.empty(self.channels, features_size).uniform_(-1, 1)
        self.output = nn.Parameter(drawn * math.sqrt(1 / features_size))
        if by_code:
            modes = torch.randn(self.code_size, self.channels, features_size)
            self.output_map = nn.Parameter(modes / math.sqrt(features_size))

    def set_output(self, mean: Tensor, modes: Tensor) -> None:
        """Replace the output layer: `mean` (C, F) and one (C, F) mode for each code dimension, `modes` (Z, C, F)."""
        self.output = nn.Parameter(mean.to(self.output))
        self.output_map = nn.Parameter(modes.to(self.output))
        self.code_size = len(modes)

    def output_weights(self, z: Tensor) -> Tensor:
        """Weights (..., C, F) of the output layer at codes z (..., Z)."""
        return self.output + (z @ self.output_map.flatten(1)).unflatten(-1, self.output.shape)

    @on_own_device
    def basis(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._basis_of(self.features(x)) if self.affine else super().basis(x)

    def _basis_of(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Offset (..., N, C) and basis (..., N, C, Z) from features (..., N, F)."""
        basis = features @ self.output_map.transpose(0, 1).flatten(0, 1).T
        return features @ self.output.T, basis.unflatten(-1, (self.channels, self.code_size))

    @on_own_device
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        if x.shape[:-2].numel() == 1:
            return self._at_shared_points(x, z)
        return self.features(x) @ self.output_weights(z).transpose(-1, -2)

    def _at_shared_points(self, x: Tensor, z: Tensor) -> Tensor:
        """Values (..., N, C) of all codes at shared points x (1, ..., N, d), as one matrix product: with the output
        weights of every code, or with the basis at the points, whichever is cheaper."""
        features, codes = self.features(x).flatten(0, -2), z.reshape(-1, z.shape[-1])
        points, functions = features.shape
        batch = torch.broadcast_shapes(x.shape[:-2], z.shape[:-1])
        by_weights = len(codes) * functions * (self.code_size + points)
        by_basis = points * self.code_size * (functions + len(codes))
        if by_basis < by_weights:
            offset, basis = self._basis_of(features)
            values = torch.addmm(offset.flatten(), codes, basis.flatten(0, 1).T)
            return values.reshape(*batch, points, -1)
        weights = self.output_weights(codes)
        values = (weights.flatten(0, 1) @ features.T).unflatten(0, (len(codes), -1))  # (S, C, N)
        return values.transpose(1, 2).reshape(*batch, points, -1)


class BasisAt:
    """Offset (N, C) and basis (N, C, Z) of an affine decoder at points (N, d), without gradients, cached for the latest
    points, since most windows have the same points in all frames."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self._points, self._found = decoder, torch.empty(0), (torch.empty(0), torch.empty(0))
        self._turned: tuple[Tensor, ...] = ()

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not torch.equal(x, self._points):
            dtype = next(self.decoder.parameters()).dtype
            self._points, self._found, self._turned = x, self.decoder.basis(x.to(dtype)), ()
        return self._found

    def fewer(self, x: Tensor, u: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Offset, basis, values and noise variances for points (N, d), values u (F, N, C) with the same NaN in all
        frames, and noise variances (C,).

        Many values are replaced by Z equivalent ones with unit noise (the same likelihood of the code), from a QR
        decomposition of the basis that is cached for the latest points."""
        (offset, basis), seen, scale = self(x), torch.isfinite(u[0]), noise.rsqrt()
        if not max(_MANY / (size := basis.shape[-1]), size) < int(seen.sum()):
            return offset, basis, u, noise
        if not self._turned or not (torch.equal(seen, self._turned[0]) and torch.equal(scale, self._turned[1])):
            with torch.no_grad():
                rows = basis[seen].double() * scale.expand(seen.shape)[seen][:, None]
                self._turned = seen, scale, *torch.linalg.qr(rows)
        *_, q, r = self._turned
        turned = ((u.double() - offset) * scale)[:, seen] @ q
        return r.new_zeros(len(r), 1), r[:, None], turned[..., None], r.new_ones(1)


def has_output_layer(decoder: Decoder) -> TypeGuard[AffineDecoder]:
    """Whether codes act on the output layer of a decoder alone, so that `set_output` may replace them."""
    return isinstance(decoder, AffineDecoder) and decoder.affine


@runtime_checkable
class Structured(Protocol):
    """Protocol of decoders and embeddings: objects that can be rebuilt from their constructor arguments."""

    def structure(self) -> dict[str, Any]: ...


def register_decoder(name: str) -> Callable[[Class], Class]:
    """Class decorator that registers a decoder or embedding as `name`, by which saved models refer to it.

    Raises ValueError if another class has the name.
    """

    def register(own: Class) -> Class:
        other = _CLASSES.get(name, own)
        if (other.__module__, other.__qualname__) != (own.__module__, own.__qualname__):
            raise ValueError(f"the name {name!r} belongs to {other.__module__}.{other.__qualname__}; choose another")
        _CLASSES[name] = own
        return own

    return register


register_embedding = register_decoder


def decoder_class(name: str) -> type[Decoder]:
    """Decoder class registered under a name. Raises UserError if there is none."""
    own = _class(name)
    if not issubclass(own, Decoder):
        raise UserError(f"{name!r} is an embedding, not a decoder; choose from {', '.join(decoder_names())}")
    return own


def decoder_names() -> list[str]:
    """Names of all registered decoders."""
    return sorted(name for name, one in _CLASSES.items() if issubclass(one, Decoder))


def _class(name: str) -> type[nn.Module]:
    if name in _ELSEWHERE:
        import_module(_ELSEWHERE[name])
    if name not in _CLASSES:
        raise UserError(
            f"no decoder is registered as {name!r}, only {', '.join(decoder_names())}; import the module that defines "
            f"it, with @register_decoder({name!r}) above the class"
        )
    return _CLASSES[name]


def decoder_structure(decoder: Structured) -> dict[str, Any]:
    """Name and `structure()` of a decoder as plain values, from which `build_decoder` rebuilds it without weights.

    Raises UserError for a class that is not registered.
    """
    own = type(decoder)
    name = next((name for name, one in _CLASSES.items() if one is own), None)
    if name is None:
        raise UserError(
            f"the decoder {own.__module__}.{own.__qualname__} is not registered, so a model that has it cannot be "
            "saved; put @register_decoder(NAME) above the class"
        )
    values = decoder.structure().items()
    return {"kind": name, **{key: decoder_structure(v) if isinstance(v, Structured) else v for key, v in values}}


def build_decoder(structure: dict[str, Any]) -> Decoder:
    """Decoder of a structure, whose weights remain to be loaded.

    Raises UserError for a name that is not registered.
    """
    decoder_class(_current(structure)["kind"])
    decoder = _build(structure)
    assert isinstance(decoder, Decoder)
    return decoder


def _build(structure: dict[str, Any]) -> nn.Module:
    values = _current(structure)
    own = _class(values.pop("kind"))
    return own(**{key: _build(v) if isinstance(v, dict) and "kind" in v else v for key, v in values.items()})


def _current(structure: dict[str, Any]) -> dict[str, Any]:
    """Copy of a structure, converted to the current version if an earlier one wrote it."""
    values = dict(structure)
    if values["kind"] == "siren" and values["depth"] == 0:  # earlier form of the harmonics decoder
        return {"kind": "harmonics", **{key: values[key] for key in ("embedding", "channels", "code_size")}}
    if values["kind"] == "closure":
        raise UserError("the decoder has a closure of POD modes of an earlier version of inrflow, which this version "
                        "does not have; train again")
    return values
