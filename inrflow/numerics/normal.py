"""The normal distribution."""

HALF_WIDTH_90 = 1.6448536269514722  # of the central 90 % interval, in standard deviations
