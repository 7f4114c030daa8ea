"""python -m student_train few-shot: the same recipe with a few videos of each class, and with all of them.

Each number of shots is a run of its own in the folder, so shots and seeds may be added to it. Which videos
are the few is drawn from the seed of the training, alike for both arms; all are tested on all test videos.

    <run>/shots-<K>/        a run each, see `run_folder`; shots-all for all videos
    <run>/few_shot.json     what came out
    <run>/few_shot.md       the table
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from store.durable import write_file
from store.errors import InputError
from store.reader import Cache
from student_train.checkpoint import readable_json
from student_train.configuration import Configuration
from student_train.distributed import rank
from student_train.evaluation.measure import RECOGNITION, TEACHER
from student_train.evaluation.report import table, with_spread
from student_train.experiment import Experiment
from student_train.run_folder import Choice
from student_train.runs import Prepared, train_and_measure, with_prepared

ALL = "all"
SHOWN = ("top-1", "top-5", "mean class")
RESULTS, TABLE = "few_shot.json", "few_shot.md"


def few_shot(options: argparse.Namespace) -> int:
    """Train and measure every number of shots that is asked for, write what came out, print the table."""
    return with_prepared(options, partial(train_shots, options.shots, options.few_shot_epochs))


def train_shots(wanted: str, few_shot_epochs: int | None, prepared: Prepared) -> None:
    """The runs of `few-shot`; raises InputError for a student of captions, before anything is trained."""
    configuration = prepared.configuration
    if not configuration.recipe.model.recognises:
        raise InputError(
            f"student {configuration.run.student!r} learns from captions, which have no shots; "
            "take one that recognises classes, e.g. --student text4vis"
        )
    experiments = {
        shots: prepared.experiment(
            prepared.out / f"shots-{shots}", choice_of(configuration, shots, few_shot_epochs)
        )
        for shots in shots_of(wanted)
    }
    for experiment in experiments.values():
        experiment.check(configuration.run.arms)
    found = {shots: measured(experiment, configuration, shots) for shots, experiment in experiments.items()}
    if rank():
        return
    results = {**told_of(configuration, prepared.cache), "shots": found}
    markdown = markdown_of(results)
    write_file(prepared.out / RESULTS, readable_json(results))
    write_file(prepared.out / TABLE, markdown.encode())
    print(markdown, end="")


def told_of(configuration: Configuration, cache: Cache) -> dict[str, Any]:
    """What all numbers of shots have alike."""
    run = configuration.run
    return {
        "student": run.student,
        "recipe": run.recipe,
        "teacher": run.teacher,
        "cache": cache.digest,
        "seeds": list(run.seeds),
        "arms": list(run.arms),
    }


def shots_of(words: str) -> list[str]:
    """["1", "5", "all"] of "1,5,all"; raises InputError."""
    found = list(dict.fromkeys(word.strip() for word in words.split(",")))
    if wrong := [word for word in found if word != ALL and not (word.isdigit() and int(word))]:
        raise InputError(f"shots are numbers from 1, or {ALL!r}, like 1,5,{ALL}; got {wrong[0]!r}")
    return found


def choice_of(configuration: Configuration, shots: str, few_shot_epochs: int | None) -> Choice:
    """The training with so many videos of each class; with fewer than all for `few_shot_epochs`, if given, of
    which no more warm up than the recipe's own."""
    recipe = configuration.recipe
    if shots != ALL:
        epochs = recipe.epochs if few_shot_epochs is None else few_shot_epochs
        warmup = recipe.optimizer.warmup * min(1.0, recipe.epochs / epochs)
        optimizer = replace(recipe.optimizer, warmup=warmup)
        recipe = replace(recipe, shots=int(shots), epochs=epochs, optimizer=optimizer)
    return replace(Choice.of(configuration), recipe=recipe)


def measured(experiment: Experiment, configuration: Configuration, shots: str) -> dict[str, Any] | None:
    """Train what is missing; who -> metric -> mean, std, per_seed, and how it was trained.

    None if not rank 0.
    """
    recipe = experiment.choice.recipe
    if rank() == 0:
        print(f"-- {shots} of each class", flush=True)
    found = train_and_measure(experiment, replace(configuration, recipe=recipe))
    if found is None:
        return None
    of_whom = {who: found[who].get(RECOGNITION, found[who]) for who in (TEACHER, *configuration.run.arms)}
    told = {"epochs": recipe.epochs, "learning_rate": found["learning_rate"]}
    return {**of_whom, **told, "test": found["test"]}


def markdown_of(results: Mapping[str, Any]) -> str:
    """The table: one row a number of shots and arm; the teacher, who saw no video of these classes, first."""
    by_shots = results["shots"]
    first = next(iter(by_shots.values()))
    rows = [["videos of each class", "", *SHOWN]]
    if "absent" not in first[TEACHER]:
        rows.append(["0", TEACHER, *(with_spread(first[TEACHER][metric]) for metric in SHOWN)])
    for shots, found in by_shots.items():
        rows += [
            [shots, arm, *(with_spread(found[arm][metric]) for metric in SHOWN)] for arm in results["arms"]
        ]
    test, seeds = first["test"], ", ".join(map(str, results["seeds"]))
    return (
        f"# Few shots: {results['student']} (recipe {results['recipe']}) by {results['teacher']}\n\n"
        f"Test split: {test['videos']} videos, {test['classes']} classes. Accuracy in percent; mean ± "
        f"standard deviation over seeds {seeds}, which also draw the few videos. untaught: vision only, "
        f"taught: by the text of the class names.\n\n{table(rows)}\n"
    )
