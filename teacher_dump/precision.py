"""What a forward in half precision changes: measured on given inputs, to be recorded beside the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from store.encodings import ErrorSum
from store.errors import NonFiniteError
from teacher_dump.models.frozen import FrozenTeacher
from teacher_dump.teachers.base import FLOAT32


def difference_to_float32(
    teacher: FrozenTeacher, frames_BMYXC: Tensor, frame_valid_BM: Tensor, texts: Sequence[str]
) -> dict[str, float]:
    """Relative L2 difference, by signal, of `teacher` in its precision to itself in float32; {} for float32.

    See `compared_to_float32`.
    """
    pairs = compared_to_float32(teacher, frames_BMYXC, frame_valid_BM, texts)
    return {name: relative_l2(ours, exact) for name, (ours, exact) in pairs.items()}


def error_to_float32(
    teacher: FrozenTeacher, frames_BMYXC: Tensor, frame_valid_BM: Tensor, texts: Sequence[str]
) -> dict[str, ErrorSum]:
    """The same difference as a sum that is kept beside the labels.

    Raises NonFiniteError, with the way out, where the precision is too narrow for the teacher.
    """
    found = {}
    for name, (ours, exact) in compared_to_float32(teacher, frames_BMYXC, frame_valid_BM, texts).items():
        if not torch.isfinite(ours).all():
            raise NonFiniteError(
                f"teacher {teacher.name!r} in {teacher.dtype}: {name!r} is not finite on a sample of the "
                "data; use --dtype bfloat16 or float32"
            )
        found[name] = ErrorSum.between(exact.float().cpu().numpy(), ours.float().cpu().numpy())
    return found


def compared_to_float32(
    teacher: FrozenTeacher, frames_BMYXC: Tensor, frame_valid_BM: Tensor, texts: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """(in the teacher's precision, in float32) of every signal but masks; {} for a teacher in float32.

    Pair signals are computed from each precision's own features, all videos against all texts; relevance and
    pairs of a cross-encoder, row by row as far as both reach. Missing frames are left out.
    """
    if teacher.dtype == FLOAT32:
        return {}
    ours = _signals(teacher, frames_BMYXC, frame_valid_BM, texts)
    exact = _signals(teacher.with_dtype(FLOAT32), frames_BMYXC, frame_valid_BM, texts)
    return {name: (ours[name], exact[name]) for name in exact if exact[name].is_floating_point()}


def _signals(
    teacher: FrozenTeacher, frames_BMYXC: Tensor, frame_valid_BM: Tensor, texts: Sequence[str]
) -> dict[str, Tensor]:
    of_videos, of_texts = teacher.encode_videos(frames_BMYXC, frame_valid_BM), teacher.encode_texts(texts)
    valid = frame_valid_BM.to(teacher.device)
    videos: Mapping[str, Tensor] = {**of_videos, "frame_valid": valid}
    found = {name: value[valid] for name, value in of_videos.items()} | of_texts
    emitted = {spec.name for spec in teacher.signals}
    pairs = min(len(frames_BMYXC), len(texts))
    first_videos = {name: value[:pairs] for name, value in videos.items()}
    first_texts = {name: value[:pairs] for name, value in of_texts.items()}
    if "video_text_logits" in emitted:
        found["video_text_logits"] = teacher.score_pairs(videos, of_texts)
    if "frame_relevance" in emitted:
        found["frame_relevance"] = teacher.relevance(first_videos, first_texts)[valid[:pairs]]
    if teacher.fused_width is not None:
        found["fused_cls"] = teacher.match_pairs(first_videos, first_texts)["fused_cls"]
    return found


def relative_l2(value: Tensor, exact: Tensor) -> float:
    """||value - exact|| / ||exact||, 0 for all-zero `exact` that is met."""
    error, norm = (value - exact).double().norm(), exact.double().norm()
    return float(error / norm) if norm > 0 else float(torch.where(error > 0, torch.inf, 0.0))
