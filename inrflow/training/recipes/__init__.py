"""Recipes: ways to candidates, in the order in which they are tried, from the special to the general."""
