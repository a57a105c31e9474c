"""Recipes: a shard of the plan in, images and their parameters out."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medsynth.corpus import schema
from medsynth.errors import SpecError
from medsynth.recipes.base import Recipe
from medsynth.recipes.out_of_focus import OutOfFocus
from medsynth.spec import Spec

if TYPE_CHECKING:
    from medsynth.recipes.skin import Skin


def build(spec: Spec) -> Recipe:
    """The recipe that a spec asks for.

    Raises:
        SpecError: its settings or its axes' values are wrong, or it has no source, or one that it cannot use.
        UserError: what its settings name cannot be used.
    """
    other = "skin" if spec.recipe == "out_of_focus" else "out_of_focus"
    if getattr(spec, other):
        raise SpecError(f"{other}: the recipe is {spec.recipe}; remove the section, or set recipe: {other}")
    recipe: Recipe = _skin().from_spec(spec) if spec.recipe == "skin" else OutOfFocus.from_spec(spec)
    if recipe.needs_sources and spec.source is None:
        raise SpecError("source: the recipe makes its images from tiles; name a catalog or a folder of images")
    if not recipe.needs_sources and spec.source is not None:
        raise SpecError(f"source: the recipe {spec.recipe} draws its images from nothing; remove the source")
    made = recipe.made_axes(spec.balance.axes)
    schema.check_axes(spec.balance.axes, made, recipe.parameters)
    return recipe


def rebuild(name: str, identity: Mapping[str, Any]) -> Recipe:
    """The recipe of an existing corpus, from the settings that its ``corpus.json`` holds.

    Raises:
        SpecError: this version has no such recipe, or does not understand its settings.
        UserError: this machine cannot make the same bytes.
    """
    if name == OutOfFocus.name:
        return OutOfFocus.from_identity(identity)
    if name == "skin":
        return _skin().from_identity(identity)
    raise SpecError(f"recipe: this version cannot make {name!r}; use the version that made the corpus")


def _skin() -> "type[Skin]":
    from medsynth.recipes.skin import Skin  # here, since torch takes every process seconds to import

    return Skin
