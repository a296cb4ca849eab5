"""Reference forecasts: the interface, the registry, and those that every training fits."""

from inrflow.evaluation.references.base import REFERENCES, Reference, register_reference
from inrflow.evaluation.references.registry import References, fit_references, title_of

__all__ = ["REFERENCES", "Reference", "References", "fit_references", "register_reference", "title_of"]
