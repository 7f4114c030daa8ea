"""What the commands of `python -m student_train` do; each returns the exit status."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from store.errors import InputError
from store.identity import differences, require_same
from store.lookup import load_plugin
from store.reader import open_cache
from student_train import students
from student_train.checkpoint import readable_json
from student_train.config import TEST_SPLIT, Recipe
from student_train.configuration import Configuration, Told, read_settings
from student_train.distributed import from_first, join_processes, rank
from student_train.evaluation.measure import measure
from student_train.evaluation.report import markdown
from student_train.evaluation.request import Request, is_current
from student_train.evaluation.results import assemble
from student_train.experiment import Experiment
from student_train.guard import TerminatedError, require_trusted
from student_train.run_folder import SETTINGS_FILE, Choice, RunFolder, identity_of, run_cache
from student_train.video_files import opened_videos

SAME_NUMBERS, OTHER_NUMBERS = 0, 1
ENDED_BY_SIGTERM = 143
WEIGHT_TOLERANCE = 1e-4
MEASURED_NOT_COMPARED = ("example",)


def train(options: argparse.Namespace) -> int:
    """Train what is not yet trained, write results.json, results.md and results.png, print the table."""
    join_processes()
    cache = open_cache(options.cache)
    file = read_settings(options.config) if hasattr(options, "config") else {}
    configuration = Told(file, getattr(options, "words", ())).resolve(cache)
    if options.print_config:
        print(configuration.to_yaml(), end="")
        return SAME_NUMBERS
    if not hasattr(options, "out"):
        raise InputError("name the folder of the run: --out RUN")
    choice = Choice.of(configuration)
    if not options.despite_report:
        require_trusted(cache, choice.teachers)
    cache.split(TEST_SPLIT)
    torch.set_num_threads(configuration.run.threads)
    with opened_videos(options, cache, choice.teachers) as frames:
        experiment = Experiment(cache, RunFolder(options.out), choice, configuration.run.track, frames)
        return train_what_is_missing(experiment, configuration)


def train_what_is_missing(experiment: Experiment, configuration: Configuration) -> int:
    """The run of `train`; its exit status."""
    run, settings, choice = experiment.run, configuration.run, experiment.choice
    experiment.check(settings.arms)
    if rank() == 0:
        run.pin(experiment.cache, choice)
        run.write(SETTINGS_FILE, configuration.to_yaml().encode())
    request = Request(settings.arms, settings.seeds, choice.recipe.optimizer.lr, settings.evaluation)
    current = from_first(is_current(run, request) if rank() == 0 else None)
    try:
        selection = None if current else experiment.select_and_train(settings.arms, request.seeds)
    except TerminatedError as ended:
        print(ended, file=sys.stderr)
        return ENDED_BY_SIGTERM
    if rank():
        return SAME_NUMBERS
    if selection is not None:
        began = time.perf_counter()
        measured = measure(experiment, request, selection.learning_rate)
        results = assemble(experiment, request, selection, measured, time.perf_counter() - began)
        run.write("results.json", readable_json(results))
    if not (current and run.is_published()):
        publish(run)
    print(markdown(run.results()), end="")
    print(f"\nWritten to {run.path}: results.json, results.md, results.png")
    return SAME_NUMBERS


def evaluate(options: argparse.Namespace) -> int:
    """Compute the run's numbers again from its saved students and the cache, and print them.

    Counts and ranks have to be equal; frame weights to 1e-4, since they are sums of floats.
    """
    run = RunFolder(options.run)
    config, results = run.config(), run.results()
    cache = open_cache(getattr(options, "cache", None) or run_cache(options.run, config))
    identity = config["identity"]
    torch.set_num_threads(identity["torch_threads"])
    module = load_plugin(students, "student", identity["student"])
    settings = identity["settings"]
    optimizer = {**settings["optimizer"], "lr": [results["learning_rate"]]}
    recipe = Recipe.from_dict({**settings, "optimizer": optimizer}, module.Config)
    choice = Choice(identity["teacher"], identity["student"], identity["recipe"], recipe, identity["roles"])
    way_out = "name the cache that it was trained from with --cache"
    require_same(identity, identity_of(cache, choice), f"the run in {run.path}", way_out)
    request = Request.from_dict(results["request"])
    with opened_videos(options, cache, choice.teachers) as frames:
        measured = measure(Experiment(cache, run, choice, frames=frames), request, results["learning_rate"])
    print(markdown({**results, **measured}), end="")
    other = list(other_numbers(results, measured))
    for field, was, now in other:
        print(f"differs: {field} was {was}, is {now}")
    if not other:
        print(f"\nThe same numbers as in {run.path / 'results.json'}")
    return OTHER_NUMBERS if other else SAME_NUMBERS


def report(options: argparse.Namespace) -> int:
    """Print the table and write it and the picture anew."""
    run = RunFolder(options.run)
    publish(run)
    print(markdown(run.results()), end="")
    print(f"\nWritten to {run.path}: results.md, results.png")
    return SAME_NUMBERS


def publish(run: RunFolder) -> None:
    """Write results.md and results.png; only here is matplotlib imported, which takes a second."""
    from student_train.evaluation.figure import draw

    results = run.results()
    run.write("results.md", markdown(results).encode())
    run.write("results.png", draw(results))


def other_numbers(results: dict[str, Any], measured: dict[str, Any]) -> Sequence[tuple[str, Any, Any]]:
    """(field, stored, measured) of every number that is not repeated."""
    keys = [key for key in measured if key not in MEASURED_NOT_COMPARED]
    stored, found = ({key: numbers.get(key) for key in keys} for numbers in (results, measured))
    return [
        (field, was, now)
        for field, was, now in differences(stored, found)
        if not (field.startswith("frame_weights.") and nearly_equal(was, now))
    ]


def nearly_equal(first: Any, second: Any) -> bool:
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(nearly_equal, first, second))
    return isinstance(first, float) and isinstance(second, float) and abs(first - second) <= WEIGHT_TOLERANCE
