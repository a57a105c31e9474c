"""Recipes: a shard of the plan in, images and their parameters out."""

from collections.abc import Mapping
from typing import Any

from medsynth.corpus import schema
from medsynth.errors import SpecError
from medsynth.recipes.base import Recipe
from medsynth.recipes.out_of_focus import OutOfFocus
from medsynth.spec import Spec


def build(spec: Spec) -> Recipe:
    """The recipe that a spec asks for.

    Raises:
        SpecError: its settings or its axes' values are wrong, it has no source, or this version has no such recipe.
    """
    if spec.recipe != "out_of_focus":
        raise SpecError(f"recipe: this version cannot make {spec.recipe!r}; use out_of_focus")
    if spec.skin:
        raise SpecError("skin: the recipe is out_of_focus; remove the section, or set recipe: skin")
    recipe = OutOfFocus.from_spec(spec)
    if recipe.needs_sources and spec.source is None:
        raise SpecError("source: the recipe makes its images from tiles; name a catalog or a folder of images")
    made = recipe.made_axes(spec.balance.axes)
    schema.check_axes(spec.balance.axes, made, recipe.parameters)
    return recipe


def rebuild(name: str, identity: Mapping[str, Any]) -> Recipe:
    """The recipe of an existing corpus, from the settings that its ``corpus.json`` holds.

    Raises:
        SpecError: this version has no such recipe, or does not understand its settings.
    """
    if name != OutOfFocus.name:
        raise SpecError(f"recipe: this version cannot make {name!r}; use the version that made the corpus")
    return OutOfFocus.from_identity(identity)
