"""Decoders; those of the package are registered by being imported here."""

from inrflow.decoders import filter_net, harmonics, rbf_features, siren

__all__ = ["filter_net", "harmonics", "rbf_features", "siren"]
