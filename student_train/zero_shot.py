"""python -m student_train zero-shot: a run's students among classes that they were not trained on.

The classifier is swapped: its rows are read from the cache of another dataset, or of the run's own one, of
which the recipe left classes out (`classes`). Text4Vis, table 9; UCF-101 and HMDB-51 are also reported by
halves of their classes (`student_train.evaluation.half_classes`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from store.errors import InputError, MissingFileError
from store.identity import require_same
from store.lookup import load_plugin
from store.reader import open_cache
from store.retrieval_metrics import RECOGNITION_METRICS, recognition_metrics
from student_train import students
from student_train.checkpoint import load_parameters, load_story
from student_train.config import TAUGHT, Recipe
from student_train.distributed import require_one_process
from student_train.evaluation.half_classes import half_class_metrics
from student_train.evaluation.measure import TEACHER, spread
from student_train.evaluation.recognition import Recognition, class_scores, teacher_recognition
from student_train.evaluation.report import table, with_spread
from student_train.evaluation.rows import ClassRows, class_rows
from student_train.needs import MAIN, PIXELS
from student_train.recipe_list import require_known_roles
from student_train.run_folder import Choice, RunFolder, labels_of, run_cache
from student_train.stream import require
from student_train.students.base import Student
from student_train.teachers import Teachers
from student_train.video_files import opened_videos, require_videos

HALVES = "of half the classes"
NOT_TRAINED = 1.0
"""A learning rate that nothing learns with."""


def zero_shot(options: argparse.Namespace) -> int:
    """Print the table: the teacher and the run's taught students, among all classes and among halves."""
    require_one_process()
    run = RunFolder(options.run)
    config = run.config()
    identity = config["identity"]
    torch.set_num_threads(identity["torch_threads"])
    choice = Choice.pinned(identity, NOT_TRAINED)
    if not choice.recipe.model.swaps_classes:
        raise InputError(
            f"the students in {options.run} learned a classifier of their own classes; only a frozen one can "
            "be swapped, e.g. that of --student text4vis with classifier=text"
        )
    cache = open_cache(options.cache or run_cache(options.run, config))
    choice = replace(
        choice, teacher=options.teacher or choice.teacher, roles={**choice.roles, **dict(options.role)}
    )
    module = load_plugin(students, "student", choice.student)
    require_known_roles(module, choice.recipe, choice.roles)
    with opened_videos(options, cache, choice.teachers) as frames:
        main, roles = cache.teacher(choice.teacher), choice.roles.items()
        teachers = Teachers(main, {role: cache.teacher(name) for role, name in roles}, frames=frames)
        require_same_labels(options.run, config, teachers)
        if not options.cache:
            teachers = left_out(options.run, choice.recipe, teachers)
        rows = class_rows(cache, teachers, options.split)
        require_videos(frames, choice.student, PIXELS in choice.recipe.model.needs, rows.video)
        found = [
            measured(student_of(module, choice.recipe, teachers, folder), teachers, rows)
            for folder in finished(run, TAUGHT)
        ]
    classes = told_of_classes(teachers.class_names, config.get("classes", ()))
    title = f"# Zero-shot: {cache.dataset['name']}, {classes}, {len(rows.video)} videos"
    print(f"{title}\n\n{table(lines(found, teacher_recognition(teachers.main, rows)))}")
    return 0


def require_same_labels(run: Path, config: Mapping[str, Any], teachers: Teachers) -> None:
    """Raise IdentityError unless `teachers` say what those of the run said, of frames chosen alike."""
    if "labels" not in config:
        raise InputError(f"the run in {run} does not tell what taught it; train it again to swap its classes")
    labels = config["labels"]
    for role in (MAIN, *teachers.roles):
        now = teachers.in_role(role)
        require_same(
            labels.get(role, labels[MAIN]),
            labels_of(now),
            f"what taught the run in {run}",
            f"dump {now.cache.dataset['name']} by the same teacher",
        )


def left_out(run: Path, recipe: Recipe, teachers: Teachers) -> Teachers:
    """Of the run's own cache the classes that it did not train on; raises InputError if there are none."""
    every, trained = range(teachers.class_text.shape[1]), recipe.classes
    others = tuple(number for number in every if trained is not None and number not in trained)
    if not others:
        raise InputError(
            f"the run in {run} was trained on every class of its cache; name the cache of another dataset "
            "by --cache, or train with some of the classes: --set classes=0,1,2"
        )
    return replace(teachers, classes=others)


def told_of_classes(names: Sequence[str], trained: Sequence[str]) -> str:
    """How many classes, and how many of them the students were trained on, by their names."""
    seen = {name.casefold() for name in trained}
    again = sum(name.casefold() in seen for name in names)
    told = f"of {again} of which" if again else "of none of which"
    return f"{len(names)} classes, {told} the students saw videos by that name"


def finished(run: RunFolder, arm: str) -> list[Path]:
    """Folders of the run's finished trainings of `arm`; raises MissingFileError without any."""
    folders = sorted(run.path.glob(f"trainings/{arm}-*"))
    found = [folder for folder in folders if load_story(folder) is not None]
    if not found:
        raise MissingFileError(f"{run.path} holds no finished training of the arm {arm!r}; train it first")
    return found


def student_of(module: ModuleType, recipe: Recipe, teachers: Teachers, folder: Path) -> Student:
    """The student of a training, for the classes and signals of `teachers`.

    Raises InputError where its parameters have other sizes.
    """
    require(teachers, (*recipe.model.needs, *recipe.model.shaped_by))
    student: Student = module.build(recipe.model, teachers.sizes(recipe.model.needs))
    state, wanted = load_parameters(folder), student.state_dict()
    for name, value in wanted.items():
        if name not in state or state[name].shape != value.shape:
            there = tuple(state[name].shape) if name in state else "missing"
            raise InputError(
                f"{folder.name} does not fit this cache: {name} is {there}, expected {tuple(value.shape)}; "
                "frames have to be as wide and as many"
            )
    student.load_state_dict(state)
    return student


def measured(student: Student, teachers: Teachers, rows: ClassRows) -> dict[str, dict[str, float]]:
    """Metrics among all classes, and their mean over the halves."""
    scores = class_scores(student, teachers, rows)
    halves = half_class_metrics(scores, rows.label)
    of_halves = {name: float(np.mean([one[name] for one in halves])) for name in RECOGNITION_METRICS}
    return {"": recognition_metrics(scores, rows.label), HALVES: of_halves}


def lines(
    found: Sequence[dict[str, dict[str, float]]], teacher: Recognition | dict[str, Any]
) -> list[list[str]]:
    """Of the table: the teacher, and the students with the spread over the run's seeds."""
    rows = [["", "", *RECOGNITION_METRICS]]
    if isinstance(teacher, Recognition):
        rows.append([TEACHER, "", *(f"{teacher.metrics[name]:.1f}" for name in RECOGNITION_METRICS)])
    for kind in ("", HALVES):
        values = [spread([one[kind][name] for one in found]) for name in RECOGNITION_METRICS]
        rows.append([TAUGHT, kind, *map(with_spread, values)])
    return rows
