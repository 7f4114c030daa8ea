"""Reading a finished cache: tables and small signals from RAM, large ones from their shards.

`open_cache` checks manifests and sizes before it hands anything out; every row's crc32c is checked
when this process first reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from store.calibration import EncodedRows, SignalCodec
from store.contents import (
    check_dataset,
    check_rows,
    check_view,
    read_attributes,
    read_plan,
    require_arrays,
    table_arrays,
    table_counts,
    teacher_contents,
    view_contents,
)
from store.durable import read_json
from store.errors import (
    DamagedCacheError,
    IncompleteCacheError,
    InputError,
    MissingFileError,
    UnknownNameError,
)
from store.identity import require_same
from store.inputs.samples import Split
from store.inputs.view import View
from store.kept_pixels import KeptPixels, PixelRows
from store.layout import (
    FORMAT_NAME,
    FORMAT_VERSION,
    STATES,
    TableCounts,
    plan_path,
    teacher_path,
    view_path,
)
from store.lookup import check_name
from store.manifest import MANIFEST, Manifest
from store.pair_scores import (
    DENSE,
    FACTORED,
    PLANNED,
    PLANNED_TOPK,
    TOPK,
    DenseScores,
    FactoredScores,
    PairScorer,
    PairScores,
    PlannedScores,
    TopkScores,
)
from store.planned_topk import PlannedTopk, PlannedTopkScores, topk_plan
from store.plans import PlannedBatches
from store.sharded_rows import ShardedRows, row_numbers
from store.signal_rows import Batch, BatchBuffers, SignalRows
from store.signals import SignalSpec
from store.tables import read_batch_plan, read_column, read_strings
from store.untrusted import is_count, is_of, require_plain_tree, shown

RESIDENT_BYTES = 1 << 28
MOST_ABSENT = 16
ENCODING_ERRORS = ("relative_l2", "max_abs", "mean_cosine", "min_cosine")


class Cache:
    """A complete cache at `path`, read-only. Use `open_cache`."""

    def __init__(self, path: Path, manifest: Manifest, root: Mapping[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.dataset: Mapping[str, Any] = root["dataset"]

    @property
    def digest(self) -> str:
        """Names the whole cache: the self-digest of the root's manifest."""
        return self.manifest.digest

    @property
    def reports_dir(self) -> Path:
        """Where reports about the cache lie, outside its digest; may not exist."""
        return self.path / "reports"

    @cached_property
    def video_ids(self) -> list[str]:
        return read_strings(self.path, "videos/id")

    @cached_property
    def moment_s(self) -> np.ndarray:
        """[V, 2] float32: start and end, in seconds, of what the captions describe; NaN if unknown."""
        return read_column(self.path, "videos/moment_s")

    @cached_property
    def video_class(self) -> np.ndarray:
        """[V] int64: the text row of each video's class, -1 where it has none."""
        return check_rows("videos/class", read_column(self.path, "videos/class"), -1, self.dataset["texts"])

    @property
    def protocol(self) -> str:
        """How the dataset is evaluated, one of `store.inputs.protocol.PROTOCOLS`."""
        return str(self.dataset["protocol"])

    @cached_property
    def texts(self) -> list[str]:
        return read_strings(self.path, "texts/text")

    @cached_property
    def text_video(self) -> np.ndarray:
        """[T] int64: the video row of each text, -1 for a class name."""
        return check_rows("texts/video", read_column(self.path, "texts/video"), -1, self.dataset["videos"])

    def siblings(self, text_rows: np.ndarray) -> np.ndarray:
        """[B, B] bool: which other captions of the batch `text_rows` [B] belong to the same video."""
        video = self.text_video[text_rows]
        same = video[:, np.newaxis] == video
        np.fill_diagonal(same, False)
        return same & (video >= 0)

    def batch_plan(self, name: str) -> PlannedBatches:
        """A stored batch plan; raises UnknownNameError listing what there is."""
        plans = sorted(path.split("/", 1)[1] for path in self.manifest.groups if path.startswith("plans/"))
        check_name("batch plan", name, plans)
        self.group_manifest(plan_path(name))
        plan = read_batch_plan(self.path, name)
        check_rows(f"{plan_path(name)}/video", plan.video.reshape(-1), 0, self.dataset["videos"])
        check_rows(f"{plan_path(name)}/text", plan.text.reshape(-1), 0, self.dataset["texts"])
        return plan

    @property
    def counts(self) -> TableCounts:
        """Lengths of the row axes, those of the batch plans included."""
        return table_counts(self.path, self.dataset, self.manifest.groups)

    @property
    def splits(self) -> list[str]:
        return sorted(self.dataset["splits"])

    def split(self, name: str) -> Split:
        """Row numbers of a split; raises UnknownNameError listing what there is."""
        check_name("split", name, self.splits)
        video, text = f"splits/{name}/video", f"splits/{name}/text"
        return Split(
            check_rows(video, read_column(self.path, video), 0, self.dataset["videos"]),
            check_rows(text, read_column(self.path, text), 0, self.dataset["texts"]),
        )

    @property
    def teacher_names(self) -> list[str]:
        return sorted(path.split("/", 1)[1] for path in self.manifest.groups if path.startswith("teachers/"))

    def teacher(self, name: str, resident_bytes: int = RESIDENT_BYTES) -> TeacherReader:
        """One teacher's signals, up to `resident_bytes` of them held in RAM.

        Raises UnknownNameError listing what there is.
        """
        check_name("teacher", name, self.teacher_names)
        return TeacherReader(self, name, resident_bytes)

    def group_manifest(self, path: str) -> Manifest:
        """The manifest of a view, teacher or batch plan, held to its digest; its files to it."""
        if path not in self.manifest.groups:
            raise DamagedCacheError(f"{MANIFEST} of {self.path.name} names no {path}; pull the cache again")
        manifest = Manifest.read(self.path, path, self.manifest.groups[path])
        manifest.check(self.path)
        return manifest


class TeacherReader:
    """The signals of one teacher, by row numbers, as they are stored; threads may share it.

    Signals are loaded whole into RAM at first use while they fit in `resident_bytes`, of those asked for
    together the smallest first; the others are read from their shards. Memory: see `store.signal_rows`.
    """

    def __init__(self, cache: Cache, name: str, resident_bytes: int = RESIDENT_BYTES) -> None:
        self.cache = cache
        self.name = name
        self.path = teacher_path(name)
        self._manifest = cache.group_manifest(self.path)
        self.plan = read_plan(cache.path, name)
        self.signals: dict[str, SignalSpec] = {spec.name: spec for spec in self.plan.signals}
        self._view_path = view_path(self.view.name)
        cache.group_manifest(self._view_path)
        check_view(cache.path, self.view)
        counts = cache.counts
        require_arrays(cache.path, view_contents(cache.path, self.view, counts.videos))
        require_arrays(cache.path, teacher_contents(cache.path, self.plan, counts))
        self._signal_rows = SignalRows(cache.path, self.path, self.signals, resident_bytes)

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.plan.identity

    @property
    def view(self) -> View:
        return self.plan.view

    @property
    def pair_layout(self) -> PairScores:
        return self.plan.pair_scores

    @cached_property
    def frame_time_s(self) -> np.ndarray:
        """[V, R, M] float64 seconds, NaN where a video has no frame."""
        return self._view_array("frame_time_s")

    @cached_property
    def frame_valid(self) -> np.ndarray:
        """[V, R, M] bool."""
        return self._view_array("frame_valid")

    @cached_property
    def video_usable(self) -> np.ndarray:
        """[V] bool: the video was decoded, so its signals are there."""
        return ~read_column(self.cache.path, f"{self._view_path}/failed")

    @cached_property
    def failures(self) -> dict[int, str]:
        """Video row -> reason, for the videos that did not decode."""
        reasons = read_strings(self.cache.path, f"{self._view_path}/failure")
        return {int(row): reasons[row] for row in np.flatnonzero(~self.video_usable)}

    def _view_array(self, name: str) -> np.ndarray:
        rows = ShardedRows(self.cache.path, f"{self._view_path}/{name}")
        present = int(rows.present.sum()) * rows.array.row_bytes
        if rows.nbytes > max(MOST_ABSENT * present, RESIDENT_BYTES):
            raise DamagedCacheError(f"{rows.path} is larger than its files warrant; pull it again")
        return rows.load()

    @cached_property
    def kept_pixels(self) -> Mapping[str, Any] | None:
        """How the view's frames are kept: encoding, quality, frames, bytes, psnr_db; None if they are not.

        psnr_db is None where nothing was lost. Raises DamagedCacheError for anything else.
        """
        told = read_json(self.cache.path / self._view_path / "zarr.json")["attributes"].get("pixels")
        if told is None:
            return None
        kept = KeptPixels.from_dict(told)
        frames, psnr = told.get("frames"), told.get("psnr_db")
        if not is_count(frames) or not (psnr is None or is_of(psnr, float)):
            raise DamagedCacheError(f"{self._view_path}/zarr.json garbles its pixels; pull it again")
        objects = self.cache.group_manifest(self._view_path).objects
        stored = sum(record.bytes for record in objects if "/pixel" in record.path and "/c/" in record.path)
        return {**kept.to_dict(), "frames": frames, "bytes": stored, "psnr_db": psnr}

    @cached_property
    def pixels(self) -> PixelRows:
        """The frames that the view keeps; raises UnknownNameError, with the way out, if it keeps none."""
        told = self.kept_pixels
        if told is None:
            raise UnknownNameError(
                f"view {self.view.name!r} of {self.cache.path.name} keeps no frames; "
                "dump it with --keep-pixels"
            )
        kept = KeptPixels(told["encoding"], told["quality"])
        return PixelRows(self.cache.path, self._view_path, self.view, kept)

    @cached_property
    def bytes_by_signal(self) -> dict[str, int]:
        """Bytes on disk of each signal."""
        totals = dict.fromkeys(self.signals, 0)
        for record in self._manifest.objects:
            path = record.path.removeprefix(self.path + "/")
            owner = next((name for name in totals if path.startswith(name + "/")), None)
            if owner is not None:
                totals[owner] += record.bytes
        return totals

    def encoding_error(self, signal: str) -> dict[str, float]:
        """relative_l2, max_abs, mean_cosine, min_cosine of the encoding, measured on what was written."""
        attributes = read_json(self.cache.path / self.path / signal / "zarr.json")["attributes"]
        told = {name: attributes.get(f"encoding_{name}") for name in ENCODING_ERRORS}
        if not all(is_of(error, float) for error in told.values()):
            raise DamagedCacheError(f"{self.path}/{signal} states no encoding error; pull it again")
        return {name: float(error) for name, error in told.items()}

    def require(self, signals: Sequence[str]) -> None:
        """Raise UnknownNameError, with the command that adds it, for a signal that is not stored."""
        missing = [signal for signal in signals if signal not in self.signals]
        if missing:
            layers = [
                signal.removeprefix("vit_layers/") for signal in missing if signal.startswith("vit_layers/")
            ]
            way_out = f"with --layers {','.join(layers)}" if layers else "with a --teacher that emits it"
            raise UnknownNameError(
                f"teacher {self.name!r} in {self.cache.path.name} stores no signal {missing[0]!r}, "
                f"it stores {', '.join(self.signals)}; dump another "
                f"cache {way_out} (python -m teacher_dump dump --help)"
            )

    def codec(self, signal: str) -> SignalCodec:
        """What decodes a signal, with the numbers that were fitted to it."""
        self.require([signal])
        return self._signal_rows.codec(signal)

    def _rows(self, signal: str) -> ShardedRows:
        self.require([signal])
        return self._signal_rows.parts(signal)[""]

    def read(self, signal: str, rows: np.ndarray) -> np.ndarray | EncodedRows:
        """Rows `rows` [N] of one signal, by its first axis (V, T or S): [N, ...] as it is stored.

        A signal with fitted numbers (int8, or projected) comes encoded: decode it where it is used.
        Raises UnknownNameError for a signal that is not stored, InputError for a row number that is none or a
        row without data (its video failed), DamagedCacheError for bytes that changed.
        """
        self.require([signal])
        return self._signal_rows.read({signal: rows})[signal]

    def batch(
        self,
        signals: Sequence[str],
        video_rows: np.ndarray,
        text_rows: np.ndarray,
        out: BatchBuffers | None = None,
    ) -> Batch:
        """All of `signals` at once, as `read` gives them: V ones of `video_rows`, T ones of `text_rows`.

        out: where to, see `buffers`; such a batch holds until the next one is read into `out`. Fresh arrays
        cost half the speed. Threads may call it at once, each with its own `out` (`store.feeder`).
        """
        self.require(signals)
        axes = {name: self.signals[name].row_axis for name in signals}
        if stepwise := [name for name, axis in axes.items() if axis == "S"]:
            raise InputError(f"{stepwise[0]} has steps of a batch plan for rows; read it by itself")
        rows = {"V": video_rows, "T": text_rows}
        return self._signal_rows.read({name: rows[axis] for name, axis in axes.items()}, out)

    def buffers(self, signals: Sequence[str], rows: int) -> BatchBuffers:
        """Room for batches of up to `rows` rows of `signals`, to be given to `batch` again and again."""
        self.require(signals)
        return self._signal_rows.buffers(signals, rows)

    def row_count(self, signal: str) -> int:
        """Length of the signal's row axis."""
        return self.cache.counts.rows_of(self.signals[signal])

    def read_decoded(self, signal: str, rows: np.ndarray) -> np.ndarray:
        """Rows of one signal decoded: float32, or bool and int32 where it holds them."""
        found = self.read(signal, rows)
        return found.decode() if isinstance(found, EncodedRows) else self.codec(signal).decode({"": found})

    def pair_scores(self, video_rows: np.ndarray, text_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(scores, known), both [V, T]: raw logits of these videos against these texts, and bool.

        float16 where they are stored, float32 where they are computed from embeddings. A score that is not
        known is NaN, so that nobody can mistake it for one. Which captions are siblings says
        `Cache.siblings`. Raises UnknownNameError if the teacher stored nothing that pairs can be scored from.
        """
        videos = row_numbers(video_rows, self.cache.counts.videos, f"{self.cache.path.name} has no video row")
        texts = row_numbers(text_rows, self.cache.counts.texts, f"{self.cache.path.name} has no text row")
        return self._pair_scorer.score(videos, texts)

    @cached_property
    def _pair_scorer(self) -> PairScorer:
        layout = self.pair_layout
        if layout.layout == DENSE:
            return DenseScores(self._rows("video_text_logits"))
        if layout.layout == PLANNED:
            assert layout.plan is not None
            return PlannedScores(
                self.cache.batch_plan(layout.plan), self._rows(f"planned_scores/{layout.plan}")
            )
        if layout.layout == PLANNED_TOPK:
            return PlannedTopkScores(self.planned_topk)
        if layout.layout == TOPK:
            return TopkScores(self.topk_texts, self.topk_videos)
        if layout.layout == FACTORED:
            return FactoredScores(self, layout)
        raise UnknownNameError(
            f"teacher {self.name!r} in {self.cache.path.name} stores no pair scores: it needs "
            "video_text_logits, planned_scores, planned_topk, topk_scores, or frame_embedding and "
            "text_embedding"
        )

    @cached_property
    def planned_topk(self) -> PlannedTopk:
        """The top-k of a batch plan; raises UnknownNameError, with the way out, if there is none."""
        plan = topk_plan(self.signals)
        if plan is None:
            raise UnknownNameError(
                f"teacher {self.name!r} in {self.cache.path.name} stores no top-k of batches; dump it "
                "with --plan batch=...,epochs=...,k=..."
            )
        return PlannedTopk(self.cache.batch_plan(plan), plan, self.signals, self.read_decoded)

    @cached_property
    def topk_texts(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every video, the texts with the highest scores: rows [V, K] int32 (-1: none), logits [V, K]."""
        return self._topk("text_index", "text_score")

    @cached_property
    def topk_videos(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every text, the videos with the highest scores: rows [T, K] int32 (-1: none), logits [T, K]."""
        return self._topk("video_index", "video_score")

    def _topk(self, index: str, score: str) -> tuple[np.ndarray, np.ndarray]:
        return self._rows(f"topk_scores/{index}").load(), self._rows(f"topk_scores/{score}").load()


def read_root(path: Path) -> Mapping[str, Any]:
    """The attributes of the cache at `path`, complete or not.

    Raises MissingFileError if there is none, IdentityError for another format.
    """
    if not (path / "zarr.json").is_file():
        raise MissingFileError(f"no cache at {path}; make one with: make dump-teacher CACHE={path}")
    require_plain_tree(path)
    root = read_attributes(path, "")
    if not {"format", "version", "state", "dataset"} <= root.keys():
        raise DamagedCacheError(f"{path / 'zarr.json'} is not a cache's; restore it from a good copy")
    require_same(
        {"format": root["format"], "version": root["version"]},
        {"format": FORMAT_NAME, "version": FORMAT_VERSION},
        f"the format of {path.name}",
        "use the release that wrote it, or dump it anew",
    )
    if root["state"] not in STATES:
        raise DamagedCacheError(f"{path.name} has no state {shown(root['state'])}; pull it again")
    check_dataset(root["dataset"])
    return root


def open_cache(path: Path | str) -> Cache:
    """Open the complete cache at `path`.

    Raises MissingFileError if there is none, IncompleteCacheError if its dump is unfinished,
    IdentityError for another format, DamagedCacheError if tables or manifest changed.
    """
    path = Path(path)
    root = read_root(path)
    if not (path / MANIFEST).is_file():
        raise IncompleteCacheError(
            f"{path} is unfinished ({root['state']}, no manifest); "
            "run the same dump command again, it resumes"
        )
    manifest = Manifest.read(path)
    manifest.check(path)
    require_arrays(path, table_arrays(root["dataset"]))
    return Cache(path, manifest, root)
