"""How a teacher's signals are stored is chosen at dump time: layers, tokens, encodings, projections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from store.errors import IdentityError, InputError, UnknownNameError
from store.reader import open_cache
from store.reduction import reduce_tokens
from store.remove import remove_teacher
from store.writer import CacheWriter
from teacher_dump.__main__ import build_parser
from teacher_dump.dump import dump
from teacher_dump.dump_options import storage_options
from teacher_dump.plan import StorageOptions
from teacher_dump.settings import DumpSettings
from tests.store.test_writer_and_reader import tree
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples

PLAIN = DumpSettings(batch_videos=2, batch_texts=3, threads=1, shard_rows=3, decoders=1)
ROWS = np.arange(8)


def options(**chosen):
    return replace(PLAIN, storage=StorageOptions(**chosen))


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    """Layers as the teacher gives them, float32 [V, R, M, L, D]."""
    root = tmp_path_factory.mktemp("caches") / "whole.zarr"
    cache = dump(root, colour_samples(clips), ColourTeacher(layer=True), PLAIN, {})
    return cache.teacher("colour").read_decoded("vit_layers/0", ROWS)


@pytest.mark.parametrize(
    ("chosen", "shape", "most"),
    [
        ({"encodings": {"vit_layers": "int8"}}, (5, 192), 0.02),
        ({"tokens": "cls"}, (1, 192), 1e-3),
        ({"tokens": "pool2x2", "encodings": {"vit_layers": "int8"}}, (2, 192), 0.02),
        ({"width": 12}, (5, 12), 0.05),
        ({"width": 12, "encodings": {"vit_layers": "int8"}}, (5, 12), 0.05),
    ],
)
def test_layers_are_stored_as_chosen_and_tell_their_error(clips, whole, tmp_path, chosen, shape, most):
    cache = dump(tmp_path / "c.zarr", colour_samples(clips), ColourTeacher(layer=True), options(**chosen), {})
    teacher = cache.teacher("colour")
    spec = teacher.signals["vit_layers/0"]
    assert (spec.sizes["L"], spec.sizes["D"]) == shape
    decoded = teacher.read_decoded("vit_layers/0", ROWS)
    kept = reduce_tokens(whole, chosen.get("tokens", "all"))
    assert decoded.shape == kept.shape
    error = np.linalg.norm((decoded - kept).ravel()) / np.linalg.norm(kept.ravel())
    assert error <= most
    assert teacher.encoding_error("vit_layers/0")["relative_l2"] == pytest.approx(error, rel=0.05, abs=2e-4)


def test_embeddings_in_int8_still_score_pairs(clips, tmp_path):
    chosen = options(encodings={"frame_embedding": "int8", "text_embedding": "int8"})
    teacher = dump(tmp_path / "a.zarr", colour_samples(clips), ColourTeacher(), chosen, {}).teacher("colour")
    plain = dump(tmp_path / "b.zarr", colour_samples(clips), ColourTeacher(), PLAIN, {}).teacher("colour")
    stored = teacher.read("frame_embedding", ROWS)
    assert stored.parts["values"].dtype == np.int8
    scores, _ = teacher.pair_scores(ROWS, ROWS)
    np.testing.assert_allclose(scores, plain.pair_scores(ROWS, ROWS)[0], atol=0.1)


@pytest.mark.slow
def test_what_was_fitted_is_fitted_once_and_a_resume_gives_the_same_bytes(clips, tmp_path, monkeypatch):
    chosen = options(encodings={"vit_layers": "int8"}, width=12)
    teacher, samples = ColourTeacher(layer=True), colour_samples(clips)
    expected = tree(dump(tmp_path / "whole.zarr", samples, teacher, chosen, {}).path)
    for stop_after in (1, 2, 4, 7):
        counted = []

        def stop_early(self, done, commit=CacheWriter.commit, counted=counted, stop_after=stop_after):
            counted.append(done.task)
            if len(counted) > stop_after:
                raise KeyboardInterrupt
            commit(self, done)

        root = tmp_path / f"{stop_after}.zarr"
        with monkeypatch.context() as patch:
            patch.setattr(CacheWriter, "commit", stop_early)
            with pytest.raises(KeyboardInterrupt):
                dump(root, samples, teacher, chosen, {})
        dump(root, samples, teacher, chosen, {})
        assert {k: v for k, v in tree(root).items() if "reports" not in k} == {
            k: v for k, v in expected.items() if "reports" not in k
        }


def test_another_encoding_is_another_cache(clips, tmp_path):
    samples, teacher = colour_samples(clips), ColourTeacher(layer=True)
    dump(tmp_path / "c.zarr", samples, teacher, PLAIN, {})
    with pytest.raises(IdentityError, match="signals"):
        dump(tmp_path / "c.zarr", samples, teacher, options(encodings={"vit_layers": "int8"}), {})
    assert open_cache(tmp_path / "c.zarr").teacher("colour").signals["vit_layers/0"].encoding == "float16"


def test_a_sample_of_which_nothing_decodes_stops_the_dump_with_one_line(tmp_path):
    samples = colour_samples(tmp_path, broken=tuple(range(8)))
    with pytest.raises(InputError, match="'vit_layers/0': not one row of its sample could be encoded"):
        dump(
            tmp_path / "c.zarr",
            samples,
            ColourTeacher(layer=True),
            options(encodings={"vit_layers": "int8"}),
            {},
        )


@pytest.mark.parametrize(
    ("chosen", "error", "words"),
    [
        ({"encodings": {"vit_layer": "int8"}}, UnknownNameError, "did you mean 'vit_layers'"),
        ({"encodings": {"frame_relevance": "int8"}}, InputError, "stored as float16, not 'int8'"),
        ({"tokens": "half"}, InputError, "all, cls, pool2x2"),
        ({"width": 192}, InputError, "not less than the width 192"),
    ],
)
def test_options_that_mean_nothing_are_refused(chosen, error, words):
    with pytest.raises(error, match=words):
        StorageOptions(**chosen).applied(ColourTeacher(layer=True).signals)


def test_a_teacher_whose_options_can_not_work_is_removed_and_dumped_with_others(clips, tmp_path):
    samples, teacher = colour_samples(clips), ColourTeacher(layer=True)
    with pytest.raises(InputError, match="choose a smaller width"):
        dump(tmp_path / "c.zarr", samples, teacher, options(tokens="cls", width=40), {})
    with pytest.raises(IdentityError, match="python -m store remove CACHE --teacher colour"):
        dump(tmp_path / "c.zarr", samples, teacher, options(tokens="cls", width=4), {})
    remove_teacher(tmp_path / "c.zarr", "colour")
    mended = dump(tmp_path / "c.zarr", samples, teacher, options(tokens="cls", width=4), {})
    fresh = dump(tmp_path / "d.zarr", samples, teacher, options(tokens="cls", width=4), {})
    assert mended.digest == fresh.digest


def test_tokens_of_a_teacher_without_layers_are_refused():
    with pytest.raises(InputError, match="emits none; see --layers"):
        StorageOptions(tokens="cls").applied(ColourTeacher().signals)


def test_the_command_line_says_the_same():
    arguments = build_parser().parse_args(
        ["dump", "--encoding", "vit_layers=int8", "--encoding", "text_embedding=int8", "--tokens", "pool2x2"]
    )
    assert storage_options(arguments) == StorageOptions(
        {"vit_layers": "int8", "text_embedding": "int8"}, "pool2x2", None
    )
    with pytest.raises(InputError, match="vit_layers=int8, not 'int9'"):
        storage_options(build_parser().parse_args(["dump", "--encoding", "int9"]))
