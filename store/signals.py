"""What can be stored: each signal is declared here once; writer, reader, verify, estimate and `info` follow.

Axis letters, one legend for the project: V videos, T texts, S steps of a batch plan, R renditions, M frames
of a video, W words of a text, L tokens of a frame ([CLS] first), D width, B batch, K kept neighbours,
C classes, H heads, Y/X pixel rows/columns, P rows of what the teacher itself is made of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from store.encodings import BOOL, FLOAT16, FLOAT32, INT8, INT32
from store.errors import DamagedCacheError, InputError, UnknownNameError
from store.lookup import look_up
from store.untrusted import exact_fields, is_count, is_plain_path, shown

LARGEST_SIZE = 1 << 20
TABLE_AXES = "VTS"
"""Axes whose length the cache's tables and batch plans decide."""

FRAME, TOKEN, TEXT, WORD, PAIR, TEACHER = "frame", "token", "text", "word", "pair", "teacher"
VISION_HEAD = "vision_head"

ALL_TOKENS, CLS_TOKEN, POOLED_TOKENS = "all", "cls", "pool2x2"
TOKENS = (ALL_TOKENS, CLS_TOKEN, POOLED_TOKENS)


@dataclass(frozen=True)
class SignalKind:
    """What a signal means, whatever teacher emits it.

    axes: the letters of its axes; the first is the row axis: V, T, S or P. granularity: what one number or
    vector of it describes; "token" means a place in the picture, so that a student may not augment frames;
    "teacher" means the teacher itself, whatever it saw.
    tolerance: relative L2 error that two correct writings of it may show, encoding included. needed_by:
    students that train from it. encodings: in which it may be stored, the first being the default.
    version: raised by hand when the meaning changes; part of the identity.
    """

    axes: str
    meaning: str
    granularity: str
    needed_by: tuple[str, ...]
    tolerance: float = 1e-3
    encodings: tuple[str, ...] = (FLOAT16,)
    version: int = 1


FEATURES = (FLOAT16, INT8)

MISMATCH = "raw logits that they do not match; sigmoid(score - mismatch) is the probability"

SIGNAL_KINDS: dict[str, SignalKind] = {
    "frame_embedding": SignalKind(
        "VRMD",
        "frame features in the joint space, before temporal modelling",
        FRAME,
        ("afa", "sab", "mcad", "text4vis"),
        encodings=FEATURES,
    ),
    "temporal_frame_embedding": SignalKind(
        "VRMD", "frame features after the temporal transformer", FRAME, ("sab",), encodings=FEATURES
    ),
    "text_embedding": SignalKind(
        "TD",
        "sentence feature in the joint space",
        TEXT,
        ("afa", "sab", "mcad", "text4vis"),
        encodings=FEATURES,
    ),
    "word_embedding": SignalKind(
        "TWD", "feature of every word position, padding included", WORD, ("sab",), encodings=FEATURES
    ),
    "word_valid": SignalKind("TW", "which word positions hold a token", WORD, ("sab",), encodings=(BOOL,)),
    "frame_relevance": SignalKind(
        "TRM", "raw score of each frame against the video's own text", FRAME, ("afa",)
    ),
    "video_text_logits": SignalKind("VT", "raw logits, logit_scale included", PAIR, ("afa", "sab", "mcad")),
    "vit_layers/<n>": SignalKind(
        "VRMLD",
        "tokens after a block of the vision transformer",
        TOKEN,
        ("sab", "side_network"),
        encodings=FEATURES,
    ),
    VISION_HEAD: SignalKind(
        "PD",
        "behind the last block: weight and bias of the last norm, then the projection, a row an output",
        TEACHER,
        ("side_network",),
        encodings=(FLOAT32,),
    ),
    "topk_scores/text_index": SignalKind(
        "VK", "text rows, best first; -1 (and logit 0): fewer than K", PAIR, ("mcad",), encodings=(INT32,)
    ),
    "topk_scores/text_score": SignalKind("VK", "raw logits of those texts", PAIR, ("mcad",)),
    "topk_scores/video_index": SignalKind(
        "TK", "video rows, best first; -1 (and logit 0): fewer than K", PAIR, ("mcad",), encodings=(INT32,)
    ),
    "topk_scores/video_score": SignalKind("TK", "raw logits of those videos", PAIR, ("mcad",)),
    "topk_scores/text_mismatch": SignalKind("VK", MISMATCH, PAIR, ("mcad",)),
    "topk_scores/video_mismatch": SignalKind("TK", MISMATCH, PAIR, ("mcad",)),
    "planned_scores/<plan>": SignalKind(
        "SBB", "raw logits of each video against each text of a step", PAIR, ("afa", "sab", "mcad")
    ),
    "planned_topk/<plan>/text_index": SignalKind(
        "SBK", "places in the batch of the best texts", PAIR, ("mcad",), encodings=(INT32,)
    ),
    "planned_topk/<plan>/text_score": SignalKind("SBK", "raw logits of those texts", PAIR, ("mcad",)),
    "planned_topk/<plan>/text_mismatch": SignalKind("SBK", MISMATCH, PAIR, ("mcad",)),
    "planned_topk/<plan>/text_fused_cls": SignalKind(
        "SBKD", "fused [CLS] of those pairs", PAIR, ("mcad",), encodings=FEATURES
    ),
    "planned_topk/<plan>/video_index": SignalKind(
        "SBK", "places in the batch of the best videos", PAIR, ("mcad",), encodings=(INT32,)
    ),
    "planned_topk/<plan>/video_score": SignalKind("SBK", "raw logits of those videos", PAIR, ("mcad",)),
    "planned_topk/<plan>/video_mismatch": SignalKind("SBK", MISMATCH, PAIR, ("mcad",)),
    "planned_topk/<plan>/video_fused_cls": SignalKind(
        "SBKD", "fused [CLS] of those pairs", PAIR, ("mcad",), encodings=FEATURES
    ),
}

PARAMETERS = {"<n>": r"0|[1-9]\d{0,3}", "<plan>": r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"}


def kind_of(name: str) -> SignalKind:
    """The kind of the signal `name`; raises UnknownNameError, with a suggestion, for what there is not."""
    template = _template(name)
    if template is None and name.startswith("vit_layers"):
        raise UnknownNameError(f"unknown signal {name!r}; layers are named vit_layers/<n>")
    return SIGNAL_KINDS[template] if template else look_up("signal", name, SIGNAL_KINDS)


def plan_of(name: str) -> str | None:
    """The batch plan whose steps are the rows of signal `name`; None if its rows are videos or texts."""
    return name.split("/")[1] if (_template(name) or "").split("/")[1:2] == ["<plan>"] else None


def _template(name: str) -> str | None:
    parts = name.split("/")
    for template in SIGNAL_KINDS:
        expected = template.split("/")
        if len(parts) == len(expected) and all(
            re.fullmatch(PARAMETERS.get(there, re.escape(there)), here, re.ASCII)
            for here, there in zip(parts, expected, strict=True)
        ):
            return template
    return None


@dataclass(frozen=True)
class Reduction:
    """What is left of a teacher's tokens before they are encoded (`store.reduction`).

    tokens: "all", "cls" (only [CLS]) or "pool2x2" ([CLS] and the mean of every 2 x 2 patches). width: D after
    a projection onto as many principal directions of the data, None for all of D.
    """

    tokens: str = ALL_TOKENS
    width: int | None = None

    def __post_init__(self) -> None:
        if self.tokens not in TOKENS:
            raise InputError(f"tokens are one of {', '.join(TOKENS)}, not {self.tokens!r}")
        if self.width is not None and not (type(self.width) is int and self.width >= 1):
            raise InputError(f"a projection's width is a whole number from 1, not {self.width!r}")

    def to_dict(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "width": self.width}


@dataclass(frozen=True)
class SignalSpec:
    """One signal of one teacher: its kind, its sizes and how it is stored.

    name: a key of SIGNAL_KINDS, with a number or a plan's name for what stands there in <>. sizes: length of
    every stored axis but the tables' rows V, T and S. attributes: what a reader needs to
    use it, in plain JSON (e.g. temperature, logit_scale). reduction: what was done to the teacher's values
    before; `sizes` are those after it.
    """

    name: str
    sizes: Mapping[str, int]
    encoding: str = FLOAT16
    attributes: Mapping[str, Any] = field(default_factory=dict)
    reduction: Reduction = field(default_factory=Reduction)

    def __post_init__(self) -> None:
        if self.encoding not in self.kind.encodings:
            raise InputError(
                f"signal {self.name!r} is stored as {' or '.join(self.kind.encodings)}, not {self.encoding!r}"
            )
        inner = set(self.kind.axes) - set(TABLE_AXES)
        if set(self.sizes) != inner:
            raise InputError(
                f"signal {self.name!r} needs sizes for axes {sorted(inner)}, got {sorted(self.sizes)}"
            )
        if not all(type(size) is int and size >= 1 for size in self.sizes.values()):
            raise InputError(f"signal {self.name!r}: sizes are whole numbers from 1, got {dict(self.sizes)}")
        if self.reduction != Reduction() and self.kind.granularity != TOKEN:
            raise InputError(f"signal {self.name!r} has no tokens to reduce, only vit_layers have")

    @property
    def kind(self) -> SignalKind:
        return kind_of(self.name)

    @property
    def row_axis(self) -> str:
        return self.kind.axes[0]

    @property
    def is_of_teacher(self) -> bool:
        """Whether it tells of the teacher itself, so that rows which are appended change nothing of it."""
        return self.kind.granularity == TEACHER

    @property
    def is_calibrated(self) -> bool:
        """Whether numbers fitted on a sample of the data are stored beside it (`store.calibration`)."""
        return self.encoding == INT8 or self.reduction.width is not None

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "axes": list(self.kind.axes),
            "sizes": dict(self.sizes),
            "encoding": self.encoding,
            "reduction": self.reduction.to_dict(),
            "granularity": self.kind.granularity,
            "version": self.kind.version,
            "attributes": dict(self.attributes),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SignalSpec:
        """Parse `to_dict`'s; raises DamagedCacheError for other types, InputError for another version."""
        sizes, attributes = fields["sizes"], fields["attributes"]
        if not (
            is_plain_path(fields["name"])
            and isinstance(sizes, dict)
            and all(is_count(size, LARGEST_SIZE) for size in sizes.values())
            and isinstance(attributes, dict)
            and type(fields["version"]) is int
        ):
            raise DamagedCacheError(f"{shown(fields)} is no signal of format 1; pull the cache again")
        reduction = Reduction(**exact_fields(Reduction, fields["reduction"], "a reduction"))
        spec = cls(fields["name"], sizes, fields["encoding"], attributes, reduction)
        told = spec.to_dict()
        for key in ("axes", "version", "granularity"):
            if fields[key] != told[key]:
                raise InputError(
                    f"signal {spec.name!r} was written with {key} {shown(fields[key])}, this release knows "
                    f"{told[key]!r}; use the release that wrote it"
                )
        return spec


def named_groups(names: Sequence[str]) -> list[str]:
    """The folders between a teacher and its signals: "vit_layers" of "vit_layers/3"; sorted, each once."""
    parents = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 1)}
    return sorted(parents)
