"""What to suspect when a teacher no longer says what a cache holds: named by which signals deviate.

thumbnails or times          -> frames
all of videos, not of texts  -> preprocessing (the frames being the same)
all of texts, not of videos  -> tokenizer
both, far                    -> weights
both, a little               -> dtype, or another device
scores alone                 -> weights of the part that scores
only the identity            -> what its fields tell of: rows outside the sample are another teacher's word
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from teacher_dump.rechecks.comparison import PAIRS, TEXTS, VIDEOS, Comparison

FRAMES, PREPROCESSING, TOKENIZER, WEIGHTS, DTYPE = "frames", "preprocessing", "tokenizer", "weights", "dtype"
LITTLE = 0.03
"""Relative L2 difference that a forward in bfloat16 may make, of 8 bits; other weights make far more."""

MOVED = 0.1
"""Share of a tolerance up to which two forwards in the same precision differ."""

FIELDS = {
    "weights_sha256": WEIGHTS,
    "architecture": WEIGHTS,
    "logit_scale": WEIGHTS,
    "temperature": WEIGHTS,
    "quick_gelu": WEIGHTS,
    "encoders": WEIGHTS,
    "head": WEIGHTS,
    "shifted_blocks": WEIGHTS,
    "noise": WEIGHTS,
    "mean": PREPROCESSING,
    "std": PREPROCESSING,
    "view": PREPROCESSING,
    "tokenizer": TOKENIZER,
    "context_length": TOKENIZER,
    "classifier": TOKENIZER,
    "dtype": DTYPE,
}
"""Which suspicion a field of the teacher's identity bears out; a field that is not here, that of weights."""

WHENCE = ("pretrained",)
"""Fields that tell where weights were had from: which ones they are, their digest tells."""


@dataclass(frozen=True)
class Suspicion:
    """what: one of the five above. why: which signals say so, and what to look at."""

    what: str
    why: str

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def suspicions(
    comparisons: Sequence[Comparison], other_frames: Mapping[int, str], identity: Sequence[str]
) -> list[Suspicion]:
    """The likeliest first; none if nothing deviates and no field of `identity` counts.

    other_frames: video row -> how the frames that it gives here differ from those that the cache's teacher
    saw. identity: fields in which the teacher's identity differs.
    """
    found = []
    if other_frames:
        found.append(
            Suspicion(
                FRAMES,
                f"{len(other_frames)} of the sampled videos give other frames here than the teacher saw: the "
                "files or the decoder differ (python -m store frames CACHE --check DIR tells for all)",
            )
        )
    unexplained = {
        of: [c.without(set(other_frames)) if of == VIDEOS else c for c in comparisons if c.of == of]
        for of in (VIDEOS, TEXTS, PAIRS)
    }
    of_features = features_suspicion(unexplained[VIDEOS], unexplained[TEXTS])
    if of_features is not None:
        found.append(of_features)
    elif deviating := [c for c in unexplained[PAIRS] if c.deviates]:
        found.append(scores_suspicion(deviating))
    found = [Suspicion(s.what, s.why + borne_out(s.what, identity)) for s in found]
    told = {s.what for s in found}
    return [*found, *(identity_suspicion(what, identity) for what in named_by(identity) if what not in told)]


def features_suspicion(videos: Sequence[Comparison], texts: Sequence[Comparison]) -> Suspicion | None:
    """By the signals of single videos and texts, on videos whose frames are the same."""
    of_videos, of_texts = ([c for c in part if c.deviates] for part in (videos, texts))
    deviating = [*of_videos, *of_texts]
    if not deviating:
        return None
    named = named_signals(deviating)
    if all(c.relative_l2 <= LITTLE for c in deviating) and moved(videos) and moved(texts):
        return Suspicion(
            DTYPE,
            f"{named} deviate by {LITTLE:.0%} at most, signals of videos and of texts alike: the precision "
            "of the forward (--dtype), or another device or library",
        )
    if not of_texts and texts:
        return Suspicion(
            PREPROCESSING,
            f"{named} deviate on the same frames, no signal of texts does: mean, std, resize or crop",
        )
    if not of_videos and videos:
        return Suspicion(
            TOKENIZER,
            f"{named} deviate, no signal of videos does: vocabulary, length of texts, or prompts",
        )
    return Suspicion(WEIGHTS, f"{named} deviate: another checkpoint, architecture or layers")


def moved(part: Sequence[Comparison]) -> bool:
    """Whether any of these differs, if only within its tolerance; the same forward gives the same numbers."""
    return not part or any(c.relative_l2 > c.tolerance * MOVED for c in part)


def scores_suspicion(deviating: Sequence[Comparison]) -> Suspicion:
    """Scores are computed from stored features, so they deviate alone only by what scores them."""
    named = named_signals(deviating)
    if all(c.relative_l2 <= LITTLE for c in deviating):
        return Suspicion(DTYPE, f"{named} alone deviate, by {LITTLE:.0%} at most: precision of the scoring")
    return Suspicion(
        WEIGHTS, f"{named} alone deviate, features do not: weights of the part that scores, logit scale"
    )


def named_signals(deviating: Sequence[Comparison]) -> str:
    return ", ".join(c.signal for c in deviating)


def telling(identity: Sequence[str]) -> dict[str, str]:
    """Of the fields in which an identity differs, those that make it another teacher, with the suspicion
    that each bears out."""
    roots = {field: field.split(".")[0].split("[")[0] for field in identity}
    return {field: FIELDS.get(root, WEIGHTS) for field, root in roots.items() if root not in WHENCE}


def named_by(identity: Sequence[str]) -> list[str]:
    """The suspicions that fields of an identity bear out, weights first."""
    return sorted(set(telling(identity).values()), key=lambda what: (what != WEIGHTS, what))


def fields_of(what: str, identity: Sequence[str]) -> str:
    return ", ".join(field for field, told in telling(identity).items() if told == what)


def identity_suspicion(what: str, identity: Sequence[str]) -> Suspicion:
    """Where the sampled signals do not show it."""
    return Suspicion(
        what,
        f"the identity differs in {fields_of(what, identity)}, which the sampled rows do not show: this is "
        "not the teacher that was dumped; give the checkpoint and options of its dump",
    )


def borne_out(what: str, identity: Sequence[str]) -> str:
    fields = fields_of(what, identity)
    return f"; the identity differs in {fields}" if fields else ""
