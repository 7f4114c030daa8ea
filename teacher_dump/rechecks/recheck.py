"""Re-run a teacher on sampled rows of a finished cache and hold what it says to what is stored.

Features are computed anew from the videos and texts; relevance and scores, as in a dump, from the features
that are stored. Reads of the cache alone, but for a report outside its digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from store.errors import IdentityError, MissingFileError
from store.identity import differences
from store.inputs.decode_pool import DecodedVideo, DecodePool, Limits
from store.reader import TeacherReader
from store.reduction import kept_tokens
from store.seen_frames import SeenView
from store.signals import ALL_TOKENS, SignalSpec
from teacher_dump.forward import stacked, text_signals, video_signals
from teacher_dump.rechecks.comparison import ITSELF, TEXTS, VIDEOS, Comparison
from teacher_dump.rechecks.dumped_options import REENCODED
from teacher_dump.rechecks.pairs import compare_pairs
from teacher_dump.rechecks.stored_comparison import new_comparison, take
from teacher_dump.rechecks.suspicion import Suspicion, suspicions, telling
from teacher_dump.shard_files import blocks
from teacher_dump.teachers.base import Teacher


@dataclass(frozen=True)
class RecheckSettings:
    """sample: rows of each table. seed: of the draw. decoders, limits: of decoding."""

    sample: int = 64
    seed: int = 0
    decoders: int = 2
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Recheck:
    """What was found. identity: field -> (stored, here) where the teacher's identity differs."""

    teacher: str
    seed: int
    videos: Sequence[int]
    texts: Sequence[int]
    other_frames: Mapping[int, str]
    comparisons: Sequence[Comparison]
    identity: Mapping[str, tuple[Any, Any]]

    @property
    def holds(self) -> bool:
        """Whether the frames, the sampled signals and the identity are those of the dump.

        Another identity is another teacher, whose sampled rows may be alike by chance: a dump would refuse
        to go on with it as well.
        """
        deviates = self.other_frames or any(c.deviates for c in self.comparisons)
        return not deviates and not telling(list(self.identity))

    @property
    def suspicions(self) -> list[Suspicion]:
        return suspicions(self.comparisons, self.other_frames, list(self.identity))

    def to_dict(self) -> dict[str, Any]:
        return {
            "holds": self.holds,
            "seed": self.seed,
            "video_rows": list(self.videos),
            "text_rows": list(self.texts),
            "frames": {"videos": len(self.videos), "other": sorted(self.other_frames)},
            "signals": {c.signal: c.to_dict() for c in self.comparisons},
            "identity": {name: {"stored": a, "here": b} for name, (a, b) in self.identity.items()},
            "suspected": [suspicion.to_dict() for suspicion in self.suspicions],
        }


def recheck(
    reader: TeacherReader, teacher: Teacher, paths: Mapping[int, Path], settings: RecheckSettings
) -> Recheck:
    """Compare `settings.sample` videos and texts of the cache with what `teacher` says of them now.

    paths: video row -> file, of the videos that are at hand. Raises MissingFileError if none of them is in
    the cache, IdentityError if the teacher gives other signals than are stored.
    """
    cache, plan = reader.cache, reader.plan
    require_same_shapes(reader, teacher)
    generator = np.random.default_rng(settings.seed)
    videos = draw(generator, np.array(sorted(paths), dtype=np.int64), reader.video_usable, settings.sample)
    if not len(videos):
        raise MissingFileError(
            f"none of the {len(cache.video_ids)} videos of {cache.path.name} is at --data, "
            f"e.g. {cache.video_ids[0]}"
        )
    texts = draw(generator, np.arange(len(cache.texts)), text_rows_stored(reader), settings.sample)
    torch.set_num_threads(plan.execution["threads"])
    with torch.inference_mode():
        other_frames, of_videos = compare_videos(
            reader, teacher, {row: paths[row] for row in videos}, settings
        )
        of_texts = compare_texts(reader, teacher, texts)
        of_pairs = compare_pairs(reader, teacher, videos, texts, generator)
    found = {**teacher.identity(), "view": teacher.view.to_dict()}
    stored = {**plan.identity, "view": plan.view.to_dict()}
    stored.pop(REENCODED, None)  # another encoding, not another teacher
    return Recheck(
        teacher=reader.name,
        seed=settings.seed,
        videos=videos.tolist(),
        texts=texts.tolist(),
        other_frames=other_frames,
        comparisons=[*of_videos, *of_texts, *of_pairs, *compare_itself(reader, teacher)],
        identity={name: (was, now) for name, was, now in differences(stored, found)},
    )


def draw(generator: np.random.Generator, rows: np.ndarray, usable: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of `rows` that are usable (bool by row), each once, ascending."""
    rows = rows[usable[rows]]
    return np.sort(generator.choice(rows, min(count, len(rows)), replace=False))


def text_rows_stored(reader: TeacherReader) -> np.ndarray:
    """[T] bool: texts that have signals; all, if the teacher has none of texts."""
    names = [spec.name for spec in reader.signals.values() if is_of_texts(spec)]
    if not names:
        return np.ones(len(reader.cache.texts), dtype=bool)
    return present_rows(reader, names[0])


def present_rows(reader: TeacherReader, signal: str) -> np.ndarray:
    """Which rows of a signal were written: bool [rows]."""
    part = reader.codec(signal).parts[0]
    return reader.stored[signal].rows(reader.cache.path, part).present


def is_of_videos(spec: SignalSpec) -> bool:
    return spec.kind.axes.startswith("VR")


def is_of_texts(spec: SignalSpec) -> bool:
    return spec.row_axis == "T" and spec.kind.granularity in ("text", "word")


def require_same_shapes(reader: TeacherReader, teacher: Teacher) -> None:
    """Raise IdentityError naming a stored feature that `teacher` does not emit, or in another shape."""
    emitted = {spec.name: spec for spec in teacher.signals}
    for spec in reader.signals.values():
        if not (is_of_videos(spec) or is_of_texts(spec) or spec.is_of_teacher):
            continue
        if spec.name not in emitted:
            raise IdentityError(
                f"{reader.cache.path.name} stores {spec.name}, which this teacher does not emit; give the "
                "options of its dump, e.g. --layers"
            )
        sizes = dict(emitted[spec.name].sizes)
        if spec.reduction.tokens != ALL_TOKENS:
            sizes["L"] = kept_tokens(sizes["L"], spec.reduction.tokens)
        if spec.reduction.width is not None:
            sizes["D"] = spec.reduction.width
        if sizes != dict(spec.sizes):
            raise IdentityError(
                f"{spec.name} of {reader.cache.path.name} is {dict(spec.sizes)}, this teacher gives {sizes}; "
                "give the checkpoint and options of its dump"
            )


def compare_videos(
    reader: TeacherReader, teacher: Teacher, paths: Mapping[int, Path], settings: RecheckSettings
) -> tuple[dict[int, str], list[Comparison]]:
    """Video row -> how its frames differ; and the comparison of every signal of single videos."""
    seen = SeenView(reader.cache, reader.view.name)
    ids = reader.cache.video_ids
    found = [new_comparison(reader, s.name, VIDEOS) for s in reader.signals.values() if is_of_videos(s)]
    other: dict[int, str] = {}
    batch: list[tuple[int, DecodedVideo]] = []

    def encode() -> None:
        signals = video_signals(teacher, *stacked([video for _, video in batch]))
        rows = np.array([row for row, _ in batch])
        for comparison in found:
            take(comparison, reader, rows, signals[comparison.signal])
        batch.clear()

    with DecodePool(reader.view, settings.decoders, settings.limits) as pool:
        decoded = pool.decode(paths.values(), [ids[row] for row in paths])
        for row, outcome in zip(paths, decoded, strict=True):
            if (difference := seen.difference(row, outcome)) is not None:
                other[row] = difference
            if isinstance(outcome, DecodedVideo):
                batch.append((row, outcome))
            if len(batch) == reader.plan.execution["batch_videos"]:
                encode()
        if batch:
            encode()
    return other, found


def compare_itself(reader: TeacherReader, teacher: Teacher) -> list[Comparison]:
    """The comparison of every signal that tells of the teacher itself."""
    found = [new_comparison(reader, s.name, ITSELF) for s in reader.signals.values() if s.is_of_teacher]
    for comparison in found:
        fresh = teacher.of_itself()[comparison.signal].cpu().numpy()
        take(comparison, reader, np.arange(len(fresh)), fresh)
    return found


def compare_texts(reader: TeacherReader, teacher: Teacher, rows: np.ndarray) -> list[Comparison]:
    """The comparison of every signal of single texts."""
    found = [new_comparison(reader, s.name, TEXTS) for s in reader.signals.values() if is_of_texts(s)]
    for some in blocks(rows, reader.plan.execution["batch_texts"]):
        signals = text_signals(teacher, [reader.cache.texts[row] for row in some])
        for comparison in found:
            take(comparison, reader, some, signals[comparison.signal])
    return found
