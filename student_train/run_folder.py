"""A run: one folder of trainings that share a cache, a student and a recipe.

    <run>/config.json                              identity, pinned when the run begins; what its labels and
                                                   classes are, for other datasets; provenance
    <run>/configuration.yaml                       all settings of the last call, for --config
    <run>/trainings/<arm>-lr<rate>-seed<seed>/     one finished training each, see `checkpoint`
    <run>/results.json, results.md, results.png    what came out

Seeds, arms and learning rates are no part of the identity: asking for more of them adds trainings.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from store.durable import PARTIAL_SUFFIX, json_digest, read_json, write_file
from store.errors import DamagedCacheError, InputError, MissingFileError
from store.identity import PLUGIN, require_same
from store.lookup import load_plugin
from store.parts import group_at
from store.reader import Cache, TeacherReader
from store.untrusted import is_url
from student_train import students
from student_train.checkpoint import readable_json
from student_train.config import Recipe
from student_train.configuration import Configuration
from student_train.needs import MAIN
from student_train.teachers import Teachers
from student_train.training_rows import is_recognition

CONFIG_FILE = "config.json"
SETTINGS_FILE = "configuration.yaml"
PUBLISHED = ("results.md", "results.png")
NEEDED_KEYS = {
    CONFIG_FILE: {"identity", "cache", "provenance"},
    "results.json": {"request", "learning_rate", "teacher", "seconds", "bytes", "frame_weights"},
}
LIBRARIES = ("accelerate", "numpy", "safetensors", "tensorboard", "torch", "transformers", "zarr")
SEEN_ALIKE = ("frames", "size", "sampling", "stride", "resize")
"""Fields of a view: how many frames, which and how large; how often a video is seen may differ."""
TRAINER_VERSION = 1
"""Raised by hand when a training with the same configuration gives other numbers than before."""


@dataclass(frozen=True)
class Choice:
    """What is trained: names of teacher, student and recipe, the recipe with its overrides, and the names of
    other teachers by role."""

    teacher: str
    student: str
    recipe_name: str
    recipe: Recipe
    roles: Mapping[str, str] = field(default_factory=dict)

    @property
    def teachers(self) -> list[str]:
        """Names of all that are listened to."""
        return list(dict.fromkeys((self.teacher, *self.roles.values())))

    @classmethod
    def of(cls, configuration: Configuration) -> Choice:
        run = configuration.run
        assert run.teacher is not None
        assert run.recipe is not None
        return cls(run.teacher, run.student, run.recipe, configuration.recipe, run.roles)

    @classmethod
    def pinned(cls, identity: Mapping[str, Any], learning_rate: float) -> Choice:
        """What a run with this `identity` trains, at one of its rates."""
        settings, student = identity["settings"], identity["student"]
        optimizer = {**settings["optimizer"], "lr": [learning_rate]}
        config = load_plugin(students, "student", student).Config
        recipe = Recipe.from_dict({**settings, "optimizer": optimizer}, config)
        return cls(identity["teacher"], student, identity["recipe"], recipe, identity["roles"])


def identity_of(cache: Cache, choice: Choice) -> dict[str, Any]:
    """What must be the same for two trainings to belong to one run; plain JSON.

    The number of threads is part of it: sums of floats, and so the numbers, depend on it.
    """
    settings = choice.recipe.to_dict()
    del settings["optimizer"]["lr"]
    return {
        "cache": pinned_digests(cache, choice.teachers),
        "dataset": cache.dataset["name"],
        "teacher": choice.teacher,
        "roles": dict(choice.roles),
        "student": choice.student,
        "recipe": choice.recipe_name,
        "settings": settings,
        "torch_threads": torch.get_num_threads(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "trainer_version": TRAINER_VERSION,
    }


def pinned_digests(cache: Cache, teachers: Iterable[str]) -> dict[str, str]:
    """Digest by name of the parts that a training reads: the tables, its teachers, their views and plans.

    What others add to the cache, another teacher or view, changes none of them; rows that are appended do.
    """
    parts = {"tables": json_digest([record.to_dict() for record in cache.manifest.objects])}
    for name in teachers:
        parts |= {path: cache.manifest.groups[path] for path in cache.groups_of(name)}
    return parts


def labels_of(teacher: TeacherReader) -> dict[str, Any]:
    """What makes the labels of a teacher mean the same over another dataset, its name aside; plain JSON."""
    identity = {key: value for key, value in teacher.identity.items() if key != PLUGIN}
    return {"identity": identity, "view": {name: getattr(teacher.view, name) for name in SEEN_ALIKE}}


def run_cache(run: Path, config: Mapping[str, Any]) -> Path | str:
    """The cache that the run in the folder `run` was trained from: its folder, or its URL with the digest."""
    place = str(config["cache"])
    return place if is_url(place) else run / place


def still_read(pinned: Mapping[str, str], parts: Mapping[str, str]) -> dict[str, str]:
    """`parts` without signals that were added to a teacher since `pinned`: the run began without them."""
    groups = {path: group_at(path) for path in parts}
    added = {path for path, group in groups.items() if group is not None and group.part.addition}
    return {path: digest for path, digest in parts.items() if path in pinned or path not in added}


def provenance() -> dict[str, str]:
    """What the numbers came about with; told, never compared."""
    versions = {name: version(name) for name in LIBRARIES}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {"python": platform.python_version(), "machine": device, **versions}


class RunFolder:
    """The folder of a run at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; a run is a folder, name another with --out")

    def require_own(self, cache: Cache, choice: Choice) -> None:
        """Raise IdentityError if the run is another one's, InputError if the folder is no run's."""
        wanted = identity_of(cache, choice)
        if (self.path / CONFIG_FILE).exists():
            config = self.config()
            pinned = config["identity"].get("cache")
            if isinstance(pinned, dict):
                wanted["cache"] = still_read(pinned, wanted["cache"])
            began = config.get("provenance", {}).get("cache_digest", "")
            since = f"{cache.path.name} was added to since it began; " if cache.extends(began) else ""
            require_same(
                config["identity"],
                wanted,
                f"the run in {self.path}",
                f"{since}name another folder with --out, or remove {self.path}",
            )
            return
        others = self.path.iterdir() if self.path.exists() else ()
        if any(not entry.name.endswith(PARTIAL_SUFFIX) for entry in others):
            raise InputError(
                f"{self.path} holds other files, no {CONFIG_FILE}; name an empty folder by --out"
            )

    def pin(self, cache: Cache, choice: Choice) -> None:
        """Write config.json, unless there is one; raises as `require_own`."""
        self.require_own(cache, choice)
        if (self.path / CONFIG_FILE).exists():
            return
        where = cache.location or os.path.relpath(cache.path, self.path)
        told = {**provenance(), "cache_digest": cache.digest}
        main, roles = cache.teacher(choice.teacher), choice.roles.items()
        labels = {MAIN: labels_of(main), **{role: labels_of(cache.teacher(name)) for role, name in roles}}
        config = {
            "identity": identity_of(cache, choice),
            "cache": where,
            "labels": labels,
            "provenance": told,
        }
        if choice.recipe.model.recognises or is_recognition(cache):
            config["classes"] = Teachers(main, classes=choice.recipe.classes).class_names
        write_file(self.path / CONFIG_FILE, readable_json(config))

    def config(self) -> dict[str, Any]:
        """What was pinned; raises MissingFileError if `path` is no run."""
        return self._read(CONFIG_FILE)

    def results(self) -> dict[str, Any]:
        """results.json; raises MissingFileError if no training has finished."""
        return self._read("results.json")

    def _read(self, name: str) -> dict[str, Any]:
        if not (self.path / name).is_file():
            raise MissingFileError(
                f"no {name} in {self.path}; make it: python -m student_train train CACHE --out {self.path}"
            )
        document = read_json(self.path / name)
        if not isinstance(document, dict) or not NEEDED_KEYS[name] <= document.keys():
            raise DamagedCacheError(
                f"{self.path / name} was changed after it was written; remove it and train again"
            )
        return document

    def has_results(self) -> bool:
        return (self.path / "results.json").is_file()

    def unpublish(self) -> None:
        """Remove what tells of earlier results."""
        for name in PUBLISHED:
            (self.path / name).unlink(missing_ok=True)

    def is_published(self) -> bool:
        return all((self.path / name).is_file() for name in PUBLISHED)

    def write(self, name: str, content: bytes) -> None:
        write_file(self.path / name, content)

    def training(self, arm: str, learning_rate: float, seed: int) -> Path:
        """The folder of one training."""
        return self.path / "trainings" / f"{arm}-lr{learning_rate!r}-seed{seed}"
