"""From tables, views and SignalSpecs to the Zarr hierarchy of format 1: which array lies where.

videos/  texts/  splits/<split>/  views/<view>/  teachers/<teacher>/  plans/<plan>/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from store.calibration import TOKEN_SCALE, VALUES
from store.encodings import FLOAT16, INT8
from store.errors import DamagedCacheError, InputError
from store.inputs.preprocess import THUMBNAIL_SIZE
from store.inputs.samples import Samples, Segment
from store.inputs.view import View
from store.kept_pixels import KeptPixels, pixel_arrays
from store.pair_scores import PairScores
from store.parts import FIRST, TEACHERS, VIEWS, Group, Part, is_added_name
from store.shards import RowsArray
from store.signals import SignalSpec, plan_of
from store.untrusted import is_of, is_path_name, shown

FORMAT_NAME = "video-text teacher signals"
FORMAT_VERSION = 1
OWN_VIDEOS, EARLIER_VIDEOS = "own_videos", "earlier_videos"
STATES = PLANNED, DUMPING, COMPLETE = "planned", "dumping", "complete"
DIMENSIONS = {"SBB": ("S", "B_video", "B_text"), "TWD": ("T", "W", "D_word")}
"""Names of axes where the letters alone would clash within an array or a group."""


def view_path(view: str, segment: int = 0) -> str:
    return Group(VIEWS, view, Part(segment)).path


def teacher_path(teacher: str) -> str:
    return f"teachers/{teacher}"


def plan_path(plan: str) -> str:
    return f"plans/{plan}"


def check_path_name(kind: str, name: str) -> str:
    """`name` if it can be a folder of the cache; raises InputError otherwise."""
    if not is_path_name(name):
        raise InputError(f"{kind} {name!r} can't name a folder; use letters, digits, '_', '-' and '.'")
    if is_added_name(name):
        raise InputError(f"{kind} {name!r}: names that end in '.added-<n>' are kept for what is added later")
    return name


def group_json(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A group's zarr.json."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def view_arrays(
    view: View, videos: int, shard_rows: int, kept: KeptPixels | None = None
) -> dict[str, RowsArray]:
    """The arrays of a view over V videos; crop_box is (left, top, right, bottom) in source pixels.

    colour, where the view has an augmentation: see store.inputs.augment.NEUTRAL_COLOUR. kept: how its frames
    are kept, if they are.
    """
    rendition, frame = (videos, view.renditions), (videos, view.renditions, view.frames)
    thumbnail = (*frame, THUMBNAIL_SIZE, THUMBNAIL_SIZE, 3)
    arrays = {
        "frame_time_s": RowsArray(frame, "float64", ("V", "R", "M"), shard_rows),
        "frame_valid": RowsArray(frame, "bool", ("V", "R", "M"), shard_rows),
        "crop_box": RowsArray((*rendition, 4), "float32", ("V", "R", "box"), shard_rows),
        "flip": RowsArray(rendition, "bool", ("V", "R"), shard_rows),
        "frame_thumbnail": RowsArray(thumbnail, "uint8", ("V", "R", "M", "Y", "X", "channel"), shard_rows),
    }
    if view.augmentation is not None:
        arrays["colour"] = RowsArray((*rendition, 4), "float32", ("V", "R", "colour"), shard_rows)
    return arrays | (pixel_arrays(view, videos, shard_rows, kept) if kept else {})


@dataclass(frozen=True)
class TableCounts:
    """Lengths of the row axes: V videos, T texts, and S steps of each batch plan.

    first_video, first_text: of a segment that was appended, how many rows come before it.
    """

    videos: int
    texts: int
    plan_steps: Mapping[str, int] = field(default_factory=dict)
    first_video: int = 0
    first_text: int = 0

    @classmethod
    def of(cls, segment: Segment, plan_steps: Mapping[str, int] | None = None) -> TableCounts:
        """The rows of one segment, and how many come before it."""
        (first_video, video), (first_text, text) = segment.video, segment.text
        return cls(video - first_video, text - first_text, plan_steps or {}, first_video, first_text)

    def rows_of(self, spec: SignalSpec) -> int:
        """Length of the signal's row axis; raises InputError if its plan is not known."""
        if spec.is_of_teacher:
            return spec.sizes[spec.row_axis]
        if spec.row_axis != "S":
            return self.videos if spec.row_axis == "V" else self.texts
        plan = plan_of(spec.name) or ""
        if plan not in self.plan_steps:
            raise InputError(f"signal {spec.name!r}: there is no batch plan {plan!r}; draw it first")
        return self.plan_steps[plan]


def signal_arrays(spec: SignalSpec, counts: TableCounts, shard_rows: int) -> dict[str, RowsArray]:
    """The arrays of one signal: one, named "", or several by name: where numbers are fitted to it, and the
    pairs that an appended segment brings: of its videos with all texts, of its texts with earlier videos.
    """
    sizes = {"T": counts.first_text + counts.texts, **spec.sizes}
    shape = (counts.rows_of(spec), *(sizes[axis] for axis in spec.kind.axes[1:]))
    axes = DIMENSIONS.get(spec.kind.axes, tuple(spec.kind.axes))
    values = RowsArray(shape, spec.encoding, axes, shard_rows)
    if spec.kind.axes == "VT" and (counts.first_video or counts.first_text):
        earlier = RowsArray((counts.first_video, counts.texts), spec.encoding, ("V_earlier", "T"), shard_rows)
        blocks = {OWN_VIDEOS: replace(values, axes=("V", "T_all")), EARLIER_VIDEOS: earlier}
        return {name: block for name, block in blocks.items() if all(block.shape[1:])}
    if not spec.is_calibrated:
        return {"": values}
    if spec.encoding == INT8:
        return {VALUES: values, TOKEN_SCALE: RowsArray(shape[:-1], FLOAT16, axes[:-1], shard_rows)}
    return {VALUES: values}


def expected_rows(
    spec: SignalSpec,
    video_usable: np.ndarray,
    text_video: np.ndarray,
    counts: TableCounts,
    part: str = "",
) -> np.ndarray:
    """Which rows a complete signal has: bool [rows]; what a failed video would have given is not there.

    video_usable: bool [V], of the videos of this and earlier segments. text_video: int64 [T], the video of
    each text of the segment, -1 for a class name. part: which of `signal_arrays`.
    """
    if part == EARLIER_VIDEOS:
        return video_usable[: counts.first_video]
    if spec.row_axis == "V":
        return video_usable[counts.first_video :]
    if spec.name == "frame_relevance":
        return (text_video >= 0) & video_usable[text_video]
    return np.ones(counts.rows_of(spec), dtype=bool)


def part_path(signal_path: str, part: str) -> str:
    """Where a part of the signal at `signal_path` lies; the part "" is the signal itself."""
    return f"{signal_path}/{part}" if part else signal_path


@dataclass(frozen=True)
class TeacherPlan:
    """All that is fixed before a teacher's first shard is written; stored in its group's attributes.

    identity: the teacher's own. execution: what makes a resume byte-equal (batch sizes, threads,
    device type, rows of a shard by phase). provenance: versions of libraries; told, not compared. part: which
    rows and signals this is of; the folder tells it, so the attributes do not.
    """

    name: str
    identity: Mapping[str, Any]
    view: View
    signals: tuple[SignalSpec, ...]
    execution: Mapping[str, Any]
    provenance: Mapping[str, Any]
    part: Part = FIRST

    @property
    def path(self) -> str:
        """The folder of its group."""
        return Group(TEACHERS, self.name, self.part).path

    @property
    def view_path(self) -> str:
        """The folder of its view over the same rows."""
        return view_path(self.view.name, self.part.segment)

    @property
    def kept_pixels(self) -> KeptPixels | None:
        """How the view's frames are kept, if they are to be."""
        told = self.execution.get("pixels")
        return None if told is None else KeptPixels.from_dict(told)

    @property
    def pair_scores(self) -> PairScores:
        return PairScores.of({spec.name: spec for spec in self.signals}, self.identity.get("logit_scale"))

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "identity": dict(self.identity),
            "view": self.view.to_dict(),
            "signals": [spec.to_dict() for spec in self.signals],
            "pair_scores": self.pair_scores.to_dict(),
            "execution": dict(self.execution),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], part: Part = FIRST) -> TeacherPlan:
        """Parse `to_dict`'s; raises DamagedCacheError for what is missing or of another type."""
        try:
            plan = cls(
                fields["name"],
                fields["identity"],
                View.from_dict(fields["view"]),
                tuple(SignalSpec.from_dict(spec) for spec in fields["signals"]),
                fields["execution"],
                fields["provenance"],
                part,
            )
        except (KeyError, TypeError) as error:
            raise DamagedCacheError(f"a teacher's attributes lack {error}; restore its zarr.json") from None
        objects = (plan.identity, plan.execution, plan.provenance)
        scale = plan.identity.get("logit_scale") if isinstance(plan.identity, dict) else None
        names = {spec.name for spec in plan.signals}
        if (
            not is_path_name(plan.name)
            or not all(isinstance(value, dict) for value in objects)
            or not (scale is None or is_of(scale, float))
            or len(names) != len(plan.signals)
        ):
            raise DamagedCacheError(
                f"the attributes of teacher {shown(plan.name)} are not those of format 1; pull it again"
            )
        return plan


DATASET_IDENTITY = ("name", "videos", "texts", "splits", "segments", "splits_sha256")


def dataset_attributes(samples: Samples, earlier: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """What the root says of the dataset; DATASET_IDENTITY names what identifies it.

    earlier: the segments of its first rows, where the others were appended to them.
    """
    first = [earlier[-1][axis][1] for axis in ("video", "text")] if earlier else [0, 0]
    last = {
        "video": [first[0], len(samples.videos)],
        "text": [first[1], len(samples.texts)],
    }
    digest = samples.rows_digest([Segment.of(segment) for segment in (*earlier, last)])
    return {
        "name": samples.name,
        "segments": [*earlier, {**last, "sha256": digest}],
        "splits_sha256": samples.splits_digest(),
        "title": samples.card.title,
        "licence": samples.card.licence,
        "source": samples.card.source,
        **({} if samples.card.share is None else {"share": samples.card.share}),
        "videos": len(samples.videos),
        "texts": len(samples.texts),
        "splits": {
            name: {"videos": len(split.video), "texts": len(split.text)}
            for name, split in sorted(samples.splits.items())
        },
        "protocol": samples.protocol,
        "missing": dict(sorted(samples.missing.items())),
        "prompts": list(samples.prompts),
    }
