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
BETTER = Margin(0.95, "ratio of errors below which a candidate is clearly better than another", _HAND)
BETTER_ON_FEW = Margin(0.5, "the same ratio if the held-out data are the last frames of one trajectory", _HAND)
MORE_UNKNOWNS = Margin(1 / 3, "ratio of errors below which a candidate of more unknowns in its recipe is preferred",
                       "set by hand for networks in laws, before their benchmarks")
LONGER_WINDOW = Margin(0.2, "ratio of errors below which a model that needs more observed frames is preferred", _HAND)
FAR_BETTER = Margin(0.01, "ratio of errors below which a law is preferred without forecasts of both in the data",
                    "20 runs of six generated sets, none of which forecasts reversed; not so for other recipes")
EXPLAINED = Margin(5.0, "ratio of errors, of a law to its basis alone, below which the law explains the data", _HAND)
TRUSTED = Margin(1e-2, "share of the variance: as EXPLAINED, for laws validated on last frames or other domains", _HAND)
POOR = Margin(0.5, "share of the variance: a model with a larger error predicts nothing", _HAND)
ROUNDING = Margin(1e-6, "share of the variance: rounding of single precision; a smaller error is not improved", _HAND)
DIVERGES = Margin(0.5, "share of held-out forecasts that diverge above which a law is rejected", _HAND)
STRAYS = Margin(2.0, "norm of forecasts of observed times, over that of the data, above which a law is rejected",
                "spirals, whose law had 6.6 times the variance; five other single trajectories keep their laws")
CHOSEN_BY_CHANCE = Margin(80, "frames of one series below which its last ones choose by chance",
                          "17 windows of measured series, forecasts of linear dynamics and of autoregressions")
DECODER_LIMITED = Margin(3.0, "ratio of errors, of forecasts to the decoder alone, above which delays are tried", _HAND)
REFIT_FAILED = Margin(1.5, "ratio of errors, after a refit to before it, above which the refit is rejected", _HAND)
WHITE = Margin(1e-3, "share of the variance: a residual field is sought for larger residuals of the codes only", _HAND)

# ---- parts of a candidate ----
DETERMINED = Margin(1.2, "transitions per state dimension from which data determine linear dynamics", _HAND)
UNDETERMINED_ERROR = Margin(0.01, "share of the variance: with a smaller error, dynamics count as determined", _HAND)
LONGER_MEMORY = Margin(0.5, "ratio of errors below which one more delay is preferred", _SINGLE)
SYMMETRY_HARMS = Margin(0.8, "ratio of errors, without a symmetry to with it, below which it is dropped", _HAND)
HARMONICS_SUFFICE = Margin(1e-5, "share of the variance: no trunk for a smaller residual of harmonics", _HAND)
PATTERNS_SUFFICE = Margin(1e-2, "share of the variance: no trunk for a smaller error of interpolated components",
                          "held-out points of rod, fhn, tracer_channel, waves_disc, plate, swirl; cavity needs a trunk")
TRUNK_PAYS = Margin(0.5, "ratio of errors between points, of a trunk to components, below which it is used",
                    "a wake at 15, 50 and 100 % of its points, a step, noisy stations: errors at and between points")
CODES_PAY = Margin(0.7, "ratio of CRPS at few places, of codes to kriging, below which codes are preferred", _HAND)
MESH_FLOW_PAYS = Margin(0.25, "ratio of errors, of a simulated flow to interpolation, below which it is used", _HAND)


def margins() -> dict[str, Margin]:
    """All margins by their names."""
    return {name: value for name, value in globals().items() if isinstance(value, Margin)}
