"""A finished teacher's signals stored another way, under a name of its own; the teacher itself is not needed.

The rows are dask arrays, a block a shard: a few shards are encoded at a time, by threads of this process or
by a cluster, and no more than those are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np

from store.calibration import SignalCodec, fitted_names
from store.errors import InputError
from store.inputs.samples import Samples
from store.layout import TableCounts, TeacherPlan, teacher_path
from store.ledger import Commit
from store.lookup import check_name
from store.parts import TEACHERS, groups_of
from store.publication import planned_signal_arrays
from store.reader import Cache, open_cache
from store.signals import plan_of
from store.tables import read_column
from store.writer import CacheWriter
from teacher_dump.calibrate import calibrate
from teacher_dump.out_of_core import SignalParts, opened_signal, signal_array, version
from teacher_dump.plan import CALIBRATION, StorageOptions
from teacher_dump.shard_files import SignalFiles, blocks, open_shards

AT_ONCE = 2
"""Shards in memory at a time, decoded and encoded."""


def reencode(root: Path, samples: Samples, source: str, name: str, encodings: Mapping[str, str]) -> Cache:
    """Add teacher `name` to the finished cache at `root`: the signals of `source`, stored in `encodings`.

    encodings: by signal, "vit_layers" for all layers; the others stay as they are. What it tells of its error
    is against the stored values of `source`. Resumes where it stopped. Raises UnknownNameError, IdentityError
    if `samples` is not the cache's dataset, InputError for what a batch plan's signals would need.
    """
    cache = open_cache(root)
    plan = reencoded_plan(cache, source, name, encodings)
    with CacheWriter(root, samples) as writer:
        writer.plan(plan)
        if not writer.is_complete(name):
            todo = dict(tasks(cache, plan, source, samples))
            for some in blocks(np.array([task for task in todo if task not in writer.ledger]), AT_ONCE):
                # What is fitted to a signal has to stand before its first shard is encoded.
                fitted = [task for task in some.tolist() if f"/{CALIBRATION}/" in task]
                for group in (fitted, [task for task in some.tolist() if task not in fitted]):
                    for commit in dask.compute(*(todo[task] for task in group)):
                        writer.commit(commit)
            writer.complete(plan, list(todo))
    return open_cache(root)


def reencoded_plan(cache: Cache, source: str, name: str, encodings: Mapping[str, str]) -> TeacherPlan:
    """The plan of `source` under another name, with other encodings; its identity tells what it came from."""
    check_name("teacher", source, cache.teacher_names)
    plan = cache.teacher(source).plan
    if name == source:
        raise InputError(f"the re-encoded teacher needs a name of its own, not {source!r}")
    planned = next((spec.name for spec in plan.signals if plan_of(spec.name)), None)
    if planned is not None:
        raise InputError(f"{planned} has steps of a batch plan for rows; it can't be re-encoded")
    if len(groups_of(cache.manifest.groups, TEACHERS, source)) > 1 or len(cache.tables.segments) > 1:
        raise InputError(
            f"rows or signals were added to {cache.path.name}; only a teacher of one piece is "
            "re-encoded, dump it anew with --encoding"
        )
    came_from = {"teacher": source, "sha256": version(cache, source)}
    return replace(
        plan,
        name=name,
        identity={**plan.identity, "reencoded_from": came_from},
        signals=StorageOptions(encodings).applied(plan.signals),
    )


def tasks(cache: Cache, plan: TeacherPlan, source: str, samples: Samples) -> Iterator[tuple[str, Any]]:
    """(name, what computes its Commit) of every task; what is fitted comes first."""
    if any(spec.is_calibrated for spec in plan.signals):
        yield f"{plan.name}/{CALIBRATION}/0", dask.delayed(partial(fit_again, cache.path, plan, samples))()
    for spec in plan.signals:
        step = plan.execution["shard_rows"][plan.execution["phase_of"][spec.name]]
        array = signal_array(cache, source, spec.name)
        for number, rows in enumerate(by_shard(array, step)):
            # Bound, not handed over: dask looks into whatever it is handed for work to do.
            write = dask.delayed(partial(write_shard, cache.path, plan, (spec.name, number), cache.counts))
            yield f"{plan.name}/{spec.name}/{number}", write(rows)


def by_shard(array: da.Array, step: int) -> Iterator[Any]:
    """The rows of each shard, delayed."""
    for start in range(0, array.shape[0], step):
        yield array[start : start + step].rechunk(-1).to_delayed().reshape(-1)[0]


def source_of(root: Path, plan: TeacherPlan, signal: str) -> SignalParts:
    """The stored rows that `plan` re-encodes."""
    came_from = plan.identity["reencoded_from"]
    return opened_signal(root.absolute(), came_from["teacher"], signal, came_from["sha256"])


def fit_again(root: Path, plan: TeacherPlan, samples: Samples) -> Commit:
    """Fit what int8 needs on a sample of what was stored."""

    def stored(axis: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        for spec in plan.signals:
            if spec.is_calibrated and spec.row_axis == axis:
                parts = source_of(root, plan, spec.name)
                found[spec.name] = parts.read(rows[parts.present[rows]])
        return found

    objects = calibrate(
        root,
        plan,
        TableCounts(len(samples.videos), len(samples.texts)),
        partial(stored, "V"),
        partial(stored, "T"),
    )
    return Commit(f"{plan.name}/{CALIBRATION}/0", tuple(objects))


def write_shard(
    root: Path, plan: TeacherPlan, which: tuple[str, int], counts: TableCounts, values: np.ndarray
) -> Commit:
    """Encode and write one shard of one signal; which: signal and number. values: all of its rows."""
    name, number = which
    spec = next(spec for spec in plan.signals if spec.name == name)
    path = f"{teacher_path(plan.name)}/{name}"
    codec = SignalCodec(spec, {part: read_column(root, f"{path}/{part}") for part in fitted_names(spec)})
    first = number * plan.execution["shard_rows"][plan.execution["phase_of"][name]]
    present = source_of(root, plan, name).present[first : first + len(values)]
    with ExitStack() as stack:
        arrays = planned_signal_arrays(plan, spec, counts)
        files = SignalFiles({name: open_shards(stack, root, path, arrays, number)}, {name: codec})
        for places in blocks(np.flatnonzero(present), 16):
            files.append(first + places, {name: values[places]})
        return Commit(f"{plan.name}/{name}/{number}", tuple(files.finish()), files.errors)
