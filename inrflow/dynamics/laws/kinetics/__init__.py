"""Functions of values with a constant, as factors of terms of a law: rates that saturate, or that heat speeds up."""
