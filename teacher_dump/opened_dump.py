"""Dataset, teacher and executor of a dump, loaded as its options say: for the dump and for its estimate."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from store.errors import InputError
from store.inputs.datasets import load_dataset, prepare_dataset
from store.lookup import check_name, plugin_names
from store.teacher_report import expected_split, parse_expectation
from teacher_dump import teachers
from teacher_dump.dump_options import dump_settings, parse_layers, teacher_options
from teacher_dump.settings import LOCAL, SERIAL, DumpSettings, checked_executor

if TYPE_CHECKING:
    from store.inputs.samples import Samples
    from teacher_dump.teachers.base import Teacher
    from teacher_dump.workers.executors import Executor


@dataclass(frozen=True)
class OpenedDump:
    """prepared: seconds by phase that the dataset took to make its files."""

    samples: Samples
    teacher: Teacher
    settings: DumpSettings
    executor: Executor
    prepared: dict[str, float]


def cache_path(arguments: argparse.Namespace) -> Path:
    """Where the cache lies."""
    path: Path = arguments.cache or Path("caches") / f"{arguments.dataset}.zarr"
    return path


@contextmanager
def opened_dump(arguments: argparse.Namespace) -> Iterator[OpenedDump]:
    """What `arguments` ask for; the executor ends with the context."""
    data = (arguments.data or Path("data") / arguments.dataset).absolute()
    check_name("teacher", arguments.teacher, plugin_names(teachers))
    is_local = checked_executor(arguments.executor).startswith(LOCAL)
    if arguments.worker_memory_gb is not None and not is_local:
        raise InputError(
            "--worker-memory-gb is of the workers of local:N; leave it out, or say --executor local:N"
        )
    layers, settings = parse_layers(arguments.layers), dump_settings(arguments)
    prepared = prepare_dataset(arguments.dataset, data)
    load_samples = partial(load_dataset, arguments.dataset, data, arguments.allow_missing)
    samples = load_samples()
    words = getattr(arguments, "expect_r1", None)
    if (stated := words and parse_expectation(words)) is not None:
        split = expected_split(samples.splits, stated[0])
        if not (arguments.extend or settings.pairs.ranks(split)):
            raise InputError(
                f"--expect-r1 can't be computed of these pairs, which are not all of split {split!r}; dump "
                f"with --topk 128 --topk-splits {split} as well"
            )

    from teacher_dump.workers.executors import open_executor
    from teacher_dump.workers.jobs import Sources, load_teacher

    options = teacher_options(arguments, layers)
    in_worker = options.absolute()
    if is_local:
        in_worker = replace(in_worker, device=settings.device or in_worker.device)
    sources = Sources(load_samples, partial(load_teacher, arguments.teacher, in_worker, arguments.name))
    if arguments.executor != SERIAL:
        options = replace(options, device="cpu")
    teacher = load_teacher(arguments.teacher, options, arguments.name)
    with open_executor(arguments.executor, sources, arguments.device, arguments.worker_memory_gb) as executor:
        yield OpenedDump(samples, teacher, settings, executor, prepared)
