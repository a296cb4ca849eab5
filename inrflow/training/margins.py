"""The table of margins: every threshold by which one candidate is preferred to another, and the origin of its value."""

from __future__ import annotations


class Margin(float):
    """A threshold for decisions between candidates, with its meaning and the origin of its value."""

    meaning: str
    origin: str

    def __new__(cls, value: float, meaning: str, origin: str) -> Margin:
        margin = super().__new__(cls, value)
        margin.meaning, margin.origin = meaning, origin
        return margin


_HAND = "set by hand before the benchmarks of default_search.py, and not varied since"
_SINGLE = "benchmarks/forecasts/single_trajectory.py: generated systems and truncated series, checked on fresh seeds"

# ---- between candidates ----
BETTER = Margin(0.95, "times the error: from here on a candidate is clearly better", _HAND)
BETTER_ON_FEW = Margin(0.5, "the same where the last frames of one trajectory judge, which are not refitted", _HAND)
MORE_UNKNOWNS = Margin(1 / 3, "times the error, for more unknowns in the same recipe: a network in a law of few terms",
                       "what networks in laws were to gain before they were measured")
LONGER_WINDOW = Margin(0.2, "times the error: what a candidate must reach that needs more observed frames", _HAND)
EXPLAINED = Margin(5.0, "times what the basis leaves: an equation with so small an error explains the data", _HAND)
TRUSTED = Margin(1e-2, "share of the variance: an equation judged by the last frames alone must reach it", _HAND)
POOR = Margin(0.5, "share of the variance: a field that misses so much forecasts nothing", _HAND)
ROUNDING = Margin(1e-6, "share of the variance below which single-precision rollouts have nothing to add", _HAND)
DECODER_LIMITED = Margin(3.0, "times what the decoder leaves: better dynamics would hardly show", _HAND)
REFIT_FAILED = Margin(1.5, "times the error before: a refit that forecasts worse has failed", _HAND)
WHITE = Margin(1e-3, "share of the variance: what codes leave below it is not looked at for a residual field", _HAND)

# ---- parts of a candidate ----
DETERMINED = Margin(1.2, "transitions an unknown from which data determine linear dynamics", _HAND)
UNDETERMINED_ERROR = Margin(0.01, "share of the variance: forecasts with a smaller error were determined", _HAND)
LONGER_MEMORY = Margin(0.5, "times the error for one more delay", _SINGLE)
SYMMETRY_HARMS = Margin(0.8, "times the error without a declared symmetry: below it the symmetry is dropped", _HAND)
HARMONICS_SUFFICE = Margin(1e-5, "share of the variance that harmonics leave: then no trunk is trained", _HAND)
PATTERNS_SUFFICE = Margin(1e-2, "share of the variance that functions through components miss at points held out: then "
                          "no trunk is trained", "rod, fhn, tracer_channel, waves_disc, plate, swirl; cavity needs one")
MESH_FLOW_PAYS = Margin(0.25, "times what interpolation misses at nodes kept aside", _HAND)


def margins() -> dict[str, Margin]:
    """All margins by their names."""
    return {name: value for name, value in globals().items() if isinstance(value, Margin)}
