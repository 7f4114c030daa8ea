"""Scores re-weighted by what other queries say, in blocks: dual softmax, query-bank normalisation.

Both rank a query among candidates that other queries already claim; whoever uses them says so, since a
query is then no longer ranked by itself. Each direction gets scores of its own.

dual softmax (DSL): a score is multiplied by the softmax, over all queries of the test, of its candidate's
scores. It knows the test's queries. Source: CAMoE (Cheng et al. 2021, arXiv:2109.04290) and starmemda/CAMoE
`DSL.py`, which also multiplies by the number of queries: no rank changes. There the temperature is 1000, for
the loss of one batch; ours is 1 on the student's logits unless told.
query bank (QBNorm): a score is held against those of the same candidate with a bank of queries of the train
split, where the query's best candidate is one that the bank finds too (dynamic inverted softmax). Source:
Bogolin et al., CVPR 2022 (arXiv:2112.12777), and ioanacroi/qb-norm `dynamic_inverted_softmax.py` with k = 1,
in logs: exp(beta s) of a logit overflows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from store.streamed_ranks import ROWS_AT_ONCE, ScoreBlock

Scores = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(video places [v], text places [t]) -> raw scores [v, t]."""


def dual_softmax(scores: Scores, videos: int, texts: int, temperature: float) -> ScoreBlock:
    """s * softmax(s / temperature) over the queries: over texts where texts rank videos, else over videos."""
    of_video, of_text = np.full(videos, -np.inf), np.full(texts, -np.inf)
    for places_V, places_T in blocks(videos, texts):
        logits = scores(places_V, places_T).astype(np.float64) / temperature
        of_video[places_V] = np.logaddexp(of_video[places_V], np.logaddexp.reduce(logits, axis=1))
        of_text[places_T] = np.logaddexp(of_text[places_T], np.logaddexp.reduce(logits, axis=0))

    def block(places_V: np.ndarray, places_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        score = scores(places_V, places_T).astype(np.float64)
        logits = score / temperature
        by_text = score * np.exp(logits - of_video[places_V, np.newaxis])
        by_video = score * np.exp(logits - of_text[places_T])
        return by_text, by_video

    return block


@dataclass(frozen=True)
class Bank:
    """Scores of the test's candidates with a bank of queries.

    of_texts: test videos against the bank's texts, which stand for queries that are texts; of_videos: the
    bank's videos against test texts. videos, texts: how many the bank has.
    """

    of_texts: Scores
    of_videos: Scores
    videos: int
    texts: int


@dataclass(frozen=True)
class Claims:
    """What a bank says of candidates [N]: the log of its queries' summed exp(beta * score), and whether
    one of them finds the candidate first.
    """

    log_sum: np.ndarray
    found_first: np.ndarray


def query_bank(scores: Scores, videos: int, texts: int, bank: Bank, beta: float) -> ScoreBlock:
    """exp(beta s) over its candidate's sum with the bank, in logs, for queries whose first candidate the
    bank finds first too; the other queries keep their scores.
    """
    of_videos = claims(bank.of_texts, videos, bank.texts, beta)
    of_texts = claims(transposed(bank.of_videos), texts, bank.videos, beta)
    text_counts = of_videos.found_first[first_candidates(scores, videos, texts)]
    video_counts = of_texts.found_first[first_candidates(transposed(scores), texts, videos)]

    def block(places_V: np.ndarray, places_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        score = scores(places_V, places_T).astype(np.float64)
        by_text = np.where(
            text_counts[places_T], beta * score - of_videos.log_sum[places_V, np.newaxis], score
        )
        by_video = np.where(
            video_counts[places_V, np.newaxis], beta * score - of_texts.log_sum[places_T], score
        )
        return by_text, by_video

    return block


def claims(scores_of: Scores, candidates: int, queries: int, beta: float) -> Claims:
    """scores_of: (candidate places, query places) -> [candidates, queries]."""
    log_sum = np.full(candidates, -np.inf)
    for places_C, places_Q in blocks(candidates, queries):
        logits = beta * scores_of(places_C, places_Q).astype(np.float64)
        log_sum[places_C] = np.logaddexp(log_sum[places_C], np.logaddexp.reduce(logits, axis=1))
    found_first = np.zeros(candidates, dtype=bool)
    found_first[first_candidates(scores_of, candidates, queries)] = True
    return Claims(log_sum, found_first)


def first_candidates(scores_of: Scores, candidates: int, queries: int) -> np.ndarray:
    """[queries] int64: the place of each query's best candidate, of equals the first."""
    best, place = np.full(queries, -np.inf), np.zeros(queries, dtype=np.int64)
    for places_C, places_Q in blocks(candidates, queries):
        score = scores_of(places_C, places_Q)
        top = score.argmax(axis=0)
        value = score[top, np.arange(len(places_Q))]
        better = value > best[places_Q]
        place[places_Q[better]] = places_C[top[better]]
        best[places_Q[better]] = value[better]
    return place


def transposed(scores: Scores) -> Scores:
    return lambda places_N, places_M: scores(places_M, places_N).T


def blocks(rows: int, columns: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of all pairs, in blocks of up to ROWS_AT_ONCE squared, column by column."""
    for column in range(0, columns, ROWS_AT_ONCE):
        for row in range(0, rows, ROWS_AT_ONCE):
            yield (
                np.arange(row, min(row + ROWS_AT_ONCE, rows)),
                np.arange(column, min(column + ROWS_AT_ONCE, columns)),
            )
