"""Data: observations, trajectory files, batches, symmetries. All input is checked here, and files are read lazily."""
