"""A video that is seen several times: each rendition is what the teacher says of those frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from store.errors import InputError
from store.inputs.frames import decode_view
from store.verify import verify
from teacher_dump.dump import dump
from teacher_dump.rechecks.recheck import RecheckSettings, recheck
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers import albef, clip, clip4clip, xclip
from teacher_dump.teachers.base import TeacherOptions
from tests.teacher_dump.colour_teacher import colour_samples

SETTINGS = DumpSettings(batch_videos=3, batch_texts=4, threads=1, decoders=1)


def test_a_dump_stores_every_clip_and_crop_and_a_recheck_sees_them_again(tmp_path):
    samples = colour_samples(tmp_path)
    teacher = clip.tiny(0).run_as(TeacherOptions(clips=2, crops=3))
    cache = dump(tmp_path / "c.zarr", samples, teacher, SETTINGS, {})
    reader = cache.teacher("clip")
    assert (reader.view.renditions, reader.view.clips, reader.view.crops) == (6, 2, 3)
    assert reader.view.name == "uniform_3x16_2x3"
    seen = decode_view(samples.videos[5].path, teacher.view, samples.videos[5].id)
    frames, valid = torch.from_numpy(seen.frames), torch.from_numpy(seen.frame_valid)
    expected = clip.tiny(0).encode_videos(frames, valid)["frame_embedding"]
    stored = reader.read_decoded("frame_embedding", np.array([5]))[0]
    np.testing.assert_allclose(stored, expected.numpy(), rtol=2e-3, atol=2e-3)
    assert not np.allclose(stored[0], stored[3], atol=1e-2)
    assert verify(cache.path).count == 0
    paths = {row: video.path for row, video in enumerate(samples.videos)}
    assert recheck(reader, teacher, paths, RecheckSettings(sample=4, decoders=1)).holds


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        (lambda: xclip.tiny(0), "for dual encoders"),
        (lambda: albef.tiny(0), "for dual encoders"),
        (lambda: clip4clip.tiny(0), "one_per_second has one clip"),
    ],
)
def test_who_scores_pairs_or_has_no_such_clips_is_refused(teacher, told):
    with pytest.raises(InputError, match=told):
        teacher().run_as(TeacherOptions(clips=2))


def test_once_is_as_it_was():
    teacher = clip.tiny(0)
    assert teacher.run_as(TeacherOptions(clips=1, crops=1)).view == teacher.view
