"""Decoders. Importing this package registers those it contains."""

from inrflow.decoders import filter_net, harmonics, rbf_features, siren

__all__ = ["filter_net", "harmonics", "rbf_features", "siren"]
