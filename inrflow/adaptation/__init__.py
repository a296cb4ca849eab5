"""New systems from a few trajectories: contexts found by one small solve, and more where they are not enough."""
