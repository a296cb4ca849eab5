"""Data: files, observations and symmetries, checked where they enter and read only as far as they are asked for."""
