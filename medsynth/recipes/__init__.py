"""Recipes: a shard of the plan in, images and their parameters out."""

from medsynth.errors import SpecError
from medsynth.recipes.base import Recipe
from medsynth.recipes.out_of_focus import OutOfFocus
from medsynth.spec import Spec


def build(spec: Spec) -> Recipe:
    """The recipe that a spec asks for.

    Raises:
        SpecError: its settings are wrong, or this version has no such recipe.
    """
    if spec.recipe != "out_of_focus":
        raise SpecError(f"recipe: this version cannot make {spec.recipe!r}; use out_of_focus")
    if spec.skin:
        raise SpecError("skin: the recipe is out_of_focus; remove the section, or set recipe: skin")
    return OutOfFocus.from_spec(spec)
