"""The first task of a dump that stores int8 or projected signals: fit their numbers on a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from store.calibration import PROJECTION_BASIS, Moments, fit, fitted_names
from store.durable import ObjectRecord
from store.errors import InputError
from store.layout import TableCounts, TeacherPlan
from store.reduction import reduce_tokens
from store.signals import SignalSpec
from store.tables import write_column
from teacher_dump.plan import CALIBRATION_ROWS
from teacher_dump.shard_files import blocks

Encode = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""From row numbers [B] to signals [B, ...]; of videos, fewer rows where some did not decode, {} for none."""


def calibrate(
    root: Path, plan: TeacherPlan, counts: TableCounts, encode_videos: Encode, encode_texts: Encode
) -> list[ObjectRecord]:
    """Fit each calibrated signal on rows evenly spaced over its table, and write what was fitted beside it.

    Raises InputError where nothing of the sample could be encoded.
    """
    calibrated = [spec for spec in plan.signals if spec.is_calibrated]
    written: list[ObjectRecord] = []
    for axis, phase, count, encode, batch in (
        ("V", "videos", counts.videos, encode_videos, plan.execution["batch_videos"]),
        ("T", "texts", counts.texts, encode_texts, plan.execution["batch_texts"]),
    ):
        specs = [spec for spec in calibrated if spec.row_axis == axis]
        if specs:
            rows = sample_rows(count, CALIBRATION_ROWS[phase])
            moments = gather_moments(specs, (encode(some) for some in blocks(rows, batch)))
            for spec in specs:
                if spec.name not in moments:
                    raise InputError(f"signal {spec.name!r}: not one row of its sample could be encoded")
                written += write_fitted(root, f"{plan.path}/{spec.name}", spec, moments[spec.name])
    return written


def sample_rows(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` rows, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def gather_moments(
    specs: Sequence[SignalSpec], pieces: Iterator[Mapping[str, np.ndarray]]
) -> dict[str, Moments]:
    """Moments of the vectors that each of `specs` keeps, over all `pieces` of the sample."""
    moments: dict[str, Moments] = {}
    for signals in pieces:
        for spec in specs if signals else ():
            kept = reduce_tokens(signals[spec.name], spec.reduction.tokens)
            empty = Moments(kept.shape[-1], covariance=spec.reduction.width is not None)
            moments.setdefault(spec.name, empty).add(kept)
    return moments


def write_fitted(root: Path, path: str, spec: SignalSpec, moments: Moments) -> Iterator[ObjectRecord]:
    """Write the fitted columns of `spec` below the signal's folder `path`."""
    fitted = fit(spec, moments)
    for name in fitted_names(spec):
        axes = ("D_full", "D") if name == PROJECTION_BASIS else ("D",)
        yield from write_column(root, f"{path}/{name}", fitted[name], axes)
