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
from store.layout import FORMAT_NAME, FORMAT_VERSION, TeacherPlan, teacher_path, view_path
from store.lookup import check_name
from store.manifest import MANIFEST, Manifest
from store.pair_scores import DENSE, FACTORED, PairScores, factored_scores
from store.shards import ShardedRows
from store.signals import SignalSpec
from store.tables import read_column, read_strings

RESIDENT_BYTES = 1 << 28


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
        return read_column(self.path, "videos/class")

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
        return read_column(self.path, "texts/video")

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
        """The manifest of a view or teacher, held to the digest in the root's and its files to it."""
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
        return self._view_array("frame_time_s", np.nan)

    @cached_property
    def frame_valid(self) -> np.ndarray:
        """[V, R, M] bool."""
        return self._view_array("frame_valid", False)

    @cached_property
    def video_usable(self) -> np.ndarray:
        """[V] bool: the video was decoded, so its signals are there."""
        return ~read_column(self.cache.path, f"{self._view_path}/failed")

    @cached_property
    def failures(self) -> dict[int, str]:
        """Video row -> reason, for the videos that did not decode."""
        reasons = read_strings(self.cache.path, f"{self._view_path}/failure")
        return {int(row): reasons[row] for row in np.flatnonzero(~self.video_usable)}

    def _view_array(self, name: str, absent: float) -> np.ndarray:
        rows = ShardedRows(self.cache.path, f"{self._view_path}/{name}")
        return _read_whole(rows, absent)

    @cached_property
    def bytes_by_signal(self) -> dict[str, int]:
        """Bytes on disk of each signal."""
        totals = dict.fromkeys(self.signals, 0)
        for record in self._manifest.objects:
            name = record.path.removeprefix(self.path + "/").split("/c/")[0].removesuffix("/zarr.json")
            if name in totals:
                totals[name] += record.bytes
        return totals

    def encoding_error(self, signal: str) -> float:
        """Relative L2 error of the encoding, measured on the data that was written."""
        attributes = read_json(self.cache.path / self.path / signal / "zarr.json")["attributes"]
        return float(attributes["encoding_relative_l2"])

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

    def _rows(self, signal: str) -> ShardedRows:
        self.require([signal])
        if signal not in self._shards:
            self._shards[signal] = ShardedRows(self.cache.path, f"{self.path}/{signal}")
        return self._shards[signal]

    def read(self, signal: str, rows: np.ndarray) -> np.ndarray:
        """Rows `rows` [N] of one signal, V or T rows by its first axis: float16 [N, ...].

        Raises UnknownNameError for a signal that is not stored, InputError for a row without data
        (its video failed), DamagedCacheError for bytes that changed.
        """
        stored = self._rows(signal)
        rows = np.asarray(rows, dtype=np.int64)
        absent = ~stored.present[rows]
        if absent.any():
            row = int(rows[np.argmax(absent)])
            raise InputError(
                f"{self.path}/{signal} has no row {row}: its video did not decode; "
                "leave it out (video_usable)"
            )
        if signal not in self._resident and stored.nbytes <= self._resident_bytes:
            self._resident_bytes -= stored.nbytes
            self._resident[signal] = _read_whole(stored, np.nan)
        resident = self._resident.get(signal)
        return stored.read(rows) if resident is None else resident[rows]

    def batch(
        self, signals: Sequence[str], video_rows: np.ndarray, text_rows: np.ndarray
    ) -> dict[str, np.ndarray]:
        """All of `signals` at once: V signals of `video_rows`, T signals of `text_rows`."""
        rows = {"V": video_rows, "T": text_rows}
        self.require(signals)
        return {name: self.read(name, rows[self.signals[name].row_axis]) for name in signals}

    def pair_scores(self, video_rows: np.ndarray, text_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(scores, known), both [V, T]: float32 raw logits of these videos against these texts, and bool.

        A score that is not known is NaN, so that nobody can mistake it for one.
        Raises UnknownNameError if the teacher stored nothing that pairs can be scored from.
        """
        video_rows, text_rows = np.asarray(video_rows), np.asarray(text_rows)
        if self.pair_layout.layout == DENSE:
            score, has_video = self._dense_scores, self._rows("video_text_logits").present[video_rows]
        elif self.pair_layout.layout == FACTORED:
            score, has_video = self._factored_scores, self.video_usable[video_rows]
        else:
            raise UnknownNameError(
                f"teacher {self.name!r} in {self.cache.path.name} stores no pair scores: "
                "it needs video_text_logits, or frame_embedding and text_embedding"
            )
        known = np.broadcast_to(has_video[:, None], (len(video_rows), len(text_rows)))
        scores = np.full(known.shape, np.nan, dtype=np.float32)
        scores[has_video] = score(video_rows[has_video], text_rows)
        return scores, known

    def _dense_scores(self, video_rows: np.ndarray, text_rows: np.ndarray) -> np.ndarray:
        return self.read("video_text_logits", video_rows)[:, text_rows].astype(np.float32)

    def _factored_scores(self, video_rows: np.ndarray, text_rows: np.ndarray) -> np.ndarray:
        layout = self.pair_layout
        assert layout.video_signal is not None
        assert layout.text_signal is not None
        assert layout.logit_scale is not None
        frames_VMD = self.read(layout.video_signal, video_rows)[:, 0]
        texts_TD = self.read(layout.text_signal, text_rows)
        return factored_scores(frames_VMD, self.frame_valid[video_rows, 0], texts_TD, layout.logit_scale)


def _read_whole(rows: ShardedRows, absent: float) -> np.ndarray:
    """All rows of an array; those that were not written hold `absent`."""
    there = np.flatnonzero(rows.present)
    if len(there) == len(rows.present):
        return rows.read(there)
    whole = np.full(rows.array.shape, absent, dtype=rows.array.dtype)
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
