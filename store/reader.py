"""Reading a finished cache: tables and small signals from RAM, large ones from mapped shards.

`open_cache` checks manifests and sizes before it hands anything out; every row's crc32c is checked
when this process first reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from store.calibration import EncodedRows, SignalCodec, fitted_names
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
from store.layout import (
    FORMAT_NAME,
    FORMAT_VERSION,
    TeacherPlan,
    part_path,
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
    TOPK,
    DenseScores,
    FactoredScores,
    PairScorer,
    PairScores,
    PlannedScores,
    TopkScores,
)
from store.plans import PlannedBatches
from store.shards import FILL, ShardedRows
from store.signals import SignalSpec
from store.tables import read_batch_plan, read_column, read_strings

RESIDENT_BYTES = 1 << 28
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
    def texts(self) -> list[str]:
        return read_strings(self.path, "texts/text")

    @cached_property
    def text_video(self) -> np.ndarray:
        """[T] int64: the video row of each text, -1 for a class name."""
        return read_column(self.path, "texts/video")

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
        return read_batch_plan(self.path, name)

    @property
    def splits(self) -> list[str]:
        return sorted(self.dataset["splits"])

    def split(self, name: str) -> Split:
        """Row numbers of a split; raises UnknownNameError listing what there is."""
        check_name("split", name, self.splits)
        return Split(
            read_column(self.path, f"splits/{name}/video"), read_column(self.path, f"splits/{name}/text")
        )

    @property
    def teacher_names(self) -> list[str]:
        return sorted(path.split("/", 1)[1] for path in self.manifest.groups if path.startswith("teachers/"))

    def teacher(self, name: str) -> TeacherReader:
        """One teacher's signals; raises UnknownNameError listing what there is."""
        check_name("teacher", name, self.teacher_names)
        return TeacherReader(self, name)

    def group_manifest(self, path: str) -> Manifest:
        """The manifest of a view, teacher or batch plan, held to its digest; its files to it."""
        manifest = Manifest.read(self.path / path)
        if manifest.digest != self.manifest.groups[path]:
            raise DamagedCacheError(
                f"{path}/{MANIFEST} is not the one that the cache was completed with; pull it again"
            )
        manifest.check(self.path)
        return manifest


class TeacherReader:
    """The signals of one teacher, by row numbers. Values come as stored (float16).

    Signals are loaded whole into RAM at first use, smallest first, while they fit in
    `resident_bytes`; larger ones are read from memory-mapped shards.
    """

    def __init__(self, cache: Cache, name: str, resident_bytes: int = RESIDENT_BYTES) -> None:
        self.cache = cache
        self.name = name
        self.path = teacher_path(name)
        self._manifest = cache.group_manifest(self.path)
        attributes = read_json(cache.path / self.path / "zarr.json")["attributes"]
        self.plan = TeacherPlan.from_dict(attributes)
        self.signals: dict[str, SignalSpec] = {spec.name: spec for spec in self.plan.signals}
        self._view_path = view_path(self.view.name)
        cache.group_manifest(self._view_path)
        self._resident_bytes = resident_bytes
        self._shards: dict[str, ShardedRows] = {}
        self._resident: dict[str, np.ndarray] = {}
        self._codecs: dict[str, SignalCodec] = {}

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
        return _read_whole(ShardedRows(self.cache.path, f"{self._view_path}/{name}"))

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
        return {name: float(attributes[f"encoding_{name}"]) for name in ENCODING_ERRORS}

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

    def _rows(self, signal: str, part: str = "") -> ShardedRows:
        self.require([signal])
        path = part_path(signal, part)
        if path not in self._shards:
            self._shards[path] = ShardedRows(self.cache.path, f"{self.path}/{path}")
        return self._shards[path]

    def codec(self, signal: str) -> SignalCodec:
        """What decodes a signal, with the numbers that were fitted to it."""
        if signal not in self._codecs:
            self.require([signal])
            spec, path = self.signals[signal], f"{self.path}/{signal}"
            fitted = {name: read_column(self.cache.path, f"{path}/{name}") for name in fitted_names(spec)}
            self._codecs[signal] = SignalCodec(spec, fitted)
        return self._codecs[signal]

    def read(self, signal: str, rows: np.ndarray) -> np.ndarray | EncodedRows:
        """Rows `rows` [N] of one signal, V or T rows by its first axis: [N, ...] as it is stored.

        A signal with fitted numbers (int8, or projected) comes encoded: decode it where it is used.
        Raises UnknownNameError for a signal that is not stored, InputError for a row without data
        (its video failed), DamagedCacheError for bytes that changed.
        """
        self.require([signal])
        rows = np.asarray(rows, dtype=np.int64)
        parts = {part: self._read_part(signal, part, rows) for part in self.codec(signal).parts}
        return parts[""] if "" in parts else EncodedRows(self.codec(signal), parts)

    def _read_part(self, signal: str, part: str, rows: np.ndarray) -> np.ndarray:
        stored = self._rows(signal, part)
        absent = ~stored.present[rows]
        if absent.any():
            row = int(rows[np.argmax(absent)])
            raise InputError(
                f"{stored.path} has no row {row}: its video did not decode; leave it out (video_usable)"
            )
        if stored.path not in self._resident and stored.nbytes <= self._resident_bytes:
            self._resident_bytes -= stored.nbytes
            self._resident[stored.path] = _read_whole(stored)
        resident = self._resident.get(stored.path)
        return stored.read(rows) if resident is None else resident[rows]

    def batch(
        self, signals: Sequence[str], video_rows: np.ndarray, text_rows: np.ndarray
    ) -> dict[str, np.ndarray | EncodedRows]:
        """All of `signals` at once: V signals of `video_rows`, T signals of `text_rows`."""
        rows = {"V": video_rows, "T": text_rows}
        self.require(signals)
        return {name: self.read(name, rows[self.signals[name].row_axis]) for name in signals}

    def read_decoded(self, signal: str, rows: np.ndarray) -> np.ndarray:
        """Rows of one signal decoded: float32, or bool and int32 where it holds them."""
        found = self.read(signal, rows)
        return found.decode() if isinstance(found, EncodedRows) else self.codec(signal).decode({"": found})

    def pair_scores(self, video_rows: np.ndarray, text_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(scores, known), both [V, T]: float32 raw logits of these videos against these texts, and bool.

        A score that is not known is NaN, so that nobody can mistake it for one. Which captions are siblings
        says `Cache.siblings`. Raises UnknownNameError if the teacher stored nothing that pairs can be scored
        from.
        """
        return self._pair_scorer.score(np.asarray(video_rows), np.asarray(text_rows))

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
        if layout.layout == TOPK:
            return TopkScores(self.topk_texts, self.topk_videos)
        if layout.layout == FACTORED:
            return FactoredScores(self, layout)
        raise UnknownNameError(
            f"teacher {self.name!r} in {self.cache.path.name} stores no pair scores: it needs "
            "video_text_logits, planned_scores, topk_scores, or frame_embedding and text_embedding"
        )

    @cached_property
    def topk_texts(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every video, the texts with the highest scores: rows [V, K] int32 (-1: none), logits [V, K]."""
        return self._topk("text_index", "text_score")

    @cached_property
    def topk_videos(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every text, the videos with the highest scores: rows [T, K] int32 (-1: none), logits [T, K]."""
        return self._topk("video_index", "video_score")

    def _topk(self, index: str, score: str) -> tuple[np.ndarray, np.ndarray]:
        return (
            _read_whole(self._rows(f"topk_scores/{index}")),
            _read_whole(self._rows(f"topk_scores/{score}")),
        )


def _read_whole(rows: ShardedRows) -> np.ndarray:
    """All rows of an array; those that were not written hold its fill value."""
    there = np.flatnonzero(rows.present)
    if len(there) == len(rows.present):
        return rows.read(there)
    whole = np.full(rows.array.shape, FILL.get(rows.array.dtype, np.nan), dtype=rows.array.dtype)
    whole[there] = rows.read(there)
    return whole


def read_root(path: Path) -> Mapping[str, Any]:
    """The attributes of the cache at `path`, complete or not.

    Raises MissingFileError if there is none, IdentityError for another format.
    """
    if not (path / "zarr.json").is_file():
        raise MissingFileError(f"no cache at {path}; make one with: make dump-teacher CACHE={path}")
    document = read_json(path / "zarr.json")
    root = document.get("attributes") if isinstance(document, dict) else None
    if not isinstance(root, dict) or not {"format", "version", "state", "dataset"} <= root.keys():
        raise DamagedCacheError(f"{path / 'zarr.json'} is not a cache's; restore it from a good copy")
    require_same(
        {"format": root["format"], "version": root["version"]},
        {"format": FORMAT_NAME, "version": FORMAT_VERSION},
        f"the format of {path.name}",
        "use the release that wrote it, or dump it anew",
    )
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
    return Cache(path, manifest, root)
