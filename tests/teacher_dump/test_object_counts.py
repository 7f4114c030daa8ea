"""Hubs like few files: a cache of MSR-VTT's size has far fewer than the 10,000 that they bear."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from store.layout import TableCounts, TeacherPlan
from store.publication import planned_signal_arrays, planned_view_arrays
from store.signals import SignalSpec
from teacher_dump.dump import dump
from teacher_dump.plan import execution
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers import xclip
from teacher_dump.teachers.base import TeacherOptions
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples

MOST_OBJECTS = 10_000
MSRVTT = TableCounts(10_000, 181_000)
AFA = ("frame_embedding", "text_embedding", "frame_relevance", "video_text_logits")
BATCHES = {"batch_videos": 32, "batch_texts": 256, "pixels": None}


def files_of_arrays(plan: TeacherPlan, counts: TableCounts) -> int:
    """Shards and metadata of every array whose rows are videos or texts: what grows with the dataset."""
    of_signals = (planned_signal_arrays(plan, spec, counts).values() for spec in plan.signals)
    arrays = [*planned_view_arrays(plan, counts).values(), *(array for some in of_signals for array in some)]
    return sum(1 + array.shard_count for array in arrays)


@pytest.fixture(scope="module")
def files_beside(tmp_path_factory) -> int:
    """How many files a cache has besides: tables, groups, manifests, reports; counted in a small one."""
    folder = tmp_path_factory.mktemp("count")
    settings = DumpSettings(batch_videos=2, batch_texts=3, threads=1, shard_rows=3, decoders=1)
    cache = dump(folder / "c.zarr", colour_samples(folder), ColourTeacher(), settings, {})
    files = sum(path.is_file() for path in cache.path.rglob("*"))
    plan = cache.teacher("colour").plan
    beside = files - files_of_arrays(plan, cache.counts)
    assert 40 < beside < 120
    return beside


@pytest.mark.parametrize(("layers", "most"), [((), 500), ((2, 5, 8, 11), 800)])
def test_an_msrvtt_size_cache_with_the_signals_of_afa_has_few_objects(files_beside, layers, most):
    with torch.device("meta"):
        teacher = xclip.official(TeacherOptions())
    sizes = {**{axis: teacher.frame_sizes[axis] for axis in "RM"}, "L": 50, "D": 768}
    specs = [spec for spec in teacher.signals if spec.name in AFA]
    specs += [SignalSpec(f"vit_layers/{layer}", sizes) for layer in layers]
    assert {spec.name for spec in specs} >= set(AFA)
    found = files_beside + files_of_arrays(plan_of(teacher, specs), MSRVTT)
    print(f"{found} objects")
    assert found < most < MOST_OBJECTS


def plan_of(teacher: xclip.XClipTeacher, specs: Sequence[SignalSpec]) -> TeacherPlan:
    rows = {"V": MSRVTT.videos, "T": MSRVTT.texts}
    fixed = execution(specs, rows, BATCHES, None)
    return TeacherPlan("xclip", {"logit_scale": 100.0}, teacher.view, tuple(specs), fixed, {})
