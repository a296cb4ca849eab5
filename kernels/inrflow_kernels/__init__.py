"""Fused evaluation of modulated SIRENs: Triton kernels on the GPU, cache-sized blocks on the CPU, one definition.

What callers use is below; `reference` defines what they compute. Importing needs torch alone: where Triton is missing,
or cannot serve a call, torch computes it.
"""

from .dispatch import modulated_siren, modulated_siren_jacobian, modulated_siren_jvp, siren_features

__all__ = ["modulated_siren", "modulated_siren_jacobian", "modulated_siren_jvp", "siren_features"]
