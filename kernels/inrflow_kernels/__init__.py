"""Modulated SIRENs: one definition, Triton kernels for CUDA devices, cache-sized blocks for the CPU.

The public functions are imported here; `reference` defines their results. Only torch is required: without Triton,
`backend="auto"` computes with torch.
"""

from .dispatch import modulated_siren, modulated_siren_jacobian, modulated_siren_jvp, siren_features

__all__ = ["modulated_siren", "modulated_siren_jacobian", "modulated_siren_jvp", "siren_features"]
