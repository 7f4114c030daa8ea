"""Rechecking what is said of pairs: relevance, dense and planned scores, top-k lists.

As a dump does, from the features that are stored: where those hold, so must what is computed from them. Which
neighbours were chosen is the shortlist's word, made of stored features alone: the teacher says only what it
gives to them, and that is held to what is stored beside each index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from store.joined_rows import JoinedRows, Rows
from store.planned_topk import FUSED, INDEX, MISMATCH, SCORE, TEXTS_OF_VIDEO
from store.reader import TeacherReader
from store.signals import plan_of
from teacher_dump.pairs.chosen import ChosenPairs, Parts
from teacher_dump.rechecks.comparison import PAIRS, Comparison, same_order
from teacher_dump.rechecks.stored_comparison import as_stored, new_comparison, take
from teacher_dump.shard_files import StoredFeatures, blocks
from teacher_dump.teachers.base import Teacher

PAIR_SIGNALS = ("frame_relevance", "video_text_logits", "topk_scores", "planned_scores", "planned_topk")
SIDE, STEPS, NO_ROW = 16, 4, -1
"""Partners with which each sampled row is scored: a pair of a cross-encoder costs a forward."""


@dataclass(frozen=True)
class PairRecheck:
    """What scores pairs anew: the teacher, on stored features of the cache behind `reader`."""

    reader: TeacherReader
    teacher: Teacher
    stored: StoredFeatures

    def array(self, signal: str) -> Rows:
        """A signal that is one array."""
        return self.reader.stored[signal].rows(self.reader.cache.path, "")

    def block(self, videos: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Logits float32 [V, T]."""
        of_texts = self.stored.texts(texts)
        rows = [
            self.teacher.score_pairs(self.stored.videos(some), of_texts).float().cpu().numpy()
            for some in blocks(videos, self.reader.plan.execution["batch_videos"])
        ]
        return np.concatenate(rows)


def compare_pairs(
    reader: TeacherReader,
    teacher: Teacher,
    videos: np.ndarray,
    texts: np.ndarray,
    generator: np.random.Generator,
) -> Iterator[Comparison]:
    """Of every signal of pairs that is stored, its comparison on the sampled rows, or on steps drawn anew."""
    if not any(name.split("/")[0] in PAIR_SIGNALS for name in reader.signals):
        return
    segments = reader.cache.tables.segments[: reader.segments]
    stored = StoredFeatures(reader.cache.path, reader.plan, teacher.pair_inputs, segments)
    anew = PairRecheck(reader, teacher, stored)
    if "frame_relevance" in reader.signals:
        yield compare_relevance(anew, texts)
    if "video_text_logits" in reader.signals:
        yield compare_dense(anew, videos, texts)
    for name in reader.signals:
        if name.startswith("planned_scores/"):
            yield compare_planned(anew, name, generator)
        elif name.startswith("planned_topk/") and name.endswith(f"_{INDEX}"):
            yield from compare_batch_topk(anew, name, generator)
        elif name.startswith("topk_scores/") and name.endswith(f"_{INDEX}"):
            yield from compare_topk(anew, name, videos if reader.signals[name].row_axis == "V" else texts)


def compare_relevance(anew: PairRecheck, texts: np.ndarray) -> Comparison:
    """Of the sampled texts that have a video with frames."""
    reader, own = anew.reader, anew.reader.cache.text_video
    comparison = new_comparison(reader, "frame_relevance", PAIRS)
    matched = texts[(own[texts] >= 0) & reader.video_usable[own[texts]]]
    for rows in blocks(matched, reader.plan.execution["batch_texts"]):
        found_BM = anew.teacher.relevance(anew.stored.videos(own[rows]), anew.stored.texts(rows))
        take(comparison, reader, rows, found_BM[:, None].float().cpu().numpy())
    return comparison


def compare_dense(anew: PairRecheck, videos: np.ndarray, texts: np.ndarray) -> Comparison:
    """Every sampled video against SIDE of the sampled texts."""
    comparison = new_comparison(anew.reader, "video_text_logits", PAIRS)
    texts = texts[:: max(len(texts) // SIDE, 1)][:SIDE]
    logits = anew.array("video_text_logits")
    assert not isinstance(logits, JoinedRows)  # blocks of pairs are joined as `JoinedScores`
    stored_VT = logits.gather(videos, texts)
    comparison.add(videos, stored_VT, anew.block(videos, texts).astype(np.float16))
    return comparison


def compare_planned(anew: PairRecheck, signal: str, generator: np.random.Generator) -> Comparison:
    """SIDE x SIDE places of some steps of a batch plan."""
    comparison = new_comparison(anew.reader, signal, PAIRS)
    batches = anew.reader.cache.batch_plan(plan_of(signal) or "")
    for step in drawn_steps(generator, batches.steps):
        places = np.sort(generator.choice(batches.batch_size, min(SIDE, batches.batch_size), replace=False))
        stored_BB = anew.array(signal).read(np.array([step]))[0]
        fresh = anew.block(batches.video[step][places], batches.text[step][places]).astype(np.float16)
        comparison.add(np.array([step]), stored_BB[np.ix_(places, places)][None], fresh[None])
    return comparison


def drawn_steps(generator: np.random.Generator, steps: int) -> list[int]:
    return np.sort(generator.choice(steps, min(STEPS, steps), replace=False)).tolist()


def compare_batch_topk(
    anew: PairRecheck, index_signal: str, generator: np.random.Generator
) -> list[Comparison]:
    """What is stored of the neighbours of SIDE places of some steps, in one direction."""
    found = compared_parts(anew, index_signal)
    batches = anew.reader.cache.batch_plan(plan_of(index_signal) or "")
    is_of_video = index_signal.rpartition("/")[2].startswith(TEXTS_OF_VIDEO)
    for step in drawn_steps(generator, batches.steps):
        places = np.sort(generator.choice(batches.batch_size, min(SIDE, batches.batch_size), replace=False))
        rows = np.array([step])
        index = anew.array(index_signal).read(rows)[0][places]
        own, others = batches.video[step], batches.text[step]
        if not is_of_video:
            own, others = others, own
        neighbours = np.where(index < 0, NO_ROW, others[index])
        fresh = scored(anew, is_of_video, own[places], neighbours, FUSED in found)
        for part, comparison in found.items():
            stored = anew.reader.read_decoded(comparison.signal, rows)[:, places]
            add_part(anew, comparison, rows, (stored, fresh[part][np.newaxis]), neighbours[np.newaxis])
    return list(found.values())


def compare_topk(anew: PairRecheck, index_signal: str, rows: np.ndarray) -> list[Comparison]:
    """What is stored of the SIDE best neighbours of the sampled rows, and whether they rank as stored."""
    found = compared_parts(anew, index_signal)
    rows = rows[anew.array(index_signal).present[rows]]
    index = anew.array(index_signal).read(rows)[:, :SIDE]
    fresh = scored(anew, anew.reader.signals[index_signal].row_axis == "V", rows, index)
    for part, comparison in found.items():
        stored = anew.reader.read_decoded(comparison.signal, rows)[:, :SIDE]
        add_part(anew, comparison, rows, (stored, fresh[part]), index)
        if part == SCORE:
            there = index >= 0
            comparison.rank_agreement = same_order(
                np.where(there, stored, np.nan), fresh[part], comparison.tolerance
            )
    return list(found.values())


def compared_parts(anew: PairRecheck, index_signal: str) -> dict[str, Comparison]:
    """By part, a new comparison of every signal that is stored beside the neighbours of `index_signal`."""
    stem = index_signal.removesuffix(INDEX)
    return {
        part: new_comparison(anew.reader, f"{stem}{part}", PAIRS)
        for part in (SCORE, MISMATCH, FUSED)
        if f"{stem}{part}" in anew.reader.signals
    }


def add_part(
    anew: PairRecheck,
    comparison: Comparison,
    rows: np.ndarray,
    values: tuple[np.ndarray, np.ndarray],
    neighbours: np.ndarray,
) -> None:
    """Take in `values`, (stored, fresh) [N, ..., K] or [N, ..., K, D] of the rows `rows` [N], but where
    `neighbours` [N, ..., K] are none (-1)."""
    stored, fresh = values
    fresh = as_stored(anew.reader.codec(comparison.signal), fresh, rows, stored.shape)
    lacking = (neighbours < 0).reshape(*neighbours.shape, *[1] * (stored.ndim - neighbours.ndim))
    comparison.add(rows, *(np.where(lacking, np.nan, part) for part in (stored, fresh)))


def scored(
    anew: PairRecheck, is_of_video: bool, rows: np.ndarray, others: np.ndarray, fused_cls: bool = False
) -> Parts:
    """What the teacher says of `rows` [N] with their neighbours `others` [N, K], by part; 0 for -1."""
    own = np.broadcast_to(rows[:, np.newaxis], others.shape)
    videos, texts = (own, others) if is_of_video else (others, own)
    block_texts = anew.reader.plan.execution["pairs"].get("block_texts", SIDE)
    return ChosenPairs(anew.teacher, anew.stored, block_texts).of_pairs(videos, texts, fused_cls)
