"""Decoders; those of the package are registered by being imported here."""

from inrflow.decoders import closure, filter_net, harmonics, rbf_features, siren

__all__ = ["closure", "filter_net", "harmonics", "rbf_features", "siren"]
