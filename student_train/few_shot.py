"""python -m student_train few-shot: the same recipe with a few videos of each class, and with all of them.

Each number of shots is a run of its own in the folder, so shots and seeds may be added to it. Which videos
are the few is drawn from the seed of the training, alike for both arms; all are tested on all test videos.

    <run>/shots-<K>/        a run each, see `run_folder`; shots-all for all videos
    <run>/few_shot.json     what came out
    <run>/few_shot.md       the table
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from store.durable import write_file
from store.errors import InputError
from store.reader import Cache, open_cache
from student_train.checkpoint import readable_json
from student_train.config import TEST_SPLIT
from student_train.configuration import Configuration, Told, read_settings
from student_train.evaluation.measure import RECOGNITION, TEACHER, measure
from student_train.evaluation.report import table, with_spread
from student_train.evaluation.request import Request
from student_train.evaluation.results import assemble
from student_train.experiment import Experiment
from student_train.guard import require_trusted
from student_train.run_folder import SETTINGS_FILE, Choice, RunFolder
from student_train.video_files import opened_videos

ALL = "all"
SHOWN = ("top-1", "top-5", "mean class")
RESULTS, TABLE = "few_shot.json", "few_shot.md"


def few_shot(options: argparse.Namespace) -> int:
    """Train and measure every number of shots that is asked for, write what came out, print the table."""
    cache = open_cache(options.cache)
    file = read_settings(options.config) if hasattr(options, "config") else {}
    configuration = Told(file, getattr(options, "words", ())).resolve(cache)
    if options.print_config:
        print(configuration.to_yaml(), end="")
        return 0
    if not hasattr(options, "out"):
        raise InputError("name the folder of the runs: --out RUN")
    if not configuration.recipe.model.recognises:
        raise InputError(
            f"student {configuration.run.student!r} learns from captions, which have no shots; "
            "take one that recognises classes, e.g. --student text4vis"
        )
    if not options.despite_report:
        require_trusted(cache, Choice.of(configuration).teachers)
    cache.split(TEST_SPLIT)
    torch.set_num_threads(configuration.run.threads)
    with opened_videos(options, cache, Choice.of(configuration).teachers) as frames:
        experiments = {
            shots: Experiment(
                cache,
                RunFolder(options.out / f"shots-{shots}"),
                choice_of(configuration, shots, options.few_shot_epochs),
                configuration.run.track,
                frames,
            )
            for shots in shots_of(options.shots)
        }
        for experiment in experiments.values():
            experiment.check(configuration.run.arms)
        found = {
            shots: measured(experiment, configuration, shots) for shots, experiment in experiments.items()
        }
    results = {**told_of(configuration, cache), "shots": found}
    markdown = markdown_of(results)
    write_file(options.out / RESULTS, readable_json(results))
    write_file(options.out / TABLE, markdown.encode())
    print(markdown, end="")
    return 0


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


def measured(experiment: Experiment, configuration: Configuration, shots: str) -> dict[str, Any]:
    """Train what is missing; who -> metric -> mean, std, per_seed, and how it was trained."""
    print(f"-- {shots} of each class", flush=True)
    run, recipe = configuration.run, experiment.choice.recipe
    experiment.run.pin(experiment.cache, experiment.choice)
    experiment.run.write(SETTINGS_FILE, replace(configuration, recipe=recipe).to_yaml().encode())
    selection = experiment.select_and_train(run.arms, run.seeds)
    request = Request(run.arms, run.seeds, recipe.optimizer.lr, run.evaluation)
    began = time.perf_counter()
    found = measure(experiment, request, selection.learning_rate)
    results = assemble(experiment, request, selection, found, time.perf_counter() - began)
    experiment.run.write("results.json", readable_json(results))
    of_whom = {who: found[who].get(RECOGNITION, found[who]) for who in (TEACHER, *run.arms)}
    told = {"epochs": recipe.epochs, "learning_rate": selection.learning_rate}
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
