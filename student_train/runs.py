"""From a command's options to results.json: what `train`, `ablate` and `few-shot` have alike."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from store.errors import InputError
from store.reader import Cache, open_cache
from student_train.checkpoint import readable_json
from student_train.config import TEST_SPLIT
from student_train.configuration import Configuration, Told, read_settings
from student_train.distributed import from_first, join_processes, rank
from student_train.evaluation.measure import measure
from student_train.evaluation.request import Request, is_current
from student_train.evaluation.results import assemble
from student_train.experiment import Experiment
from student_train.guard import TerminatedError, require_trusted
from student_train.run_folder import SETTINGS_FILE, Choice, RunFolder
from student_train.video_files import opened_videos

if TYPE_CHECKING:
    from store.decoded_frames import DecodedFrames

DONE = 0
ENDED_BY_SIGTERM = 143


@dataclass(frozen=True)
class Prepared:
    """What was asked for, and opened for it: the cache, and frames by view if videos were named."""

    cache: Cache
    configuration: Configuration
    out: Path
    frames: Mapping[str, DecodedFrames]

    def experiment(self, out: Path, choice: Choice) -> Experiment:
        """The run in the folder `out`; raises what `Experiment` does."""
        return Experiment(self.cache, RunFolder(out), choice, self.configuration.run.track, self.frames)


def with_prepared(options: argparse.Namespace, act: Callable[[Prepared], None]) -> int:
    """Resolve the settings, print them if that is all that is asked for, else `act`; the exit status.

    Raises InputError without --out or for a teacher that misses what was published of it, and what opening
    the cache and the videos raises.
    """
    join_processes()
    cache = open_cache(options.cache)
    file = read_settings(options.config) if hasattr(options, "config") else {}
    configuration = Told(file, getattr(options, "words", ())).resolve(cache)
    if options.print_config:
        if rank() == 0:
            print(configuration.to_yaml(), end="")
        return DONE
    if not hasattr(options, "out"):
        raise InputError("name the folder of the run: --out RUN")
    teachers = Choice.of(configuration).teachers
    if not options.despite_report:
        require_trusted(cache, teachers)
    cache.split(TEST_SPLIT)
    torch.set_num_threads(configuration.run.threads)
    with opened_videos(options, cache, teachers) as frames:
        try:
            act(Prepared(cache, configuration, options.out, frames))
        except TerminatedError as ended:
            print(ended, file=sys.stderr)
            return ENDED_BY_SIGTERM
    return DONE


def train_and_measure(experiment: Experiment, configuration: Configuration) -> dict[str, Any] | None:
    """Train and measure what is missing of the run, write results.json; what it holds, None if not rank 0."""
    run, settings, choice = experiment.run, configuration.run, experiment.choice
    experiment.check(settings.arms)
    if rank() == 0:
        run.require_own(experiment.cache, choice)
    request = Request(settings.arms, settings.seeds, choice.recipe.optimizer.lr, settings.evaluation)
    current = from_first(is_current(run, request) if rank() == 0 else None)
    if not current:
        experiment.try_out(settings.arms, settings.seeds)
    if rank() == 0:
        run.pin(experiment.cache, choice)
        run.write(SETTINGS_FILE, configuration.to_yaml().encode())
    if not current:
        selection = experiment.select_and_train(settings.arms, settings.seeds)
        if rank() == 0:
            began = time.perf_counter()
            measured = measure(experiment, request, selection.learning_rate)
            results = assemble(experiment, request, selection, measured, time.perf_counter() - began)
            run.unpublish()
            run.write("results.json", readable_json(results))
    return run.results() if rank() == 0 else None
