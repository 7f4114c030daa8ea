"""What half precision changes is measured while dumping and kept under the teacher's digest."""

from __future__ import annotations

import pytest
import torch

from store.errors import NonFiniteError
from store.info import describe, gather
from store.reader import open_cache
from teacher_dump.dump import dump
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers import albef, clip
from tests.teacher_dump.colour_teacher import colour_samples

SETTINGS = DumpSettings(batch_videos=4, batch_texts=8, threads=1, decoders=1)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return colour_samples(tmp_path_factory.mktemp("clips"))


def test_a_teacher_in_half_precision_tells_how_far_it_is_from_float32(samples, tmp_path):
    root = tmp_path / "c.zarr"
    dump(root, samples, albef.tiny(0).with_dtype("bfloat16"), SETTINGS, {})
    told = gather(root)["teachers"]["albef"]["difference_to_float32"]
    assert {"frame_embedding", "word_embedding", "video_text_logits", "fused_cls"} <= set(told)
    assert all(0 <= error["relative_l2"] < 0.1 for error in told.values())
    assert told["word_embedding"]["relative_l2"] > 1e-4
    assert "differs from it (relative L2): " in describe(root)
    names = [record.path for record in open_cache(root).group_manifest("teachers/albef").objects]
    assert "teachers/albef/zarr.json" in names, "what was measured is under the digest"


def test_a_teacher_in_float32_has_nothing_to_tell(samples, tmp_path):
    root = tmp_path / "c.zarr"
    dump(root, samples, clip.tiny(0), SETTINGS, {})
    assert gather(root)["teachers"]["clip"]["difference_to_float32"] == {}
    assert "differs from it" not in describe(root)


def test_a_precision_too_narrow_for_the_teacher_stops_the_dump_and_says_so(samples, tmp_path, monkeypatch):
    teacher = clip.tiny(0).with_dtype("float16")
    encode = type(teacher).encode_texts

    def overflow(self, texts):
        found = encode(self, texts)
        if self.dtype == "float16":
            found["text_embedding"] = torch.full_like(found["text_embedding"], float("inf"))
        return found

    monkeypatch.setattr(type(teacher), "encode_texts", overflow)
    with pytest.raises(NonFiniteError, match=r"text_embedding.*use --dtype bfloat16"):
        dump(tmp_path / "c.zarr", samples, teacher, SETTINGS, {})
