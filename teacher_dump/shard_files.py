"""The open shard files of one task, and the stored features that a later phase starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from store.calibration import SignalCodec
from store.durable import ObjectRecord
from store.encodings import ErrorSum
from store.errors import IdentityError
from store.inputs.frames import DecodedVideo
from store.inputs.samples import Segment
from store.joined_rows import Rows, joined
from store.kept_pixels import PIXEL_JPEG, PIXEL_JPEG_SPAN, PIXELS, JpegFile
from store.layout import TeacherPlan, view_path
from store.seen_frames import frames_apart
from store.sharded_rows import ShardedRows
from store.shards import RowsArray, ShardFile
from store.signal_rows import StoredSignal
from store.teacher_parts import found_parts, stored_signal, whole_plan
from teacher_dump.plan import phase_of


def open_shards(
    stack: ExitStack, root: Path, path: str, arrays: Mapping[str, RowsArray], number: int, before: int = 0
) -> dict[str, ShardFile]:
    """Shard `number` of each of `arrays` below `root`/`path`, open for writing as long as `stack`.

    before: how many rows lie in arrays of earlier segments.
    """
    return {
        name: stack.enter_context(ShardFile(root, f"{path}/{name}", array, number, before))
        for name, array in arrays.items()
    }


class SignalFiles:
    """The shard files of a phase's signals, by signal and part; values are encoded as they come."""

    def __init__(
        self, files: Mapping[str, Mapping[str, ShardFile]], codecs: Mapping[str, SignalCodec]
    ) -> None:
        self._files = files
        self._codecs = codecs
        self.errors = dict.fromkeys(files, ErrorSum())

    def append(self, rows: Sequence[int] | np.ndarray, signals: Mapping[str, np.ndarray]) -> None:
        """Encode and write `signals` [B, ...] of `rows` [B]; every signal of the phase must be there."""
        for name, files in self._files.items():
            parts, error = self._codecs[name].encode(signals[name], np.asarray(rows))
            self.errors[name] += error
            for part, file in files.items():
                for row, values in zip(rows, parts[part], strict=True):
                    file.append(int(row), values)

    def finish(self) -> list[ObjectRecord]:
        return [file.finish() for files in self._files.values() for file in files.values()]


class ViewFiles:
    """One shard file for each array of a view that this dump resolves."""

    def __init__(self, files: dict[str, ShardFile], jpeg: JpegFile | None = None) -> None:
        self._files = {name: file for name, file in files.items() if name != PIXEL_JPEG}
        self._jpeg = jpeg

    def take(self, row: int, video: DecodedVideo) -> None:
        """Write which frames `video` gave, and the frames themselves if they are kept."""
        values = {**view_values(video), PIXELS: video.frames}
        if self._jpeg is not None:
            values[PIXEL_JPEG_SPAN] = self._jpeg.append(video.frames, video.frame_valid)
        for name, file in self._files.items():
            file.append(row, values[name])

    def miss(self, row: int, reason: str) -> None:
        """A failed video has no rows; the ledger's facts tell why."""

    @property
    def errors(self) -> dict[str, ErrorSum]:
        """What keeping the frames lost."""
        return {} if self._jpeg is None else {PIXELS: self._jpeg.error}

    def finish(self) -> list[ObjectRecord]:
        records = [file.finish() for file in self._files.values()]
        return records if self._jpeg is None else [*records, self._jpeg.finish()]


class StoredView:
    """A view that an earlier teacher resolved, from video row `first` on: the frames must be the same."""

    def __init__(self, root: Path, path: str, first: int = 0) -> None:
        self._path = path
        self._first = first
        self._times = ShardedRows(root, f"{path}/frame_time_s")
        self._thumbnails = ShardedRows(root, f"{path}/frame_thumbnail")

    def take(self, row: int, video: DecodedVideo) -> None:
        """Raise IdentityError if `video` decoded to other times or other pictures than were stored."""
        where = f"{self._path}, video row {row}"
        way_out = (
            "the video file changed since the first teacher saw it; restore it, or dump into another CACHE"
        )
        place = row - self._first
        if not self._times.present[place]:
            raise IdentityError(f"{where} failed in the first dump and decodes now; {way_out}")
        times, thumbnails = (stored.read(np.array([place]))[0] for stored in (self._times, self._thumbnails))
        if apart := frames_apart(video.frame_time_s, video.thumbnail, times, thumbnails):
            raise IdentityError(f"{where}: {apart}; {way_out}")

    def miss(self, row: int, reason: str) -> None:
        """Raise IdentityError if a video fails now that decoded for the first teacher."""
        if self._times.present[row - self._first]:
            raise IdentityError(
                f"{self._path}, video row {row} decoded in the first dump and fails now ({reason}); "
                "restore the file, or dump into another CACHE"
            )

    @property
    def errors(self) -> dict[str, ErrorSum]:
        return {}

    def finish(self) -> list[ObjectRecord]:
        return []


def view_values(video: DecodedVideo) -> dict[str, np.ndarray]:
    """One row of every array of `store.layout.view_arrays`."""
    return {
        "frame_time_s": video.frame_time_s,
        "frame_valid": video.frame_valid,
        "crop_box": video.crop_box,
        "flip": video.flip,
        "colour": video.colour,
        "frame_thumbnail": video.thumbnail,
    }


def stored_signals(root: Path, teacher: str, segments: Sequence[Segment]) -> dict[str, StoredSignal]:
    """Where each signal of `teacher` lies, over the rows of `segments`, its unfinished parts included."""
    parts = found_parts(root, teacher, len(segments) - 1)
    return {
        spec.name: stored_signal(spec, parts, segments, "was not written")
        for spec in whole_plan(root, parts).signals
    }


def stored_frame_valid(root: Path, plan: TeacherPlan, segments: Sequence[Segment]) -> Rows:
    """Rows of the view's frame_valid [V, R, M], over the rows of `segments`."""
    paths = [f"{view_path(plan.view.name, number)}/frame_valid" for number in range(len(segments))]
    return joined(root, paths, [segment.video[1] - segment.video[0] for segment in segments])


class StoredFeatures:
    """Signals that earlier phases committed, decoded for `score_pairs` and `relevance`.

    names: the teacher's pair_inputs; where it has none, all of its videos' and texts' but vit_layers. Reads
    rendition 0: pair scores belong to a video, not to one of its crops. Rows of the segments before that of
    `plan` are among them: `segments` ends with that of `plan`.
    """

    def __init__(
        self, root: Path, plan: TeacherPlan, names: Sequence[str], segments: Sequence[Segment]
    ) -> None:
        stored = stored_signals(root, plan.name, segments)
        wanted = names or [name for name in stored if not name.startswith("vit_layers/")]
        self._rows = {
            phase: [
                DecodedSignal(root, stored[name]) for name in wanted if phase_of(stored[name].spec) == phase
            ]
            for phase in ("videos", "texts")
        }
        self._valid = stored_frame_valid(root, plan, segments)
        self.usable = self._valid.present

    def videos(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Signals [B, M, ...] of video rows, and "frame_valid" [B, M]."""
        signals = {stored.name: stored.read(rows)[:, 0] for stored in self._rows["videos"]}
        return {**signals, "frame_valid": torch.from_numpy(self._valid.read(rows)[:, 0])}

    def texts(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Signals [B, ...] of text rows."""
        return {stored.name: stored.read(rows) for stored in self._rows["texts"]}


class StoredRows:
    """Embeddings that earlier phases committed, as `store.pair_scores.FactoredScores` reads them.

    signals: their names. usable: [V] bool. segments: of the rows, see `StoredFeatures`.
    """

    def __init__(
        self,
        root: Path,
        plan: TeacherPlan,
        segments: Sequence[Segment],
        signals: Sequence[str],
        usable: np.ndarray,
    ) -> None:
        stored = stored_signals(root, plan.name, segments)
        self._signals = {name: DecodedSignal(root, stored[name]) for name in signals}
        self.video_usable = usable
        self.text_usable = np.ones(segments[-1].text[1], dtype=bool)
        self.frame_valid = stored_frame_valid(root, plan, segments).load()

    def row_count(self, signal: str) -> int:
        """Length of the signal's row axis."""
        return self._signals[signal].row_count

    def read_decoded(self, signal: str, rows: np.ndarray) -> np.ndarray:
        """float32 [B, ...] of the rows `rows` [B]."""
        return self._signals[signal].read(rows).numpy()


class DecodedSignal:
    """One signal of the cache at `root`, over all segments, decoded as it is read."""

    def __init__(self, root: Path, stored: StoredSignal) -> None:
        self.name = stored.spec.name
        self._codec = stored.codec(root)
        self._parts = {part: stored.rows(root, part) for part in self._codec.parts}

    @property
    def row_count(self) -> int:
        """Length of its row axis."""
        return int(next(iter(self._parts.values())).array.shape[0])

    def read(self, rows: np.ndarray) -> Tensor:
        """float32 [B, ...] of the rows `rows` [B]."""
        parts = {part: stored.read(rows) for part, stored in self._parts.items()}
        return torch.from_numpy(self._codec.decode(parts))


def blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`rows` in consecutive pieces of at most `size`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
