"""The signals of one teacher of a finished cache: small ones from RAM, large ones from their shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from store.calibration import EncodedRows, SignalCodec
from store.contents import read_plan, require_arrays, teacher_contents
from store.durable import read_json
from store.errors import DamagedCacheError, InputError, UnknownNameError
from store.inputs.samples import Segment
from store.inputs.view import View
from store.joined_rows import JoinedRows, Rows
from store.layout import TeacherPlan, teacher_path
from store.pair_scores import (
    DENSE,
    FACTORED,
    PLANNED,
    PLANNED_TOPK,
    TOPK,
    TOPK_SIGNALS,
    DenseScores,
    FactoredScores,
    PairScorer,
    PairScores,
    PlannedScores,
    TopkScores,
)
from store.partial import OF_SPLIT
from store.parts import TEACHERS, group_of, groups_of
from store.planned_topk import PlannedTopk, PlannedTopkScores, topk_plan
from store.sharded_rows import row_numbers
from store.signal_rows import Batch, BatchBuffers, SignalRows, StoredSignal
from store.signals import SignalSpec
from store.teacher_parts import stored_signal, whole_plan
from store.untrusted import is_of
from store.view_reader import RESIDENT_BYTES, JoinedPixels

if TYPE_CHECKING:
    from store.reader import Cache

MATCH_SIGNALS = (*TOPK_SIGNALS, "topk_scores/text_mismatch", "topk_scores/video_mismatch")
ENCODING_ERRORS: dict[str, Callable[[Any], float]] = {
    "relative_l2": max,
    "max_abs": max,
    "mean_cosine": min,
    "min_cosine": min,
}


class TeacherReader:
    """The signals of one teacher, by row numbers, as they are stored; threads may share it.

    Signals are loaded whole into RAM at first use while they fit in `resident_bytes`, of those asked for
    together the smallest first; the others are read from their shards. Memory: see `store.signal_rows`.
    """

    def __init__(self, cache: Cache, name: str, resident_bytes: int = RESIDENT_BYTES) -> None:
        self.cache = cache
        self.name = name
        self.path = teacher_path(name)
        groups = groups_of(cache.manifest.groups, TEACHERS, name)
        self._manifests = [cache.group_manifest(group.path) for group in groups]
        parts = [read_plan(cache.path, name, group.part) for group in groups]
        self.plan = whole_plan(cache.path, parts)
        self.signals: dict[str, SignalSpec] = {
            spec.name: spec for spec in self.plan.signals if not self._lacks(parts, spec)
        }
        self._view = cache.view(self.view)
        for part in parts:
            require_arrays(
                cache.path, teacher_contents(cache.path, part, cache.part_counts(part.part.segment))
            )
        self.stored: dict[str, StoredSignal] = {
            spec.name: stored_signal(spec, parts, cache.tables.segments, self._beyond)
            for spec in self.plan.signals
        }
        self._signal_rows = SignalRows(cache.path, self.stored, resident_bytes)

    def _lacks(self, parts: Sequence[TeacherPlan], spec: SignalSpec) -> bool:
        """Whether a partial copy left the signal out; the pair scores of the teacher stay what they are."""
        return any(self.cache.partial.lacks_below(f"{part.path}/{spec.name}") for part in parts)

    @property
    def _beyond(self) -> str:
        """Why rows may be missing that the tables have."""
        return (
            f"was appended after teacher {self.name!r} was dumped; extend it: python -m teacher_dump dump "
            f"--extend, with its options"
        )

    @cached_property
    def segments(self) -> int:
        """Over how many of the cache's segments this teacher was dumped."""
        return 1 + max(
            group.part.segment for group in groups_of(self.cache.manifest.groups, TEACHERS, self.name)
        )

    @cached_property
    def covered(self) -> Segment:
        """The rows that this teacher was dumped over: those behind them were appended since."""
        last = self.cache.tables.segments[self.segments - 1]
        return Segment((0, last.video[1]), (0, last.text[1]))

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.plan.identity

    @property
    def view(self) -> View:
        return self.plan.view

    @property
    def pair_layout(self) -> PairScores:
        return self.plan.pair_scores

    @property
    def frame_time_s(self) -> np.ndarray:
        """[V, R, M] float64 seconds, NaN where a video has no frame."""
        return self._view.frame_time_s

    @property
    def frame_valid(self) -> np.ndarray:
        """[V, R, M] bool."""
        return self._view.frame_valid

    @cached_property
    def video_usable(self) -> np.ndarray:
        """[V] bool: the video was decoded, and this teacher was dumped over it, so its signals are there."""
        return self._view.video_usable & (np.arange(self.cache.counts.videos) < self.covered.video[1])

    @cached_property
    def text_usable(self) -> np.ndarray:
        """[T] bool: this teacher was dumped over the text."""
        return np.arange(self.cache.counts.texts) < self.covered.text[1]

    @property
    def failures(self) -> dict[int, str]:
        """Video row -> reason, for the videos that did not decode."""
        return self._view.failures

    @property
    def kept_pixels(self) -> Mapping[str, Any] | None:
        """How the view's frames are kept: see `ViewReader.kept_pixels`."""
        return self._view.kept_pixels

    @property
    def pixels(self) -> JoinedPixels:
        """The frames that the view keeps; raises UnknownNameError, with the way out, if it keeps none."""
        return self._view.pixels

    @cached_property
    def bytes_by_signal(self) -> dict[str, int]:
        """Bytes on disk of each signal."""
        totals = dict.fromkeys(self.signals, 0)
        for manifest in self._manifests:
            for record in manifest.objects:
                path = record.path.removeprefix(group_of(record.path) + "/")
                owner = next((name for name in totals if path.startswith(name + "/")), None)
                if owner is not None:
                    totals[owner] += record.bytes
        return totals

    def encoding_error(self, signal: str) -> dict[str, float]:
        """relative_l2, max_abs, mean_cosine, min_cosine of the encoding, measured on what was written.

        Of several segments, the worst that one of them states.
        """
        paths = [path for path in self.stored[signal].paths if path is not None]
        told = [read_json(self.cache.path / path / "zarr.json")["attributes"] for path in paths]
        worst = {}
        for name, choose in ENCODING_ERRORS.items():
            errors = [attributes.get(f"encoding_{name}") for attributes in told]
            if not all(is_of(error, float) for error in errors):
                raise DamagedCacheError(f"{self.path}/{signal} states no encoding error; pull it again")
            worst[name] = float(choose(errors))
        return worst

    def require(self, signals: Sequence[str]) -> None:
        """Raise UnknownNameError, with the command that adds it, for a signal that is not stored, and
        LeftOutError for one that a partial copy lacks.
        """
        missing = [signal for signal in signals if signal not in self.signals]
        if missing and self.has_left_out(missing[0]):
            what = f"signal {missing[0]!r} of teacher {self.name!r} in {self.cache.path.name}"
            raise self.cache.partial.missing(what, f"--teacher {self.name} --signals {missing[0]}")
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

    def has_left_out(self, signal: str) -> bool:
        """Whether the teacher stored the signal, and this partial copy came without it."""
        return signal not in self.signals and any(spec.name == signal for spec in self.plan.signals)

    def require_rows(self, signal: str, rows: np.ndarray) -> None:
        """Raise LeftOutError where a partial copy lacks one of `rows` [N] of a signal, which were decoded."""
        self.require([signal])
        for part in self._signal_rows.parts(signal).values() if self.cache.partial.lacks else ():
            absent = rows[~part.present[rows]]
            if len(absent):
                raise self.cache.partial.missing(f"row {absent[0]} of {part.path}", OF_SPLIT)

    def codec(self, signal: str) -> SignalCodec:
        """What decodes a signal, with the numbers that were fitted to it."""
        self.require([signal])
        return self._signal_rows.codec(signal)

    def _rows(self, signal: str) -> Rows:
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
        if others := [name for name, axis in axes.items() if axis not in ("V", "T")]:
            raise InputError(f"{others[0]} has neither videos nor texts for rows; read it by itself")
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
            logits = self._rows("video_text_logits")
            assert not isinstance(logits, JoinedRows)
            return DenseScores(logits)
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

    def match_probability(
        self, video_rows: np.ndarray, text_rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(probabilities, known), both [V, T]: that a pair matches, where it is in `topk_scores`, and bool.

        float32, the softmax of match against mismatch, NaN where it is not known. Raises UnknownNameError if
        the teacher keeps no such top-k, or judges by one number.
        """
        videos = row_numbers(video_rows, self.cache.counts.videos, f"{self.cache.path.name} has no video row")
        texts = row_numbers(text_rows, self.cache.counts.texts, f"{self.cache.path.name} has no text row")
        for_it, against = (scorer.score(videos, texts) for scorer in self._topk_match)
        margin = for_it[0].astype(np.float32) - against[0].astype(np.float32)
        return 1 / (1 + np.exp(-margin)), for_it[1]

    @cached_property
    def _topk_match(self) -> tuple[TopkScores, TopkScores]:
        """Logits for and against of the kept pairs."""
        self.require(MATCH_SIGNALS)
        mismatch = self._topk("text_index", "text_mismatch"), self._topk("video_index", "video_mismatch")
        return TopkScores(self.topk_texts, self.topk_videos), TopkScores(*mismatch)

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
