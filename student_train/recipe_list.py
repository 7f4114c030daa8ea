"""python -m student_train recipes: the losses of each recipe, what it needs of the cache, how it learns."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from types import ModuleType

from store.lookup import check_name, load_plugin, look_up, plugin_names
from student_train import students
from student_train.config import TAUGHT, Recipe
from student_train.needs import in_role, roles_of, split_role
from student_train.students.base import losses_of


def recipe_needs(module: ModuleType, recipe: Recipe) -> tuple[str, ...]:
    """What student and losses of the taught arm read or start from, with their roles, in the order of first
    need."""
    terms = losses_of(module, recipe.model)
    taught = (
        in_role(need, split_role(name)[1])
        for name in recipe.weights(TAUGHT)
        for need in look_up("loss", split_role(name)[0], terms).needs
    )
    return tuple(dict.fromkeys((*recipe.model.needs, *recipe.model.starts_from, *taught)))


def require_known_roles(module: ModuleType, recipe: Recipe, roles: Iterable[str]) -> None:
    """Raise UnknownNameError for a role that no loss or model of the student `module` knows."""
    needs = [recipe_needs(module, one) for one in (recipe, *module.RECIPES.values())]
    known = roles_of(need for of_recipe in needs for need in of_recipe)
    for role in roles:
        check_name("role", role, known)


def recipes(options: argparse.Namespace) -> int:
    """Print the recipes of one student, or of all."""
    for student in [options.student] if options.student else plugin_names(students):
        module = load_plugin(students, "student", student)
        for name, recipe in module.RECIPES.items():
            print("\n".join(described(student, name, module, recipe)))
    return 0


def described(student: str, name: str, module: ModuleType, recipe: Recipe) -> Iterator[str]:
    """Lines about a recipe."""
    optimizer = recipe.optimizer
    losses = ", ".join(f"{weight:g} {loss}" for loss, weight in recipe.weights(TAUGHT).items())
    rates = ", ".join(f"{rate:g}" for rate in optimizer.lr)
    scaled = ", ".join(f"{start}* x {factor:g}" for start, factor in optimizer.lr_scale.items())
    yield f"{student} {name}"
    yield f"  losses     {losses}"
    yield f"  needs      {', '.join(recipe_needs(module, recipe))}"
    yield f"  learns by  {optimizer.name}, {optimizer.schedule}, {rates}{f' ({scaled})' if scaled else ''}"
    yield f"  for        {recipe.epochs} epochs of batches of {recipe.batch_size}, keeps the {recipe.keep}"
