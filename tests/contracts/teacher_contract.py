"""What every teacher must do. Subclass `TeacherContract` and give it a `module` fixture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import ModuleType

import pytest
import torch
from torch import Tensor

from store.encodings import BOOL
from store.signals import SignalSpec
from teacher_dump.teachers.base import Teacher

LOGITS, RELEVANCE = "video_text_logits", "frame_relevance"
NEEDED_IDENTITY = {
    "weights_sha256",
    "architecture",
    "dtype",
    "tokenizer",
    "context_length",
    "mean",
    "std",
    "logit_scale",
}
TEXTS = ("a small red circle", "the grass!", "word " * 90, "§ ünknown", "a")


def random_videos(teacher: Teacher, count: int) -> tuple[Tensor, Tensor]:
    """Noise [B, M, Y, X, 3] as uint8, and which frames are there: every second video lacks its last one,
    the third has its first alone; a missing frame is black, as decoding leaves it."""
    generator = torch.Generator().manual_seed(7)
    places, side = teacher.view.frames, teacher.view.size
    frames = torch.randint(0, 256, (count, places, side, side, 3), dtype=torch.uint8, generator=generator)
    valid = torch.ones(count, places, dtype=torch.bool)
    valid[::2, -1] = False
    valid[2, 1:] = False
    return frames * valid[:, :, None, None, None], valid


def specs(teacher: Teacher, row_axis: str, computed_from_others: str) -> dict[str, SignalSpec]:
    """What a teacher says that it encodes: its signals of an axis but for the one computed from others."""
    return {
        spec.name: spec
        for spec in teacher.signals
        if spec.row_axis == row_axis and spec.name != computed_from_others
    }


def shape_of(spec: SignalSpec, rows: int) -> tuple[int, ...]:
    return (rows, *(spec.sizes[axis] for axis in spec.kind.axes[1:].replace("R", "")))


def rows_of(signals: Mapping[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in signals.items()}


def emits(teacher: Teacher, signal: str) -> bool:
    return signal in {spec.name for spec in teacher.signals}


def assert_same(value: Tensor, expected: Tensor) -> None:
    """Equal but for what a batch's size may change in the order of sums."""
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)


class TeacherContract:
    """Tests of one teacher module, in its tiny, weight-free configuration."""

    VIDEOS = 4

    @pytest.fixture
    def teacher(self, module: ModuleType) -> Teacher:
        return module.tiny(0)

    @pytest.fixture
    def videos(self, teacher: Teacher) -> dict[str, Tensor]:
        frames, valid = random_videos(teacher, self.VIDEOS)
        return {**teacher.encode_videos(frames, valid), "frame_valid": valid}

    @pytest.fixture
    def texts(self, teacher: Teacher) -> dict[str, Tensor]:
        return teacher.encode_texts(TEXTS)

    def test_it_encodes_exactly_the_signals_that_it_declares(
        self, teacher: Teacher, videos: dict[str, Tensor], texts: dict[str, Tensor]
    ) -> None:
        promised = specs(teacher, "V", LOGITS), specs(teacher, "T", RELEVANCE)
        for told, given, rows in zip(promised, (videos, texts), (self.VIDEOS, len(TEXTS)), strict=True):
            shapes = {name: tuple(value.shape) for name, value in given.items() if name != "frame_valid"}
            assert shapes == {name: shape_of(spec, rows) for name, spec in told.items()}

    def test_its_signals_are_finite_float32_or_masks_without_gradient(
        self, teacher: Teacher, videos: dict[str, Tensor], texts: dict[str, Tensor]
    ) -> None:
        videos.pop("frame_valid")
        encodings = {spec.name: spec.encoding for spec in teacher.signals}
        for name, value in (videos | texts).items():
            assert value.dtype == (torch.bool if encodings[name] == BOOL else torch.float32), name
            assert not value.requires_grad, name
            assert torch.isfinite(value).all(), name

    def test_it_says_the_same_twice(
        self, teacher: Teacher, videos: dict[str, Tensor], texts: dict[str, Tensor]
    ) -> None:
        again = teacher.encode_videos(*random_videos(teacher, self.VIDEOS)) | teacher.encode_texts(TEXTS)
        for name, value in again.items():
            assert torch.equal(value, (videos | texts)[name]), name

    def test_equal_seeds_make_equal_teachers_and_other_seeds_others(
        self, module: ModuleType, texts: dict[str, Tensor]
    ) -> None:
        name = "text_embedding"
        assert torch.equal(module.tiny(0).encode_texts(TEXTS)[name], texts[name])
        assert not torch.allclose(module.tiny(1).encode_texts(TEXTS)[name], texts[name])

    def test_a_video_says_the_same_in_any_batch(self, teacher: Teacher, videos: dict[str, Tensor]) -> None:
        frames, valid = random_videos(teacher, self.VIDEOS)
        for row in range(self.VIDEOS):
            alone = teacher.encode_videos(frames[row : row + 1], valid[row : row + 1])
            for name, value in alone.items():
                assert_same(value, videos[name][row : row + 1])

    def test_a_text_says_the_same_in_any_batch(self, teacher: Teacher, texts: dict[str, Tensor]) -> None:
        for row, text in enumerate(TEXTS):
            for name, value in teacher.encode_texts([text]).items():
                assert_same(value, texts[name][row : row + 1])

    def test_what_stands_in_a_missing_frame_is_never_read(
        self, teacher: Teacher, videos: dict[str, Tensor]
    ) -> None:
        frames, valid = random_videos(teacher, self.VIDEOS)
        frames[~valid] = 200
        for name, value in teacher.encode_videos(frames, valid).items():
            assert_same(value, videos[name])

    def test_a_frame_that_is_there_is_read(self, teacher: Teacher, videos: dict[str, Tensor]) -> None:
        frames, valid = random_videos(teacher, self.VIDEOS)
        other = teacher.encode_videos(255 - frames, valid)["frame_embedding"]
        difference = (other - videos["frame_embedding"]).abs().amax(-1)
        assert (difference[valid] > 1e-4).all()

    def test_its_identity_is_plain_json(self, teacher: Teacher) -> None:
        identity = teacher.identity()
        assert json.loads(json.dumps(identity, allow_nan=False)) == identity
        assert set(identity) >= NEEDED_IDENTITY

    def test_its_identity_changes_with_the_weights_and_with_nothing_else(
        self, module: ModuleType, teacher: Teacher
    ) -> None:
        before = json.dumps(teacher.identity())
        teacher.encode_videos(*random_videos(teacher, self.VIDEOS))
        teacher.encode_texts(TEXTS)
        assert json.dumps(teacher.identity()) == before
        assert module.tiny(0).identity() == teacher.identity()
        other, own = module.tiny(1).identity(), teacher.identity()
        assert {field for field in own if own[field] != other[field]} == {"weights_sha256"}

    def test_its_signals_carry_what_a_reader_needs(self, teacher: Teacher) -> None:
        for spec in teacher.signals:
            assert SignalSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
            if spec.name == RELEVANCE:
                assert spec.attributes["temperature"] > 0
            if spec.name == LOGITS:
                assert spec.attributes["logit_scale"] == teacher.identity()["logit_scale"]

    def test_scores_are_videos_by_texts_and_blocks_of_them_make_the_whole(
        self, teacher: Teacher, videos: dict[str, Tensor], texts: dict[str, Tensor]
    ) -> None:
        if not emits(teacher, LOGITS):
            with pytest.raises(NotImplementedError, match=teacher.name):
                teacher.score_pairs(videos, texts)
            return
        whole = teacher.score_pairs(videos, texts)
        assert whole.shape == (self.VIDEOS, len(TEXTS))
        assert whole.dtype == torch.float32
        assert torch.isfinite(whole).all()
        assert not whole.requires_grad
        halves = slice(0, 2), slice(2, None)
        blocks = [
            torch.cat([teacher.score_pairs(rows_of(videos, v), rows_of(texts, t)) for t in halves], 1)
            for v in halves
        ]
        torch.testing.assert_close(torch.cat(blocks), whole, atol=1e-4, rtol=1e-5)

    def test_relevance_is_one_score_a_frame_of_each_pair(
        self, teacher: Teacher, videos: dict[str, Tensor], texts: dict[str, Tensor]
    ) -> None:
        matched = rows_of(texts, slice(0, self.VIDEOS))
        if not emits(teacher, RELEVANCE):
            with pytest.raises(NotImplementedError, match=teacher.name):
                teacher.relevance(videos, matched)
            return
        whole = teacher.relevance(videos, matched)
        assert whole.shape == (self.VIDEOS, teacher.view.frames)
        assert whole.dtype == torch.float32
        assert torch.isfinite(whole).all()
        assert not whole.requires_grad
        for row in range(self.VIDEOS):
            place = slice(row, row + 1)
            alone = teacher.relevance(rows_of(videos, place), rows_of(matched, place))
            assert_same(alone, whole[place])
