"""Text tables: CSV, and layouts of instruments and observation networks."""
