"""Laws: differential equations found in data, for coefficients ("codes") of fields on the harmonics of a domain."""

from inrflow.dynamics.laws.fit import fit_law
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.setting import Systems

__all__ = ["Law", "Systems", "fit_law"]
