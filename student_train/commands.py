"""What the commands of `python -m student_train` do; each returns the exit status."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from store.identity import differences, require_same
from store.reader import open_cache
from student_train.distributed import require_one_process
from student_train.evaluation.measure import measure
from student_train.evaluation.report import markdown
from student_train.evaluation.request import Request
from student_train.experiment import Experiment
from student_train.run_folder import Choice, RunFolder, identity_of, run_cache
from student_train.runs import Prepared, train_and_measure, with_prepared
from student_train.video_files import opened_videos

SAME_NUMBERS, OTHER_NUMBERS = 0, 1
WEIGHT_TOLERANCE = 1e-4
MEASURED_NOT_COMPARED = ("example",)


def train(options: argparse.Namespace) -> int:
    """Train what is not yet trained, write results.json, results.md and results.png, print the table."""
    return with_prepared(options, train_and_report)


def train_and_report(prepared: Prepared) -> None:
    """The run of `train`."""
    configuration = prepared.configuration
    experiment = prepared.experiment(prepared.out, Choice.of(configuration))
    if train_and_measure(experiment, configuration) is None:
        return
    run = experiment.run
    if not run.is_published():
        publish(run)
    print(markdown(run.results()), end="")
    print(f"\nWritten to {run.path}: results.json, results.md, results.png")


def evaluate(options: argparse.Namespace) -> int:
    """Compute the run's numbers again from its saved students and the cache, and print them.

    Counts and ranks have to be equal; frame weights to 1e-4, since they are sums of floats. A cache that was
    added to since is read as it was.
    """
    require_one_process()
    run = RunFolder(options.run)
    config, results = run.config(), run.results()
    place = getattr(options, "cache", None) or run_cache(options.run, config)
    cache = open_cache(place)
    if cache.extends(began := config["provenance"]["cache_digest"]):
        cache = open_cache(place, began)
    identity = config["identity"]
    torch.set_num_threads(identity["torch_threads"])
    choice = Choice.pinned(identity, results["learning_rate"])
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
