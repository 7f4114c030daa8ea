"""Signals as dask arrays: blocks, the best k, statistics, and another encoding of what was stored."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import replace

import dask
import dask.array as da
import numpy as np
import pytest

from store.errors import InputError, UnknownNameError
from store.inputs.samples import Text
from store.reader import open_cache
from store.verify import verify
from store.writer import CacheWriter
from teacher_dump import out_of_core
from teacher_dump.dump import dump
from teacher_dump.out_of_core import score_array, signal_array, statistics, top_k
from teacher_dump.plan import StorageOptions
from teacher_dump.reencode import reencode
from teacher_dump.settings import DumpSettings
from tests.store.test_writer_and_reader import tree
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples

SETTINGS = DumpSettings(batch_videos=4, batch_texts=4, threads=1, shard_rows=4, decoders=1)
BROKEN = 2


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return colour_samples(tmp_path_factory.mktemp("clips"), broken=(BROKEN,))


@pytest.fixture(scope="module")
def cache(samples, tmp_path_factory):
    root = tmp_path_factory.mktemp("caches") / "c.zarr"
    return dump(root, samples, ColourTeacher(layer=True), SETTINGS, {})


@pytest.fixture
def own_cache(cache, tmp_path):
    """One to write into."""
    return shutil.copytree(cache.path, tmp_path / "own.zarr")


def test_a_signal_is_an_array_that_is_nan_where_a_video_failed(cache, monkeypatch):
    monkeypatch.setattr(out_of_core, "BLOCK_BYTES", 144)
    array = signal_array(cache, "colour", "frame_embedding")
    assert array.shape == (8, 1, 4, 3)
    assert array.numblocks[0] == 3
    found, fine = array.compute(scheduler="sync"), np.delete(np.arange(8), BROKEN)
    np.testing.assert_array_equal(found[fine], cache.teacher("colour").read("frame_embedding", fine))
    assert np.isnan(found[BROKEN]).all()
    with pytest.raises(UnknownNameError, match="stores no signal 'frames'"):
        signal_array(cache, "colour", "frames")


def test_the_rows_of_every_segment_are_in_the_array(own_cache, samples):
    more = replace(samples, texts=(*samples.texts, Text("again green", 1), Text("again red", 0)))
    before = signal_array(open_cache(own_cache), "colour", "text_embedding")
    grown = dump(own_cache, more, ColourTeacher(layer=True), SETTINGS, {}, extend=True)
    array, reader = signal_array(grown, "colour", "text_embedding"), grown.teacher("colour")
    assert array.name != before.name
    np.testing.assert_array_equal(array.compute(), reader.read("text_embedding", np.arange(10)))
    scores, _ = reader.pair_scores(np.arange(8), np.arange(10))
    for found in (score_array(grown, "colour"), signal_array(grown, "colour", "video_text_logits")):
        np.testing.assert_array_equal(found.compute(), scores.astype(np.float32))


@pytest.mark.slow
def test_another_process_computes_the_same_from_the_path_alone(cache):
    places, _ = top_k(score_array(cache, "colour"), 2)
    told = statistics(signal_array(cache, "colour", "vit_layers/0"))
    here = places.compute(scheduler="sync")
    with dask.config.set(scheduler="processes", num_workers=1):
        np.testing.assert_array_equal(places.compute(), here)
        assert statistics(signal_array(cache, "colour", "vit_layers/0")) == told


def test_the_best_k_of_a_matrix_are_found_without_holding_it():
    """Blocks of 120 KB of a matrix of 6 MB."""
    matrix = LargeScores((1_000, 1_500))
    scores = da.from_array(matrix, chunks=(20, 1_500), asarray=False, name="large")
    # What is imported at the first call is not counted.
    dask.compute(*top_k(scores[:20], 5), scheduler="sync")
    for axis, shape in ((1, (1_000, 5)), (0, (5, 1_500))):
        tracemalloc.start()
        places, best = dask.compute(*top_k(scores, 5, axis), scheduler="sync")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert places.shape == best.shape == shape
        assert peak < 4 * 1_000 * 1_500 / 2
        np.testing.assert_array_equal(best, np.take_along_axis(matrix[:, :], places, axis))


class LargeScores:
    """Scores that are made when they are asked for."""

    dtype, ndim = np.dtype(np.float32), 2

    def __init__(self, shape):
        self.shape = shape

    def __getitem__(self, key):
        videos, texts = (np.arange(length)[some] for length, some in zip(self.shape, key, strict=True))
        return np.sin(videos[:, None] * 7.0 + texts * 13.0).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_best_k_are_those_of_the_whole_matrix(cache, monkeypatch, axis, k):
    monkeypatch.setattr(out_of_core, "BLOCK_BYTES", 100)
    scores = score_array(cache, "colour")
    assert scores.numblocks[0] > 1
    places, best = (part.compute(scheduler="sync") for part in top_k(scores, k, axis))
    whole, known = cache.teacher("colour").pair_scores(np.arange(8), np.arange(8))
    ordered = -np.sort(-np.where(known, whole, -np.inf).astype(np.float32), axis=axis)
    wanted = ordered[:, :k] if axis else ordered[:k]
    np.testing.assert_array_equal(best, np.where(np.isneginf(wanted), np.nan, wanted))
    assert ((places == -1) == np.isnan(best)).all()
    taken = np.take_along_axis(whole.astype(np.float32), np.maximum(places, 0), axis)
    np.testing.assert_array_equal(taken[places >= 0], best[places >= 0])


def test_more_than_there_is_is_refused(cache):
    with pytest.raises(InputError, match="k from 1 to that, not 9"):
        top_k(score_array(cache, "colour"), 9)


def test_statistics_are_of_what_is_there(cache):
    told = statistics(signal_array(cache, "colour", "frame_embedding"))
    values = (
        cache.teacher("colour").read("frame_embedding", np.delete(np.arange(8), BROKEN)).astype(np.float64)
    )
    wanted = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
    assert told == pytest.approx({**wanted, "missing": 1 / 8}, rel=1e-6)


def test_a_reencoded_teacher_is_what_a_dump_in_that_encoding_gives(own_cache, samples, tmp_path):
    before = tree(own_cache)
    reencode(own_cache, samples, "colour", "colour-int8", {"vit_layers": "int8"})
    found = open_cache(own_cache)
    assert {
        path: content for path, content in tree(own_cache).items() if path.startswith("teachers/colour/")
    } == {path: content for path, content in before.items() if path.startswith("teachers/colour/")}
    storage = StorageOptions({"vit_layers": "int8"})
    settings = DumpSettings(4, 4, 1, 4, 1, storage=storage)
    direct = dump(tmp_path / "d.zarr", samples, ColourTeacher(layer=True), settings, {}).teacher("colour")
    fine = np.delete(np.arange(8), BROKEN)
    again = found.teacher("colour-int8")
    np.testing.assert_allclose(
        again.read_decoded("vit_layers/0", fine), direct.read_decoded("vit_layers/0", fine), atol=2e-2
    )
    assert 0 < again.encoding_error("vit_layers/0")["relative_l2"] < 0.02
    np.testing.assert_array_equal(again.read("text_embedding", fine), direct.read("text_embedding", fine))
    assert verify(own_cache).count == 0


def test_reencoding_resumes_and_does_nothing_twice(own_cache, samples, monkeypatch):
    commit, done = CacheWriter.commit, []

    def stop_early(self, one):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(one.task)
        commit(self, one)

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "commit", stop_early)
        with pytest.raises(KeyboardInterrupt):
            reencode(own_cache, samples, "colour", "small", {"vit_layers": "int8"})
    monkeypatch.setattr(CacheWriter, "commit", lambda self, one: (done.append(one.task), commit(self, one)))
    reencode(own_cache, samples, "colour", "small", {"vit_layers": "int8"})
    assert len(done) == len(set(done))
    assert verify(own_cache).count == 0
