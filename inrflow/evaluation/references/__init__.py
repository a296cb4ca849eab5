"""Reference forecasts: the interface, the registry, and those that every training fits."""

from inrflow.evaluation.references.base import (
    REFERENCES,
    Reference,
    References,
    fit_references,
    register_reference,
    title_of,
)
from inrflow.evaluation.references.kriging import Kriging
from inrflow.evaluation.references.linear_inverse_model import LaggedInverseModel
from inrflow.evaluation.references.pod_dmd import PodDmd
from inrflow.evaluation.references.simple import Climatology, DampedAnomalies, Persistence, TrainingMean

__all__ = ["REFERENCES", "Reference", "References", "fit_references", "register_reference", "title_of"]

for _reference in (Persistence, TrainingMean, Climatology, DampedAnomalies, LaggedInverseModel, Kriging, PodDmd):
    register_reference(_reference)
