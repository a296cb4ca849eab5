"""Several at once: sweeps over settings, and how `inrflow train` and `inrflow adapt` make and grow runs on several
physics."""
