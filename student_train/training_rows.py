"""Which rows may be trained on: captions with their videos, or videos with their classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from store.batch_plan import shuffled
from store.errors import InputError
from store.inputs.protocol import RECOGNITION
from store.reader import Cache, TeacherReader
from student_train.config import TEST_SPLIT, TRAIN_SPLIT, VAL_SPLIT
from student_train.teachers import Teachers


@dataclass(frozen=True)
class PairedRows:
    """Texts with their videos. text, video: row numbers [N] int64, row i of each belongs together.

    left_out: rows of the split whose video did not decode.
    """

    text: np.ndarray
    video: np.ndarray
    left_out: int


def is_recognition(cache: Cache) -> bool:
    """Whether the dataset is evaluated by the classes of its videos."""
    return cache.protocol == RECOGNITION


def paired_rows(cache: Cache, teacher: TeacherReader | Teachers, split_name: str) -> PairedRows:
    """The captions of a split with their videos; in a split without captions the videos with their classes.

    Raises UnknownNameError for a split that is not there, InputError if nothing is left of it.
    """
    split = cache.split(split_name)
    text = split.text[cache.text_video[split.text] >= 0]
    video = cache.text_video[text]
    if not len(text):
        video = split.video[cache.video_class[split.video] >= 0]
        text = cache.video_class[video]
    usable = teacher.video_usable[video] & teacher.text_usable[text]
    if not usable.any():
        raise InputError(
            f"split {split_name!r} of {cache.path.name} has no video that decoded with a caption or a class"
        )
    return PairedRows(text[usable], video[usable], int(np.count_nonzero(~usable)))


def videos_of_classes(cache: Cache, teachers: Teachers, split_name: str) -> PairedRows:
    """The videos of a split that have one of the teachers' classes, each with its class's first text.

    Raises UnknownNameError for a split that is not there, InputError if nothing is left of it.
    """
    video = cache.split(split_name).video
    video = video[teachers.class_numbers(video) >= 0]
    usable = teachers.video_usable[video]
    if not usable.any():
        raise InputError(f"split {split_name!r} of {cache.path.name} has no video with a class that decoded")
    video, left_out = video[usable], int(np.count_nonzero(~usable))
    return PairedRows(cache.video_class[video], video, left_out)


def few_of_each(rows: PairedRows, shots: int, seed: int) -> PairedRows:
    """`shots` rows of every class, which `seed` decides; raises InputError for a class that has fewer."""
    order = shuffled(len(rows.text), seed, epoch=0)
    of_class = rows.text[order]
    chosen = []
    for text in np.unique(of_class):
        found = order[of_class == text]
        if len(found) < shots:
            raise InputError(
                f"a class (text row {text}) has {len(found)} training videos, not {shots}; take fewer shots"
            )
        chosen.append(found[:shots])
    kept = np.sort(np.concatenate(chosen))
    return PairedRows(rows.text[kept], rows.video[kept], rows.left_out)


def training_rows(cache: Cache, teachers: Teachers, recognises: bool = False) -> PairedRows:
    """The rows of the train split, videos with their classes if the student `recognises`.

    Raises InputError if one of them belongs to val or test as well.
    """
    rows = (videos_of_classes if recognises else paired_rows)(cache, teachers, TRAIN_SPLIT)
    for name in (VAL_SPLIT, TEST_SPLIT):
        if name not in cache.splits:
            continue
        held_out = cache.split(name)
        captions = rows.text[cache.text_video[rows.text] >= 0]
        for kind, ours, theirs in (("text", captions, held_out.text), ("video", rows.video, held_out.video)):
            shared = np.intersect1d(ours, theirs)
            if len(shared):
                raise InputError(
                    f"{kind} row {shared[0]} of {cache.path.name} is in split {TRAIN_SPLIT!r} and in "
                    f"{name!r} ({len(shared)} such rows); training on it is refused, take it out of one"
                )
    return rows
