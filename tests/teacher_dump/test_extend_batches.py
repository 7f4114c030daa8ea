"""Where rows or other scores are added, batches and rankings stay of the rows that they were drawn from."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from store.errors import IdentityError, InputError
from store.verify import verify
from teacher_dump.dump import dump
from teacher_dump.pairs.layouts import BatchOptions, PairOptions
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples
from tests.teacher_dump.test_extend import (
    SETTINGS,
    CountingTeacher,
    files_of,
    grown,
    parts_of,
    untouched,
)

BATCHES = BatchOptions(batch=1, epochs=12, name="ones")
PLANNED = replace(SETTINGS, shard_rows=None, pairs=PairOptions(plan=BATCHES, topk=2))


@pytest.fixture(scope="module")
def with_batches(clips, tmp_path_factory):
    root = tmp_path_factory.mktemp("planned") / "c.zarr"
    return dump(root, colour_samples(clips), ColourTeacher(), PLANNED, {})


@pytest.mark.parametrize(
    "asked",
    [PLANNED, pytest.param(replace(PLANNED, pairs=PairOptions()), marks=pytest.mark.slow)],
    ids=["again", "silent"],
)
def test_rows_come_behind_batches_that_stay_as_they_were(with_batches, clips, tmp_path, asked):
    """Whether the user says again how pairs were scored, or nothing about them."""
    root = shutil.copytree(with_batches.path, tmp_path / "c.zarr")
    before = files_of(root)
    (told,) = parts_of(root, grown(clips), asked)
    assert re.search(
        r"planned_scores/ones and \d more: of the rows that it was drawn from, .* dump this teacher anew",
        "\n".join(told.lines()),
    )
    teacher = CountingTeacher()
    cache = dump(root, grown(clips), teacher, asked, {}, extend=True)
    assert (teacher.videos, teacher.texts, teacher.pairs) == (2, 3, 0)
    assert untouched(before, root)
    assert verify(root).faults == []
    reader = cache.teacher("colour")
    assert reader.read("frame_embedding", np.array([9])).shape[0] == 1
    _, known = reader.pair_scores(np.arange(10), np.arange(11))
    assert known[:6, :6].diagonal().all()
    assert not known[8:].any()
    assert not known[:, 8:].any()


def test_other_batches_of_an_extended_cache_are_refused_with_the_way_out(with_batches, clips):
    before, other = files_of(with_batches.path), PairOptions(plan=BatchOptions(2, 3))
    with pytest.raises(InputError, match=r"rows were appended to c.zarr, .*dump it into a new CACHE"):
        parts_of(with_batches.path, grown(clips), replace(PLANNED, pairs=other))
    assert files_of(with_batches.path) == before


@pytest.mark.slow
def test_batches_are_added_to_dense_scores_and_dense_scores_to_batches(with_batches, clips, tmp_path):
    settings, samples = replace(SETTINGS, shard_rows=None), colour_samples(clips)
    at_first = dump(tmp_path / "d.zarr", samples, ColourTeacher(), settings, {})
    both = dump(at_first.path, samples, ColourTeacher(), PLANNED, {}, extend=True).teacher("colour")
    assert {"planned_scores/ones", "video_text_logits", "topk_scores/text_score"} <= set(both.signals)
    others = replace(PLANNED, pairs=PairOptions(plan=BatchOptions(2, 3)))
    more = dump(at_first.path, samples, ColourTeacher(), others, {}, extend=True).teacher("colour")
    assert set(more.signals) == {*both.signals, "planned_scores/train-b2-e3-s0"}
    asked = replace(PLANNED, pairs=PairOptions(plan=replace(BATCHES, seed=1)))
    with pytest.raises(IdentityError, match=r"pairs\.plan\.seed"):
        dump(with_batches.path, samples, ColourTeacher(), asked, {}, extend=True)
    planned = shutil.copytree(with_batches.path, tmp_path / "p.zarr")
    with pytest.raises(IdentityError, match="planned_scores/ones: stored 'planned', wanted 'nothing'"):
        dump(planned, samples, ColourTeacher(), settings, {})
    dense = replace(settings, pairs=PairOptions(layout="dense"))
    cache = dump(planned, samples, ColourTeacher(), dense, {}, extend=True)
    assert cache.teacher("colour").pair_scores(np.arange(8), np.arange(8))[1].all()
    for path in (at_first.path, planned):
        assert verify(path).faults == []
