"""What every decoder is: a map (x, z) -> u that can also be linearised in the code."""

import torch
from torch import Tensor, nn

from inrflow.runtime.devices import on_own_device

_TANGENTS = 2**17  # codes x points x code dimensions linearised at once: 64 MiB per layer 128 wide in float32


class Decoder(nn.Module):
    """u = D(x; z), in normalised units of the channels.

    Shapes: x (..., N, d) and z (..., Z); their leading dimensions broadcast against each other, and points that are
    shared by several codes (a leading 1, or none) are evaluated once wherever the decoder allows it. u is (..., N, C).
    Tensors are taken to the decoder's device and results back to that of x.
    """

    code_size: int
    channels: int
    #: True when u is affine in z, so that encoding is one linear solve (`basis` is then available).
    affine: bool = False
    #: True when z holds a code for each channel, one after the other and all of one size, that the others do not see.
    code_per_channel: bool = False

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        raise NotImplementedError

    def basis(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Offset (..., N, C) and basis (..., N, C, Z) with u = offset + basis z; only for affine decoders."""
        raise NotImplementedError(f"{type(self).__name__} is not affine in its code")

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

        # Every layer holds its tangents for all codes of a chunk, points and code dimensions at once.
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
