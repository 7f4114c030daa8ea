"""What a run is told, resolved: defaults < recipe < YAML file < command line, in one namespace of settings.

`student`, `seeds`, `track` and other settings of the run stand beside those of the recipe (`epochs`,
`optimizer.lr`, `model.heads`, `losses.info_nce`, ...). What is printed can be fed back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from store.errors import InputError, MissingFileError
from store.lookup import check_name, load_plugin, look_up
from store.reader import Cache
from student_train import students
from student_train.config import ARMS, Recipe
from student_train.needs import split_role
from student_train.students.base import losses_of
from student_train.typed_fields import overridden, to_plain, updated

DEMO = "demo"
TRACKERS = ("wandb", "trackio")
MOST_SEED = 2**63


@dataclass(frozen=True)
class Evaluation:
    """What tables tell beside the plain ranks, marked as such.

    dual_softmax, query_bank: rank by scores re-weighted so, see `student_train.evaluation.reweighting`, whose
    temperatures the next two are. query_bank_rows: most rows of the train split that make a bank.
    """

    dual_softmax: bool = False
    query_bank: bool = False
    dual_softmax_temperature: float = 1.0
    query_bank_beta: float = 0.2
    query_bank_rows: int = 5000

    def __post_init__(self) -> None:
        if min(self.dual_softmax_temperature, self.query_bank_beta) <= 0 or self.query_bank_rows < 1:
            raise InputError(f"temperature, beta and rows of a bank lie above 0, got {self}")


@dataclass(frozen=True)
class RunSettings:
    """What is trained, and how often; None is chosen by what the cache holds.

    roles: teachers of the cache by the role in which losses name them. arms: in the order of ARMS. seeds: one
    training of each arm a seed. threads: of torch on the CPU. track: services that are told every step,
    beside TensorBoard.
    """

    student: str = "afa"
    recipe: str | None = None
    teacher: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    arms: tuple[str, ...] = ARMS
    seeds: tuple[int, ...] = (0, 1, 2)
    threads: int = 1
    track: tuple[str, ...] = ()
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        for arm in self.arms:
            check_name("arm", arm, ARMS)
        for service in self.track:
            check_name("tracker", service, TRACKERS)
        if not self.arms or len(set(self.arms)) < len(self.arms):
            raise InputError(f"arms is one of {', '.join(ARMS)}, or both, got {list(self.arms)}")
        good = all(0 <= seed < MOST_SEED for seed in self.seeds)
        if not self.seeds or not good or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds are different whole numbers like 1,2,3, got {list(self.seeds)}")
        if not 1 <= self.threads <= 1024:
            raise InputError(f"threads are between 1 and 1024, got {self.threads}")


@dataclass(frozen=True)
class Configuration:
    """`run`, in which nothing is left open, and the recipe with all that overrides it."""

    run: RunSettings
    recipe: Recipe

    def to_dict(self) -> dict[str, Any]:
        return {**to_plain(self.run), **self.recipe.to_dict()}

    def to_yaml(self) -> str:
        """The configuration for `--config`."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, width=110))


@dataclass(frozen=True)
class Told:
    """What a person said: `file`, plain settings, and then `words`, (dotted path, text) in order."""

    file: Mapping[str, Any] = field(default_factory=dict)
    words: Sequence[tuple[str, str]] = ()

    def resolve(self, cache: Cache) -> Configuration:
        """The configuration of a training from `cache`.

        Raises UnknownNameError for a setting, student, recipe or teacher that there is not, InputError for a
        value that does not fit.
        """
        run_names = {one.name for one in fields(RunSettings)}
        of_recipe = {one.name for one in fields(Recipe)}
        for name in (*self.file, *(path.partition(".")[0] for path, _ in self.words)):
            check_name("setting", str(name), run_names | of_recipe)
        run = self.put_into(RunSettings(), run_names)
        run = replace(run, arms=tuple(arm for arm in ARMS if arm in run.arms))
        module = load_plugin(students, "student", run.student)
        teacher = chosen_teacher(cache, run.teacher)
        for named in run.roles.values():
            check_name("teacher", named, cache.teacher_names)
        recipe_name = run.recipe or default_recipe(module, teacher)
        recipe: Recipe = look_up(f"{run.student} recipe", recipe_name, module.RECIPES)
        run = replace(run, teacher=teacher, recipe=recipe_name)
        recipe = self.put_into(recipe, of_recipe)
        for arm in ARMS:
            terms = losses_of(module, recipe.model_of(arm))
            for name in recipe.weights(arm):
                look_up("loss", split_role(name)[0], terms)
        return Configuration(run, recipe)

    def put_into(self, settings: Any, names: set[str]) -> Any:
        """`settings` with what is told about its fields `names`."""
        settings = updated(settings, {name: value for name, value in self.file.items() if name in names})
        for path, text in self.words:
            if path.partition(".")[0] in names:
                settings = overridden(settings, path, text)
        return settings


def default_recipe(module: ModuleType, teacher: str) -> str:
    """The demo's for its teachers, else the student's first one."""
    is_demo = teacher.split("_")[0] == DEMO and DEMO in module.RECIPES
    return DEMO if is_demo else next(iter(module.RECIPES))


def chosen_teacher(cache: Cache, name: str | None) -> str:
    """`name`, or the only teacher of the cache; raises InputError if there are several to choose from."""
    if name is not None:
        check_name("teacher", name, cache.teacher_names)
        return name
    if not cache.teacher_names:
        raise InputError(f"{cache.path} holds no teacher; dump one: make dump-teacher CACHE={cache.path}")
    if len(cache.teacher_names) != 1:
        raise InputError(
            f"{cache.path} has {', '.join(cache.teacher_names)} as teachers; name one by --teacher"
        )
    return cache.teacher_names[0]


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a YAML file; raises MissingFileError, or InputError for what is no mapping of names."""
    if not path.is_file():
        raise MissingFileError(f"no file {path}; --print-config > {path} makes one to start from")
    try:
        text = path.read_text(encoding="utf-8")
        twice = next(repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader)), None)
        found = yaml.safe_load(text) or {}
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text in UTF-8") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise InputError(f"{path}{line} is no YAML: {getattr(error, 'problem', error)}") from None
    if twice is not None:
        raise InputError(f"{path}, line {twice.start_mark.line + 1} sets {twice.value!r} a second time")
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no settings like `epochs: 10`, but {found!r}")
    return found


def repeated_keys(node: Any) -> Iterator[Any]:
    """The nodes of keys that their mapping has already; YAML would let the last one win silently."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield key
            seen.add(key.value)
            yield from repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from repeated_keys(value)
