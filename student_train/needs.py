"""What a student or a loss asks the cache for, as strings; a batch holds each under the same string.

    frame_embedding        a signal of the main teacher, by its name in the cache
    frame_embedding@ts     the same of the teacher in the role "ts"; a role that is not filled is the main's
    pair_scores            scores of the batch's pairs, a PairBlock; with `pair_known` if not all are known
    match_probability      probability that a pair matches, a PairBlock, with `match_known`: of a teacher that
                           judged the best of every video and text; what it did not judge is 0
    logit_scale            [] float32, what multiplies the teacher's cosines
    text                   the raw captions (list of str); the student tokenises them
    pixels                 the view's frames [B, M, Y, X, C] uint8
    video_class            [B] int64, the class of each video
    planned_topk/text_index   of a teacher that scored a plan's batches, what it said of this batch's best:
                           text_index, text_score [b, K], text_fused_cls [b, K, D], and the same of video_;
                           an index is a place in the global batch, int64
    class:text_embedding   a text signal of all class names [P, C, ...] (P prompts); class:text: their words

With a signal of videos comes `frame_valid` [B, M], of a role `frame_valid@role`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

PAIR_SCORES = "pair_scores"
PAIR_KNOWN = "pair_known"
MATCH_PROBABILITY = "match_probability"
MATCH_KNOWN = "match_known"
IGNORED_PAIR = "ignored_pair"
FRAME_VALID = "frame_valid"
RELEVANCE = "frame_relevance"
LOGIT_SCALE = "logit_scale"
TEXT = "text"
PIXELS = "pixels"
CLASS = "video_class"
OF_CLASSES = "class:"
PLANNED_TOPK = "planned_topk/"
NOT_SIGNALS = (PAIR_SCORES, MATCH_PROBABILITY, LOGIT_SCALE, TEXT, PIXELS, CLASS)
MAIN = ""


def split_role(need: str) -> tuple[str, str]:
    """("frame_embedding", "ts") of "frame_embedding@ts"; the role of the main teacher is ""."""
    name, _, role = need.partition("@")
    return name, role


def in_role(need: str, role: str) -> str:
    """`need` asked of the teacher in `role`; a need that names a role keeps it."""
    return f"{need}@{role}" if role and "@" not in need else need


def roles_of(needs: Iterable[str]) -> list[str]:
    """The roles that `needs` name, in their order, the main's left out."""
    return [role for role in dict.fromkeys(split_role(need)[1] for need in needs) if role]


def seen_through(batch: Mapping[str, Any], role: str) -> Mapping[str, Any]:
    """The batch as a loss in `role` sees it: what "x@role" holds stands under "x"."""
    if not role:
        return batch
    own = {split_role(key)[0]: value for key, value in batch.items() if split_role(key)[1] == role}
    return {**batch, **own}
