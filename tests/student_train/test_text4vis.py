"""Text4Vis's student: what its classifiers recognise, what frames see of each other, and when both change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from store.errors import CacheError, InputError
from student_train.clip_towers import TINY, TINY_RESNET
from student_train.frame_shift import FrameConvolution
from student_train.losses.recognition import class_cross_entropy
from student_train.needs import CLASS, FRAME_VALID, PIXELS
from student_train.students import text4vis
from student_train.students.text4vis import RECIPES, Config, build
from student_train.text4vis_model import CLASS_ROWS
from student_train.visual_tower import VisualTower
from tests.contracts.student_contract import random_batch

CONFIG, SIZES = text4vis.tiny()


def student_of(**changes: object) -> text4vis.Text4VisStudent:
    torch.manual_seed(0)
    return build(replace(CONFIG, **changes), SIZES)


def batch_for(student: text4vis.Text4VisStudent, videos: int = 4) -> dict:
    return random_batch(student.config.needs, SIZES, videos)


def test_the_cross_entropy_is_the_one_restated_in_float64() -> None:
    rng = np.random.default_rng(0)
    logits, label = rng.normal(0, 5, (6, 4)), rng.integers(0, 4, 6)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), label]
    found = class_cross_entropy(torch.from_numpy(logits), torch.from_numpy(label))
    assert np.allclose(found.values, expected, rtol=1e-5)


def test_logits_are_cosines_by_the_learned_scale_in_training_and_by_100_in_evaluation() -> None:
    student = student_of(logit_scale=7.0)
    batch = batch_for(student)
    for mode, scale in ((True, 7.0), (False, 100.0)):
        found = student.train(mode).encode_videos(batch)
        cosine = functional.cosine_similarity(found["video_embedding"][:, None], batch[CLASS_ROWS][0], dim=-1)
        assert torch.allclose(found["class_logits"], scale * cosine, atol=1e-4)


def test_another_classifier_recognises_other_classes_and_no_parameter_belongs_to_them() -> None:
    student = student_of().eval()
    batch = {**batch_for(student), CLASS_ROWS: torch.randn(1, 9, 16)}
    assert student.encode_videos(batch)["class_logits"].shape == (4, 9)
    assert not any(3 in value.shape for value in student.state_dict().values())


def test_an_unfrozen_classifier_starts_as_the_frozen_one_and_can_not_be_swapped() -> None:
    frozen, unfrozen = student_of(), student_of(classifier="unfrozen")
    batch = batch_for(frozen)
    logits = [student(batch)["class_logits"] for student in (frozen, unfrozen)]
    assert torch.allclose(*logits)
    class_cross_entropy(logits[1], batch[CLASS]).mean().backward()
    assert unfrozen.row_change is not None
    assert unfrozen.row_change.grad.abs().sum() > 0
    with pytest.raises(InputError, match="3 classes can't recognise 9"):
        unfrozen({**batch, CLASS_ROWS: torch.randn(1, 9, 16)})


def test_vision_only_asks_for_no_text() -> None:
    student = student_of(classifier="linear")
    assert student.config.needs == ("frame_embedding", CLASS)
    assert student(batch_for(student))["class_logits"].shape == (4, 3)


def test_a_text_encoder_of_another_width_gets_a_projection() -> None:
    sizes = {**SIZES, CLASS_ROWS: {"P": 1, "C": 3, "D": 24}}
    student = build(CONFIG, sizes)
    found = student(random_batch(student.config.needs, sizes, 2))
    assert found["video_embedding"].shape == (2, 24)


def test_one_prompt_is_drawn_in_training_and_the_first_one_is_taken_in_evaluation() -> None:
    student = student_of(prompts="drawn")
    rows = torch.randn(4, 3, 16)
    drawn = [student.train().class_rows(rows) for _ in range(40)]
    assert all(any(torch.equal(one, row) for row in rows) for one in drawn)
    assert len({one[0, 0].item() for one in drawn}) == 4
    assert torch.equal(student.eval().class_rows(rows), rows[0])
    mean = functional.normalize(rows, dim=-1).mean(0)
    assert torch.allclose(student_of().class_rows(rows), mean)


@pytest.mark.parametrize("temporal", ["tap", "t1d", "t_trans"])
def test_what_stands_in_place_of_a_missing_frame_changes_nothing(temporal: str) -> None:
    student = student_of(temporal=temporal).eval()
    batch = batch_for(student)
    other = {**batch, "frame_embedding": batch["frame_embedding"].clone()}
    other["frame_embedding"][~batch[FRAME_VALID]] = 9.0
    assert torch.allclose(*(student(one)["video_embedding"] for one in (batch, other)), atol=1e-5)


@pytest.mark.parametrize(("temporal", "sees"), [("tap", False), ("t1d", True), ("t_trans", True)])
def test_only_temporal_modelling_sees_the_order_of_frames(temporal: str, sees: bool) -> None:
    student = student_of(temporal=temporal).eval()
    batch = batch_for(student)
    batch[FRAME_VALID] = torch.ones_like(batch[FRAME_VALID])
    turned = {**batch, "frame_embedding": batch["frame_embedding"].flip(1)}
    same = torch.allclose(*(student(one)["video_embedding"] for one in (batch, turned)), atol=1e-5)
    assert same != sees


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(8, 24), st.integers(2, 8))
def test_a_fresh_convolution_over_frames_moves_channels_by_one_frame(
    frames: int, width: int, share: int
) -> None:
    values = torch.randn(2, frames, width, 3)
    found, moved = FrameConvolution(width, share)(values), width // share
    expected = values.clone()
    expected[:, :, : 2 * moved] = 0
    expected[:, :-1, :moved] = values[:, 1:, :moved]
    expected[:, 1:, moved : 2 * moved] = values[:, :-1, moved : 2 * moved]
    assert torch.allclose(found, expected)


@pytest.mark.parametrize(("architecture", "inside"), [(TINY, "token_t1d"), (TINY_RESNET, "t1d")])
def test_frames_see_those_of_their_own_video_alone(architecture: str, inside: str) -> None:
    torch.manual_seed(0)
    tower = VisualTower.of(architecture, inside).eval()
    for name, value in tower.named_parameters():
        if name.endswith("bn3.weight"):  # a ResNet's branches start at nothing
            torch.nn.init.ones_(value)
    pixels = torch.randn(2, 4, 3, 32, 32)
    alone, together = tower.encode_pixels(pixels[:1]), tower.encode_pixels(pixels)
    assert torch.allclose(alone, together[:1], atol=1e-4)
    changed = pixels.clone()
    changed[0, 1] += 1
    moved = (tower.encode_pixels(changed) - together).abs().amax(-1) > 1e-5
    assert moved[0, 0], "a frame hears of the next one"
    assert not moved[1].any()


def test_a_learned_convolution_in_a_resnet_starts_as_the_fixed_shift() -> None:
    torch.manual_seed(0)
    learned = VisualTower.of(TINY_RESNET, "t1d").eval()
    fixed = VisualTower.of(TINY_RESNET, "tsm").eval()
    fixed.visual.load_state_dict(learned.visual.state_dict())
    pixels = torch.randn(1, 3, 3, 32, 32)
    assert torch.allclose(learned.encode_pixels(pixels), fixed.encode_pixels(pixels), atol=1e-5)
    assert not list(fixed.shifts.parameters())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"temporal": "lstm"}, "temporal"),
        ({"classifier": "text4"}, "classifier"),
        ({"temporal_layers": 0}, "layers start at 1"),
        ({"inside": "tsm"}, "needs frames"),
    ],
)
def test_a_configuration_without_meaning_is_refused(wrong: dict, told: str) -> None:
    with pytest.raises(CacheError, match=told):
        Config(**wrong)


def test_a_shift_of_tokens_has_no_place_in_a_resnet_nor_one_of_maps_in_a_transformer() -> None:
    with pytest.raises(InputError, match="no vision transformer"):
        VisualTower.of(TINY_RESNET, "token_t1d")
    with pytest.raises(InputError, match="no place"):
        VisualTower.of(TINY, "tsm")


def test_frames_of_another_size_than_the_tower_takes_are_refused() -> None:
    sizes = {**SIZES, PIXELS: {"M": 4, "Y": 16, "X": 16, "C": 3}}
    with pytest.raises(InputError, match="16 x 16"):
        build(text4vis.small(RECIPES["text4vis-code"].model), sizes)


def test_every_row_of_the_papers_tables_is_a_recipe() -> None:
    table_2 = {
        "rn50-tap": ("RN50", "tap", "plain"),
        "rn50-t1d": ("RN50", "tap", "t1d"),
        "rn50-t-trans": ("RN50", "t_trans", "plain"),
        "vit-b-16-tap": ("ViT-B-16", "tap", "plain"),
        "vit-b-16-token-t1d": ("ViT-B-16", "tap", "token_t1d"),
        "text4vis-code": ("ViT-B-16", "t_trans", "plain"),
    }
    for name, row in table_2.items():
        model = RECIPES[name].model
        assert (model.architecture.removesuffix("-quickgelu"), model.temporal, model.inside) == row
        assert RECIPES[name].untaught_model.architecture == model.architecture
        assert RECIPES[name].untaught_model.classifier == "linear"
    for shots in (1, 3, 5):
        assert RECIPES[f"few-shot-{shots}"].shots == shots
        assert RECIPES[f"few-shot-{shots}"].epochs == 200
    for name, recipe in RECIPES.items():
        if not name.startswith("demo"):
            assert recipe.optimizer.warmup * recipe.epochs == pytest.approx(5), "epochs of warm-up"
    assert RECIPES["unfrozen"].model.classifier == "unfrozen"
    assert dict(RECIPES["matching"].losses) == {"info_nce": 1.0}
