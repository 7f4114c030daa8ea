"""python -m student_train zero-shot: a run's students among classes that they were not trained on.

The classifier is swapped: its rows are read from the cache of another dataset, or of the run's own one, of
which the recipe left classes out (`classes`). Text4Vis, table 9; UCF-101 and HMDB-51 are also reported by
halves of their classes (`student_train.evaluation.half_classes`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from store.errors import InputError, MissingFileError
from store.lookup import load_plugin
from store.reader import open_cache
from store.retrieval_metrics import RECOGNITION_METRICS, recognition_metrics
from student_train import students
from student_train.checkpoint import load_parameters, load_story
from student_train.config import TAUGHT, Recipe
from student_train.evaluation.half_classes import half_class_metrics
from student_train.evaluation.measure import TEACHER, spread
from student_train.evaluation.recognition import Recognition, class_scores, teacher_recognition
from student_train.evaluation.report import table, with_spread
from student_train.evaluation.rows import ClassRows, class_rows
from student_train.run_folder import RunFolder, run_cache
from student_train.stream import require
from student_train.students.base import Student
from student_train.teachers import Teachers

HALVES = "of half the classes"


def zero_shot(options: argparse.Namespace) -> int:
    """Print the table: the teacher and the run's taught students, among all classes and among halves."""
    run = RunFolder(options.run)
    config = run.config()
    identity = config["identity"]
    module = load_plugin(students, "student", identity["student"])
    settings = identity["settings"]
    recipe = Recipe.from_dict(
        {**settings, "optimizer": {**settings["optimizer"], "lr": [1.0]}}, module.Config
    )
    torch.set_num_threads(identity["torch_threads"])
    teachers = teachers_of(options, config, recipe)
    rows = class_rows(teachers.cache, teachers, options.split)
    found = [
        measured(student_of(module, recipe, teachers, folder), teachers, rows)
        for folder in finished(run, TAUGHT)
    ]
    print(markdown(found, teacher_recognition(teachers.main, rows), rows, teachers), end="")
    return 0


def teachers_of(options: argparse.Namespace, config: Mapping[str, Any], recipe: Recipe) -> Teachers:
    """Of the other cache all classes; of the run's own those that it did not train on. Roles are filled as in
    the run, but for those that are told.

    Raises InputError if there are no such classes, UnknownNameError for a teacher that the cache has not.
    """
    identity = config["identity"]
    cache = open_cache(options.cache or run_cache(options.run, config))
    main = cache.teacher(options.teacher or identity["teacher"])
    roles = {role: cache.teacher(name) for role, name in {**identity["roles"], **dict(options.role)}.items()}
    if options.cache:
        return Teachers(main, roles)
    every = range(Teachers(main).class_text.shape[1])
    others = tuple(number for number in every if recipe.classes is not None and number not in recipe.classes)
    if not others:
        raise InputError(
            f"the run in {options.run} was trained on every class of its cache; name the cache of another "
            "dataset by --cache, or train with some of the classes: --set classes=0,1,2"
        )
    return Teachers(main, roles, others)


def finished(run: RunFolder, arm: str) -> list[Path]:
    """Folders of the run's finished trainings of `arm`; raises MissingFileError without any."""
    folders = sorted(run.path.glob(f"trainings/{arm}-*"))
    found = [folder for folder in folders if load_story(folder) is not None]
    if not found:
        raise MissingFileError(f"{run.path} holds no finished training of the arm {arm!r}; train it first")
    return found


def student_of(module: ModuleType, recipe: Recipe, teachers: Teachers, folder: Path) -> Student:
    """The student of a training, for the classes and signals of `teachers`.

    Raises InputError where its parameters belong to the classes that it was trained on.
    """
    require(teachers, (*recipe.model.needs, *recipe.model.shaped_by))
    student: Student = module.build(recipe.model, teachers.sizes(recipe.model.needs))
    state, wanted = load_parameters(folder), student.state_dict()
    for name, value in wanted.items():
        if name not in state or state[name].shape != value.shape:
            there = tuple(state[name].shape) if name in state else "missing"
            raise InputError(
                f"{folder.name} does not fit this cache: {name} is {there}, expected {tuple(value.shape)}; "
                "only a frozen classifier can be swapped, and frames have to be as wide and as many"
            )
    student.load_state_dict(state)
    return student


def measured(student: Student, teachers: Teachers, rows: ClassRows) -> dict[str, dict[str, float]]:
    """Metrics among all classes, and their mean over the halves."""
    scores = class_scores(student, teachers, rows)
    halves = half_class_metrics(scores, rows.label)
    of_halves = {name: float(np.mean([one[name] for one in halves])) for name in RECOGNITION_METRICS}
    return {"": recognition_metrics(scores, rows.label), HALVES: of_halves}


def markdown(
    found: list[dict[str, dict[str, float]]],
    teacher: Recognition | dict[str, Any],
    rows: ClassRows,
    teachers: Teachers,
) -> str:
    """The table, with the spread over the run's seeds."""
    lines = [["", "", *RECOGNITION_METRICS]]
    if isinstance(teacher, Recognition):
        lines.append([TEACHER, "", *(f"{teacher.metrics[name]:.1f}" for name in RECOGNITION_METRICS)])
    for kind in ("", HALVES):
        values = [spread([one[kind][name] for one in found]) for name in RECOGNITION_METRICS]
        lines.append([TAUGHT, kind, *map(with_spread, values)])
    return (
        f"# Zero-shot: {teachers.cache.dataset['name']}, {rows.text.shape[1]} classes that no student was "
        f"trained on, {len(rows.video)} videos\n\n{table(lines)}\n"
    )
