"""Recipes: methods that propose candidates, in the order in which they are tried, from the special to the general."""
