"""The recipes by name, in the order in which `recipe=auto` tries them: from the special to the general."""

from __future__ import annotations

from inrflow.errors import UserError
from inrflow.training.recipes.auto_decoding import AutoDecodingRecipe
from inrflow.training.recipes.base import Recipe
from inrflow.training.recipes.joint import JointRecipe
from inrflow.training.recipes.law import LawRecipe
from inrflow.training.recipes.neural import NeuralRecipe
from inrflow.training.recipes.reduced_order import ReducedOrderRecipe
from inrflow.training.recipes.series import SeriesRecipe

RECIPES: list[Recipe] = [
    LawRecipe(), SeriesRecipe(), ReducedOrderRecipe(), NeuralRecipe(), AutoDecodingRecipe(), JointRecipe(),
]
ALIASES = {"coral": "auto_decoding", "local_equation": "law", "translation_equivariant": "law"}


def register_recipe(recipe: Recipe) -> Recipe:
    """Add a recipe, the last that `recipe=auto` tries and one that can be asked for by its name.

    Raises ValueError where the name is taken.
    """
    if any(recipe.name in ("auto", *ALIASES, other.name) for other in RECIPES):
        raise ValueError(f"the recipe {recipe.name!r} is registered already; choose another name")
    RECIPES.append(recipe)
    return recipe


def recipes_named(name: str) -> list[Recipe]:
    """All recipes for `auto`, else the one of a name. Raises UserError for an unknown name."""
    if name == "auto":
        return list(RECIPES)
    chosen = [recipe for recipe in RECIPES if recipe.name == ALIASES.get(name, name)]
    if not chosen:
        names = ", ".join(["auto", *(recipe.name for recipe in RECIPES), *ALIASES])
        raise UserError(f"recipe={name} is not known; choose from {names}")
    return chosen
