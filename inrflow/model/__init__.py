"""The trained model: surrogates, families of several physics, and the solutions they give."""

import inrflow.model.family  # noqa: F401  registers the readers of all model files
