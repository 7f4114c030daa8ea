"""What open_clip's families have in common and what they have not: words, layers, biases, pixels."""

import math

import open_clip
import pytest
import torch
from open_clip.model import CustomTextCLIP
from safetensors.torch import save_file

from store.errors import InputError, MissingFileError
from teacher_dump.models import open_clip_models
from teacher_dump.models.open_clip_models import FILE, Preprocessing, encode_text, keeps_words, with_weights
from teacher_dump.models.tokens import tokenize
from teacher_dump.teachers import clip
from teacher_dump.teachers.base import TeacherOptions
from tests.contracts.teacher_contract import TEXTS, random_videos

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
EVA = {"timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "image_size": 224}
OWN = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}


def family(vision, text, **settings):
    torch.manual_seed(0)
    return CustomTextCLIP(32, vision, {**TEXT, **text}, **settings).eval()


def teacher_of(model):
    return clip.ClipTeacher(model, "a family", "random", lambda texts: tokenize(texts, 16), frames=2)


def emitted(teacher):
    return {spec.name for spec in teacher.signals}


@pytest.fixture(scope="module")
def eva():
    return family(EVA, {})


@pytest.fixture(scope="module")
def siglip():
    whole = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
    return family(OWN, whole, init_logit_bias=-10.0)


def test_a_tower_of_timm_gives_frames_and_words_but_no_layers(eva):
    teacher = teacher_of(eva)
    assert emitted(teacher) == {"frame_embedding", "text_embedding", "word_embedding", "word_valid"}
    frames = random_videos(teacher, 3)
    expected = eva.encode_image(torch.zeros(1, 3, 224, 224))
    assert teacher.encode_videos(*frames)["frame_embedding"].shape == (3, 2, expected.shape[-1])
    with pytest.raises(InputError, match="no ViT blocks"):
        clip.ClipTeacher(eva, "eva", "random", teacher.tokenize, layers=(0,))


def test_the_sentence_is_what_the_model_itself_gives_and_the_word_at_its_end(eva):
    ids = tokenize(TEXTS, 16)
    with torch.no_grad():
        sentence, words = encode_text(eva, ids)
        torch.testing.assert_close(sentence, eva.encode_text(ids))
    assert torch.equal(words[torch.arange(len(ids)), ids.argmax(1)], sentence)


def test_a_text_tower_that_reads_both_ways_keeps_no_words_and_tells_its_bias(siglip):
    teacher = teacher_of(siglip)
    assert not keeps_words(siglip)
    assert "word_embedding" not in emitted(teacher)
    assert teacher.identity()["logit_bias"] == -10.0
    ids = tokenize(TEXTS, 16)
    with torch.no_grad():
        expected = siglip.encode_text(ids)
    assert torch.equal(teacher.encode_texts(TEXTS)["text_embedding"], expected)


def test_the_words_of_clip_are_those_of_the_towers():
    teacher = clip.tiny(0)
    given = teacher.encode_texts(TEXTS)
    ids = teacher.tokenize(list(TEXTS))
    assert torch.equal(given["word_valid"].sum(1), ids.argmax(1) + 1)
    end = given["word_embedding"][torch.arange(len(ids)), ids.argmax(1)]
    assert torch.equal(end, given["text_embedding"])


def test_pixels_follow_what_the_weights_were_trained_with():
    assert Preprocessing.of("ViT-B-32", "openai") == Preprocessing()
    assert Preprocessing.of("ViT-L-14", "laion2b_s32b_b82k").mean == (0.5, 0.5, 0.5)
    assert Preprocessing.of("ViT-L-14", None) == Preprocessing()


def test_weights_that_want_frames_squashed_get_a_view_that_does_it():
    pixels = Preprocessing.of("ViT-B-16-SigLIP", "webli")
    assert (pixels.resize, pixels.mean) == ("squash", (0.5, 0.5, 0.5))
    assert Preprocessing.of("ViT-B-16-SigLIP", None) == pixels
    tiny = clip.tiny(0)
    teacher = clip.ClipTeacher(tiny.model, "tiny", "random", tiny.tokenize, frames=3, pixels=pixels)
    assert teacher.view.resize == "squash"
    assert teacher.view.name != tiny.view.name
    assert teacher.identity()["mean"] == [0.5, 0.5, 0.5]


def test_weights_that_want_frames_as_no_view_has_them_are_refused_in_one_line(monkeypatch):
    facts = {"interpolation": "bilinear", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: facts)
    with pytest.raises(InputError, match="bilinear") as caught:
        clip.load(TeacherOptions(architecture="ViT-B-32", pretrained="openai"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", ["xlm-roberta-base-ViT-B-32", "ViT-B-16-SigLIP"])
def test_what_needs_the_hub_says_so_in_one_line(architecture, monkeypatch):
    monkeypatch.setattr(open_clip_models, "hub_is_reachable", lambda: False)
    with pytest.raises((MissingFileError, InputError)) as caught:
        open_clip_models.tokenizer_of(architecture)
    assert "not on this machine" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def small(monkeypatch):
    """ViT-B-32 and its QuickGELU twin, as small as the tiny teacher."""
    monkeypatch.setattr(open_clip_models, "random_model", lambda architecture: clip.tiny_towers(0))
    return clip.tiny_towers(3).state_dict()


def test_random_weights_are_had_by_asking_for_them_alone(small):
    with pytest.raises(MissingFileError, match=r"no weights were named for ViT-B-32; give --pretrained TAG"):
        clip.load(TeacherOptions(frames=2))
    assert with_weights("ViT-B-32", "random")[1] == "random"


def test_a_state_dict_of_openai_is_read_without_its_three_numbers(small, tmp_path):
    numbers = {name: torch.tensor(7) for name in open_clip_models.OPENAI_NUMBERS}
    torch.save({**{name: value.half() for name, value in small.items()}, **numbers}, tmp_path / "openai.pt")
    model, origin = with_weights("ViT-B-32-quickgelu", str(tmp_path / "openai.pt"))
    assert origin == FILE
    torch.testing.assert_close(model.visual.proj, small["visual.proj"], atol=1e-3, rtol=1e-3)
    with pytest.raises(InputError, match="--architecture ViT-B-32-quickgelu"):
        with_weights("ViT-B-32", str(tmp_path / "openai.pt"))


def test_a_checkpoint_of_open_clips_training_is_read_out_of_its_wrapping(small, tmp_path):
    wrapped = {f"module.{name}": value for name, value in small.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": wrapped, "optimizer": {}}, tmp_path / "epoch_3.pt")
    save_file(small, tmp_path / "plain.safetensors")
    for name in ("epoch_3.pt", "plain.safetensors"):
        model, _ = with_weights("ViT-B-32", str(tmp_path / name))
        assert all(torch.equal(value, small[key]) for key, value in model.state_dict().items())


def test_a_torchscript_archive_is_refused_with_the_way_out(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "ViT-B-32.pt"))
    with pytest.raises(InputError, match=r"holds code beside the weights.*state_dict") as caught:
        with_weights("ViT-B-32", str(tmp_path / "ViT-B-32.pt"))
    assert "\n" not in str(caught.value)


def test_towers_made_for_captions_are_refused_in_one_line():
    with pytest.raises(InputError, match="is CoCa") as caught:
        clip.load(TeacherOptions(architecture="coca_ViT-B-32"))
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there_is_told_in_one_line():
    for device in ("nonsense", "cuda:99"):
        with pytest.raises(InputError, match=f"no device '{device}'"):
            clip.tiny(0).run_as(TeacherOptions(device=device))


def test_a_precision_that_is_none_is_refused():
    with pytest.raises(InputError, match="float32, float16, bfloat16"):
        TeacherOptions(dtype="float8")


def test_every_architecture_of_openai_and_eva_is_known():
    for name in ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "EVA02-E-14", "ViT-B-16-SigLIP"):
        assert name in open_clip.list_models()
    assert math.isclose(clip.tiny(0).identity()["logit_scale"], 1 / 0.07, rel_tol=1e-5)
