"""What every teacher must do. Subclass `TeacherContract` and give it a `module` fixture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from store.encodings import BOOL
from store.errors import InputError
from store.signals import VISION_HEAD, SignalSpec
from teacher_dump.models.frozen import FrozenTeacher
from teacher_dump.pairs.memory import PeakBytes, blank_features, pair_block, reckoned_bytes
from teacher_dump.precision import difference_to_float32
from teacher_dump.teachers.base import Teacher, TeacherCard

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


def only(signals: Mapping[str, Tensor], teacher: Teacher) -> dict[str, Tensor]:
    """What the dump hands over when it scores pairs: the stored signals that the teacher asked for."""
    return {name: signals[name] for name in (*teacher.pair_inputs, "frame_valid") if name in signals}


def emits(teacher: Teacher, signal: str) -> bool:
    return signal in {spec.name for spec in teacher.signals}


def relative_error(value: Tensor, expected: Tensor) -> float:
    value, expected = value.cpu().double(), expected.double()
    return float((value - expected).norm() / expected.norm())


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

    def test_what_it_stores_of_itself_goes_on_from_its_last_layer(
        self, teacher: Teacher, videos: dict[str, Tensor]
    ) -> None:
        """Norm and projection of the last layer's [CLS] are the frame features."""
        if not emits(teacher, VISION_HEAD):
            pytest.skip("this teacher stores nothing of itself")
        (spec,) = (spec for spec in teacher.signals if spec.is_of_teacher)
        rows_PD = teacher.of_itself()[VISION_HEAD]
        assert rows_PD.shape == (spec.sizes["P"], spec.sizes["D"])
        layers = [int(name.split("/")[1]) for name in videos if name.startswith("vit_layers/")]
        cls_BMD = videos[f"vit_layers/{max(layers)}"][:, :, 0]
        normed = functional.layer_norm(cls_BMD, cls_BMD.shape[-1:], rows_PD[0], rows_PD[1])
        assert_same(normed @ rows_PD[2:].T, videos["frame_embedding"])

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
        videos, texts = only(videos, teacher), only(texts, teacher)
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

    @pytest.mark.slow
    def test_a_block_of_pairs_takes_no_more_memory_than_the_plan_reckons_with(self, teacher: Teacher) -> None:
        if not emits(teacher, LOGITS):
            return
        for size in ((1, 1), (7, 12)):
            with torch.inference_mode(), PeakBytes() as taken:
                teacher.score_pairs(
                    blank_features(teacher, "V", size[0]), blank_features(teacher, "T", size[1])
                )
            assert 0 < taken.most <= reckoned_bytes(teacher, *size), size
        allowed = int(reckoned_bytes(teacher, 16, 32) / 3)
        videos, texts = pair_block(teacher, 16, 32, allowed)
        assert 1 <= videos * texts < 16 * 32
        assert reckoned_bytes(teacher, videos, texts) <= allowed
        with pytest.raises(InputError, match="--pair-memory-mb"):
            pair_block(teacher, 2, 2, 1)

    def test_relevance_is_one_score_a_frame_of_each_pair(
        self, teacher: Teacher, videos: dict[str, Tensor], texts: dict[str, Tensor]
    ) -> None:
        matched = rows_of(texts, slice(0, self.VIDEOS))
        if not emits(teacher, RELEVANCE):
            with pytest.raises(NotImplementedError, match=teacher.name):
                teacher.relevance(videos, matched)
            return
        videos, matched = only(videos, teacher), only(matched, teacher)
        whole = teacher.relevance(videos, matched)
        assert whole.shape == (self.VIDEOS, teacher.view.frames)
        assert whole.dtype == torch.float32
        assert torch.isfinite(whole).all()
        assert not whole.requires_grad
        for row in range(self.VIDEOS):
            place = slice(row, row + 1)
            alone = teacher.relevance(rows_of(videos, place), rows_of(matched, place))
            assert_same(alone, whole[place])

    def test_a_cross_encoder_says_of_chosen_pairs_what_it_says_in_the_block(
        self, teacher: Teacher, videos: dict[str, Tensor], texts: dict[str, Tensor]
    ) -> None:
        matched = rows_of(texts, slice(0, self.VIDEOS))
        if teacher.fused_width is None:
            with pytest.raises(NotImplementedError, match=teacher.name):
                teacher.match_pairs(videos, matched)
            return
        videos, matched = only(videos, teacher), only(matched, teacher)
        found = teacher.match_pairs(videos, matched)
        block = teacher.score_pairs(videos, matched)
        torch.testing.assert_close(found["match_logits"][:, 1], block.diagonal(), atol=1e-4, rtol=1e-4)
        probability = found["match_logits"].softmax(-1)[:, 1]
        torch.testing.assert_close(found["match_probability"], probability)
        assert found["fused_cls"].shape == (self.VIDEOS, teacher.fused_width)
        assert not any(value.requires_grad for value in found.values())
        shared = teacher.match_pairs(rows_of(videos, slice(1, 2)), matched)
        assert_same(shared["match_logits"][1], found["match_logits"][1])
        torch.testing.assert_close(shared["match_logits"][:, 1], block[1], atol=1e-4, rtol=1e-4)

    def test_its_model_stays_in_eval_mode_and_without_gradients(
        self, teacher: FrozenTeacher, texts: dict[str, Tensor]
    ) -> None:
        assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
        teacher.model.train()
        again = teacher.encode_texts(TEXTS)
        assert not any(part.training for part in teacher.model.modules())
        assert all(torch.equal(value, texts[name]) for name, value in again.items())

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_is_close_measured_and_part_of_the_identity(
        self, teacher: FrozenTeacher, dtype: str
    ) -> None:
        half = teacher.with_dtype(dtype)
        assert {k: v for k, v in half.identity().items() if teacher.identity()[k] != v} == {"dtype": dtype}
        inputs = (*random_videos(teacher, self.VIDEOS), TEXTS)
        assert difference_to_float32(teacher, *inputs) == {}
        told = difference_to_float32(half, *inputs)
        floats = {spec.name for spec in teacher.signals if spec.encoding != BOOL and not spec.is_of_teacher}
        assert floats <= set(told) <= floats | {"fused_cls"}
        assert all(0 <= value < 0.2 for value in told.values()), told
        assert told["text_embedding"] > 0

    @pytest.mark.gpu
    def test_a_gpu_says_what_the_cpu_says(self, module: ModuleType) -> None:
        if not torch.cuda.is_available():
            pytest.skip("no GPU here")
        cpu, gpu = module.tiny(0), module.tiny(0).to("cuda")
        frames, valid = random_videos(cpu, self.VIDEOS)
        videos, texts = cpu.encode_videos(frames, valid), cpu.encode_texts(TEXTS)
        theirs = gpu.encode_videos(frames, valid) | gpu.encode_texts(TEXTS)
        for name, value in (videos | texts).items():
            assert relative_error(theirs[name], value) < 1e-3, name
        if emits(cpu, LOGITS):
            block = only({**videos, "frame_valid": valid}, cpu), only(texts, cpu)
            assert relative_error(gpu.score_pairs(*block), cpu.score_pairs(*block)) < 1e-3

    def test_it_has_a_card(self, module: ModuleType) -> None:
        assert isinstance(module.CARD, TeacherCard)
        assert all(vars(module.CARD).values())
