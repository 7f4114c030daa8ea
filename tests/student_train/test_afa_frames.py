"""TeachCLIP's student as it comes in by frames: the towers, where they start, and what is refused."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from store.errors import InputError, MissingFileError, UnknownNameError
from store.inputs.preprocess import CLIP_MEAN, CLIP_STD
from student_train.clip_towers import TINY, ClipTowers, create, normalised, text_part, tokenizer_of
from student_train.needs import FRAME_VALID, PIXELS, TEXT
from student_train.optimizer import make_optimizer
from student_train.students import afa
from student_train.temporal_transformer import TemporalTransformer
from student_train.visual_tower import VisualTower

SIZES = {**afa.tiny()[1], PIXELS: {"M": 3, "Y": 32, "X": 32, "C": 3}}
CONFIG = afa.Config(way_in="frames", architecture=TINY, temporal_layers=1, words=12)


@pytest.fixture(scope="module")
def student() -> afa.AfaStudent:
    torch.manual_seed(0)
    return afa.build(CONFIG, SIZES).eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the tiny architecture in a file, as OpenAI names them."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "clip.safetensors"
    model = create(TINY, half=False)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(50.0))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    return path


def batch(frames: int = 3) -> dict:
    pixels = torch.randint(256, (2, frames, 32, 32, 3), generator=torch.Generator().manual_seed(1))
    valid = torch.ones(2, frames, dtype=torch.bool)
    valid[1, -1] = False
    return {
        PIXELS: pixels.to(torch.uint8),
        FRAME_VALID: valid,
        TEXT: ["a red circle", "a longer caption of it"],
    }


def test_pixels_are_normalised_as_clip_wants_them() -> None:
    frames = torch.zeros(1, 1, 2, 2, 3, dtype=torch.uint8)
    frames[..., 0] = 255
    found = normalised(frames, (0.5, 0.25, 0.0), (0.5, 0.5, 1.0))
    assert found.shape == (1, 1, 3, 2, 2)
    assert found[0, 0, :, 0, 0].tolist() == pytest.approx([1.0, -0.5, 0.0])


def test_pixels_are_normalised_as_the_weights_want_them_also_where_a_student_is_only_evaluated(
    weights: Path,
) -> None:
    model = create(TINY, half=False)
    towers = ClipTowers(model, "MobileCLIP-S1", tokenizer_of(TINY, 8), weights="datacompdr")
    tower = VisualTower(model.visual, "ViT-L-14-CLIPA", weights="datacomp1b")
    assert (towers.mean, towers.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert tower.mean == pytest.approx((0.485, 0.456, 0.406))
    for config in (CONFIG, dataclasses.replace(CONFIG, weights=str(weights))):
        found = afa.build(config, SIZES).towers
        assert (found.mean, found.std) == (CLIP_MEAN, CLIP_STD)


def test_a_missing_frame_is_zeros_to_the_tower_whatever_stands_there(student: afa.AfaStudent) -> None:
    first, second = batch(), batch()
    second[PIXELS][1, -1] = 200
    assert torch.equal(student.frame_features(first), student.frame_features(second))


def test_words_after_the_end_do_not_change_a_sentence(student: afa.AfaStudent) -> None:
    short, _ = student.towers.encode_ids(torch.tensor([[49406, 320, 49407]]))
    padded, words = student.towers.encode_ids(torch.tensor([[49406, 320, 49407, 0, 0]]))
    assert torch.allclose(short, padded, atol=1e-5)
    assert words["word_valid"].tolist() == [[True, True, True, False, False]]
    assert torch.equal(words["word_embedding"][:, 2], padded)


def test_our_sentences_are_those_of_open_clip(student: afa.AfaStudent) -> None:
    model = student.towers.model
    ids = torch.tensor([[49406, 320, 1000, 49407] + [0] * 20])
    assert torch.allclose(student.towers.encode_ids(ids)[0], model.encode_text(ids), atol=1e-5)


def test_public_weights_start_towers_temporal_transformer_and_logit_scale(weights: Path) -> None:
    student = afa.build(dataclasses.replace(CONFIG, weights=str(weights)), SIZES)
    told = student.start()["towers"]
    source = create(TINY, half=False)
    assert told["weights"] == "clip.safetensors"
    assert len(told["sha256"]) == 64
    text = text_part(student.towers.model)
    block = student.temporal.blocks[0]
    assert torch.equal(block.mlp_in.weight, text.transformer.resblocks[0].mlp.c_fc.weight)
    assert torch.equal(student.temporal.position, text.positional_embedding[:3])
    assert student.log_logit_scale.exp().item() == pytest.approx(50, rel=1e-5)
    assert not torch.equal(text.token_embedding.weight, source.token_embedding.weight)


def test_features_start_their_temporal_transformer_from_public_weights_too(weights: Path) -> None:
    sizes = {"frame_embedding": {"M": 3, "D": 64}, "text_embedding": {"D": 64}}
    config = dataclasses.replace(CONFIG, way_in="features", weights=str(weights))
    student, told = afa.build(config, sizes), None
    told = student.start()
    by_frames = afa.build(dataclasses.replace(config, way_in="frames"), SIZES)
    by_frames.start()
    assert set(told) == {"temporal"}
    for name, value in student.temporal.state_dict().items():
        assert torch.equal(value, by_frames.temporal.state_dict()[name]), name


def test_a_student_that_starts_from_nothing_records_nothing(student: afa.AfaStudent) -> None:
    assert student.start() == {}


def test_weights_that_are_not_there_or_do_not_fit_are_named(weights: Path, tmp_path: Path) -> None:
    student = afa.build(dataclasses.replace(CONFIG, weights=str(tmp_path / "none.safetensors")), SIZES)
    with pytest.raises(MissingFileError, match=r"none\.safetensors"):
        student.start()
    save_file({"visual.proj": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    student = afa.build(dataclasses.replace(CONFIG, weights=str(tmp_path / "other.safetensors")), SIZES)
    with pytest.raises(InputError, match="do not fit"):
        student.start()


def test_a_pytorch_file_with_more_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"model": CONFIG}, tmp_path / "clip.pt")
    student = afa.build(dataclasses.replace(CONFIG, weights=str(tmp_path / "clip.pt")), SIZES)
    with pytest.raises(InputError, match="holds more than tensors"):
        student.start()


def test_a_text_tower_with_too_few_blocks_can_not_start_time() -> None:
    text = text_part(create(TINY, half=False))
    with pytest.raises(InputError, match=r"2 blocks.*of 3 blocks"):
        TemporalTransformer(64, 4, layers=3, heads=1).start_from_text(text)


def test_half_precision_keeps_norms_and_embeddings_in_float32_as_openai_does() -> None:
    towers = ClipTowers.of(TINY, words=8, half=True)
    model = towers.model
    assert model.visual.conv1.weight.dtype == model.text_projection.dtype == torch.float16
    assert model.ln_final.weight.dtype == model.token_embedding.weight.dtype == torch.float32
    sentence, _ = towers.encode_texts(["a red circle"])
    frames = towers.encode_pixels(torch.randn(2, 3, 32, 32))
    assert sentence.dtype == frames.dtype == torch.float32
    assert torch.isfinite(sentence).all()
    assert torch.isfinite(frames).all()


def test_frames_of_another_size_than_the_tower_takes_are_refused() -> None:
    other = {**SIZES, PIXELS: {"M": 3, "Y": 224, "X": 224, "C": 3}}
    with pytest.raises(InputError, match="224 x 224 pixels, tiny takes 32 x 32"):
        afa.build(CONFIG, other)


def test_an_architecture_that_nobody_has_and_too_many_words_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'ViT-B-32-quickgelu'"):
        ClipTowers.of("ViT-B-32-quickgel")
    with pytest.raises(InputError, match="24 words at most, not 25"):
        ClipTowers.of(TINY, words=25)


def test_the_official_rates_are_those_of_the_recipe(student: afa.AfaStudent) -> None:
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    settings, found = afa.RECIPES["teachclip-code"].optimizer, {}
    for group in make_optimizer(student, settings, settings.lr[0]).param_groups:
        for parameter in group["params"]:
            found[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    assert found["towers.model.visual.conv1.weight"] == (pytest.approx(1e-7), 0.2)
    assert found["towers.model.visual.ln_post.weight"] == (pytest.approx(1e-7), 0.2)
    assert found["log_logit_scale"] == (pytest.approx(1e-7), 0.2)
    assert found["temporal.blocks.0.mlp_in.weight"] == (pytest.approx(1e-4), 0.2)
    assert found["temporal.blocks.0.mlp_in.bias"] == (pytest.approx(1e-4), 0.0)
    assert found["attention.hidden.weight"] == (pytest.approx(1e-3), 0.2)
    assert found["attention.hidden.bias"] == (pytest.approx(1e-4), 0.0)


def test_paper_pooling_weighs_frames_by_the_taught_weights_without_normalising() -> None:
    student = afa.build(afa.Config(pooling_temperature=1.0, normalise_frames=False, temporal_layers=0), SIZES)
    frames, valid = torch.randn(2, 4, 16), torch.ones(2, 4, dtype=torch.bool)
    found = student.encode_videos({"frame_embedding": frames, FRAME_VALID: valid})
    assert torch.allclose(found["frame_weight"], found["log_frame_weight"].exp())
    temporal = student.temporal(frames, valid)
    expected = (found["frame_weight"][..., None] * temporal).sum(1)
    assert torch.allclose(found["video_embedding"], expected, atol=1e-6)
