"""A cache is a standard Zarr v3 hierarchy: three libraries read the same numbers without our code."""

from __future__ import annotations

import json
import sys
from itertools import pairwise

import numpy as np
import pytest
import tensorstore
import xarray
import zarr

from store.reader import open_cache
from store.signals import Reduction, SignalSpec
from tests.conftest import ROOT
from tests.store.test_pair_scores import drawn, teacher_logits, write_planned_cache
from tests.store.test_writer_and_reader import tree
from tests.synthetic_cache import FRAMES, SIGNALS, write_synthetic_cache

LAYER = {"R": 1, "M": FRAMES, "L": 3}
STORED = (
    *SIGNALS,
    SignalSpec("vit_layers/2", {**LAYER, "D": 6}, "int8"),
    SignalSpec("vit_layers/3", {**LAYER, "D": 6}, "int8", reduction=Reduction("all", 6)),
    SignalSpec("word_embedding", {"W": 3, "D": 8}, "int8"),
)
FAILED = 2


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("caches") / "c.zarr"
    return open_cache(write_synthetic_cache(root, failed=frozenset({FAILED}), signals=STORED))


def arrays_of(cache):
    """Path below the cache of every array, by walking the zarr.json files."""
    documents = {
        path.parent.relative_to(cache.path).as_posix(): json.loads(path.read_bytes())
        for path in cache.path.rglob("zarr.json")
    }
    return {path: document for path, document in documents.items() if document["node_type"] == "array"}


def ours(cache):
    """Every signal as we read it, rows of failed videos left out: path -> (rows, values)."""
    teacher = cache.teacher("synthetic")
    for name, spec in teacher.signals.items():
        rows = np.arange(12)
        if name == "frame_relevance" or spec.row_axis == "V":
            rows = np.delete(rows, FAILED)
        stored = teacher.read(name, rows)
        parts = {"": stored} if isinstance(stored, np.ndarray) else stored.parts
        for part, values in parts.items():
            yield f"teachers/synthetic/{name}/{part}".rstrip("/"), rows, values


def with_zarr(root, path):
    return np.asarray(zarr.open_array(root / path, mode="r")[...])


def with_tensorstore(root, path):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(root / path)}}
    return tensorstore.open(spec, read=True).result().read().result()


def with_xarray(root, path):
    group, _, name = path.rpartition("/")
    opened = xarray.open_dataset(
        root, group=group, engine="zarr", consolidated=False, zarr_format=3, mask_and_scale=False
    )
    return opened[name].to_numpy()


READERS = [with_zarr, with_tensorstore, with_xarray]


# zarr-python warns of files beside the hierarchy, which the specification allows.
pytestmark = pytest.mark.filterwarnings("ignore:Object at")


@pytest.mark.parametrize("read", READERS)
def test_every_signal_reads_alike(cache, read):
    seen = 0
    for path, rows, values in ours(cache):
        np.testing.assert_array_equal(read(cache.path, path)[rows], values, err_msg=path)
        seen += 1
    assert seen == 5 + 2 * 3


@pytest.mark.parametrize("read", READERS)
def test_absent_rows_read_as_nan_never_as_zeros(cache, read):
    for name in ("frame_embedding", "video_text_logits", "frame_relevance", "vit_layers/2/token_scale"):
        assert np.isnan(read(cache.path, f"teachers/synthetic/{name}")[FAILED]).all()


@pytest.mark.parametrize("read", READERS)
def test_every_table_column_reads_alike(cache, read):
    paths = arrays_of(cache)
    for path in paths:
        assert read(cache.path, path).shape == tuple(paths[path]["shape"])
    offset, utf8 = read(cache.path, "texts/text_offset"), read(cache.path, "texts/text_utf8")
    texts = [bytes(utf8[a:b]).decode() for a, b in pairwise(offset)]
    assert texts == cache.texts
    np.testing.assert_array_equal(read(cache.path, "texts/video"), cache.text_video)
    np.testing.assert_array_equal(read(cache.path, "splits/val/video"), cache.split("val").video)


@pytest.mark.parametrize("read", READERS)
def test_planned_blocks_and_their_plan_read_alike(tmp_path, read):
    batches, logits = drawn(), teacher_logits()
    write_planned_cache(tmp_path / "c.zarr", batches, logits)
    video, text = (read(tmp_path / "c.zarr", f"plans/p/{name}") for name in ("video", "text"))
    blocks = read(tmp_path / "c.zarr", "teachers/synthetic/planned_scores/p")
    for step in range(batches.steps):
        np.testing.assert_array_equal(blocks[step], logits[video[step][:, None], text[step]])


def test_int8_is_decoded_by_the_formula_of_the_format(cache):
    path = "teachers/synthetic/vit_layers/2"
    values, scale, mean, deviation = (
        with_zarr(cache.path, f"{path}/{name}")
        for name in ("values", "token_scale", "channel_mean", "channel_scale")
    )
    decoded = values * scale[..., None].astype(np.float32) * deviation + mean
    rows = np.delete(np.arange(12), FAILED)
    ours = cache.teacher("synthetic").read_decoded("vit_layers/2", rows)
    np.testing.assert_allclose(decoded[rows], ours, rtol=1e-6)


def test_a_projection_is_undone_by_the_formula_of_the_format(cache):
    path = "teachers/synthetic/vit_layers/3"
    values, scale, mean, deviation, centre, basis = (
        with_zarr(cache.path, f"{path}/{name}")
        for name in (
            "values", "token_scale", "channel_mean", "channel_scale", "projection_mean", "projection_basis",
        )
    )  # fmt: skip
    z = values * scale[..., None].astype(np.float32) * deviation + mean
    rows = np.delete(np.arange(12), FAILED)
    ours = cache.teacher("synthetic").read_decoded("vit_layers/3", rows)
    np.testing.assert_allclose((z @ basis.T + centre)[rows], ours, atol=1e-5)


def test_every_array_names_its_dimensions_and_uses_plain_codecs_only(cache):
    allowed = {"bytes", "crc32c", "sharding_indexed"}
    for path, document in arrays_of(cache).items():
        assert len(set(document["dimension_names"])) == len(document["shape"]), path
        codecs = document["codecs"]
        inner = [c for codec in codecs for c in codec.get("configuration", {}).get("codecs", [])]
        assert {codec["name"] for codec in (*codecs, *inner)} <= allowed


def test_nothing_in_a_cache_tells_where_or_by_whom_it_was_made(cache):
    told = b"".join(tree(cache.path).values())
    for secret in (str(cache.path.parent), str(ROOT), sys.prefix):
        assert secret.encode() not in told
