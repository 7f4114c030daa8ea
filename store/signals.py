"""What can be stored: every signal is declared here once; writer, reader, `info` and docs follow.

Axis letters, one legend for the project: V videos, T texts, R renditions, M frames of a video,
W words of a text, L tokens of a frame ([CLS] first), D width, B batch, K kept neighbours,
C classes, H heads, Y/X pixel rows/columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from store.encodings import ENCODINGS, FLOAT16
from store.errors import DamagedCacheError, InputError, UnknownNameError
from store.lookup import look_up
from store.untrusted import is_count, is_plain_path, shown

LARGEST_SIZE = 1 << 20


@dataclass(frozen=True)
class SignalKind:
    """What a signal means, whatever teacher emits it.

    axes: the letters of its axes; the first is the row axis, V or T.
    tolerance: relative L2 error that two correct writings of it may show.
    version: raised by hand when the meaning changes; part of the identity.
    """

    axes: str
    meaning: str
    tolerance: float
    version: int = 1


SIGNAL_KINDS: dict[str, SignalKind] = {
    "frame_embedding": SignalKind(
        "VRMD", "frame features in the joint space, before temporal modelling", 1e-3
    ),
    "temporal_frame_embedding": SignalKind("VRMD", "frame features after the temporal transformer", 1e-3),
    "text_embedding": SignalKind("TD", "sentence feature in the joint space", 1e-3),
    "word_embedding": SignalKind("TWD", "feature of every word position, padding included", 1e-3),
    "frame_relevance": SignalKind("TRM", "raw score of each frame against the video's own text", 1e-3),
    "video_text_logits": SignalKind("VT", "raw logits, logit_scale included", 1e-3),
    "vit_layers": SignalKind("VRMLD", "tokens after a block of the vision transformer", 1e-3),
}


@dataclass(frozen=True)
class SignalSpec:
    """One signal of one teacher: its kind, its sizes and how it is stored.

    name: a key of SIGNAL_KINDS, with "/<n>" behind it for `vit_layers` (the block's number).
    sizes: length of every axis but the row axis (and but T of `video_text_logits`).
    attributes: what a reader needs to use it, in plain JSON (e.g. temperature, logit_scale).
    """

    name: str
    sizes: Mapping[str, int]
    encoding: str = FLOAT16
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise InputError(f"signal {self.name!r}: encoding is one of {ENCODINGS}, not {self.encoding!r}")
        inner = set(self.kind.axes[1:]) - {"T"}
        if set(self.sizes) != inner:
            raise InputError(
                f"signal {self.name!r} needs sizes for axes {sorted(inner)}, got {sorted(self.sizes)}"
            )

    @property
    def kind(self) -> SignalKind:
        base, _, number = self.name.partition("/")
        if (base == "vit_layers") != bool(re.fullmatch(r"\d+", number)):
            raise UnknownNameError(f"unknown signal {self.name!r}; layers are named vit_layers/<n>")
        return look_up("signal", base, SIGNAL_KINDS)

    @property
    def row_axis(self) -> str:
        return self.kind.axes[0]

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "axes": list(self.kind.axes),
            "sizes": dict(self.sizes),
            "encoding": self.encoding,
            "version": self.kind.version,
            "attributes": dict(self.attributes),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SignalSpec:
        """Parse `to_dict`'s; raises DamagedCacheError for other types, InputError for another version."""
        sizes = fields["sizes"]
        if not (
            is_plain_path(fields["name"])
            and isinstance(sizes, dict)
            and all(is_count(size, LARGEST_SIZE) and size > 0 for size in sizes.values())
            and isinstance(fields["attributes"], dict)
            and type(fields["version"]) is int
        ):
            raise DamagedCacheError(f"{shown(fields)} is no signal of format 1; pull the cache again")
        spec = cls(fields["name"], fields["sizes"], fields["encoding"], fields["attributes"])
        if list(spec.kind.axes) != fields["axes"] or spec.kind.version != fields["version"]:
            raise InputError(
                f"signal {spec.name!r} was written as axes {fields['axes']} version {fields['version']}, "
                f"this release knows {list(spec.kind.axes)} version {spec.kind.version}; "
                "use the release that wrote it"
            )
        return spec
