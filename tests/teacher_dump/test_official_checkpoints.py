"""Every teacher comes back whole from a checkpoint in its official layout, and from no other."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from store.errors import InputError, MissingFileError
from teacher_dump.models import albef_model
from teacher_dump.models.clip4clip_model import Clip4Clip, Clip4ClipSizes
from teacher_dump.models.clip_towers import TowerSizes
from teacher_dump.models.wordpiece import SPECIAL
from teacher_dump.teachers import albef, clip4clip, ts2net, xclip, xpool
from teacher_dump.teachers.base import TeacherOptions
from tests.contracts.teacher_contract import random_videos
from tests.teacher_dump.official_layouts import (
    albef_layout,
    copied,
    hugging_face_layout,
    ts2net_layout,
    xpool_layout,
)

MODULES = {"xclip": xclip, "clip4clip": clip4clip, "ts2net": ts2net, "xpool": xpool, "albef": albef}
FITTING_TEXTS = ("a red dot", "grass!", "a")  # in the fewest words that a tiny teacher has
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


def tiny_albef(seed):
    """`albef.tiny` with heads of the official width."""
    text = replace(albef.tiny(seed).model.sizes.text, width=64, heads=1, positions=30, image_width=64)
    sizes = replace(albef.tiny(seed).model.sizes, image_width=64, image_heads=1, text=text)
    return albef.AlbefTeacher(albef.seeded(seed, lambda: albef.Albef(sizes)), albef.tiny(seed).tokenizer)


def tiny_of(name):
    return tiny_albef(3) if name == "albef" else MODULES[name].tiny(3)


def official_content(name):
    teacher = tiny_of(name)
    state = teacher.model.state_dict()
    if name == "ts2net":
        return ts2net_layout(state, teacher.model.sizes.shifted)
    if name == "xpool":
        return xpool_layout(state)
    if name == "albef":
        return albef_layout(state, tiny_albef(4).model.state_dict())
    return copied(state)


def write(folder, name, content):
    """The file, and for ALBEF the vocabulary beside it."""
    path = folder / {"xpool": "model_best.pth", "albef": "checkpoint_best.pth"}.get(name, "pytorch_model.bin")
    torch.save(content, path)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *LETTERS, *(f"##{x}" for x in LETTERS)]) + "\n")
    return path


def tensors_of(content):
    """Where the weights lie in the file, to be spoiled."""
    return content.get("state_dict") or content.get("model") or content


def load(name, path, **options):
    frames = {} if name == "albef" else {"frames": 4}
    return MODULES[name].load(TeacherOptions(checkpoint=path, **frames, **options))


@pytest.mark.parametrize("name", MODULES)
def test_a_checkpoint_in_the_official_layout_gives_the_teacher_that_was_saved(tmp_path, name):
    teacher, loaded = tiny_of(name), load(name, write(tmp_path, name, official_content(name)))
    own, its = teacher.identity(), loaded.identity()
    assert its["weights_sha256"] == own["weights_sha256"]
    assert tuple(loaded.layers) == tuple(teacher.layers)
    assert loaded.view == teacher.view
    frames = random_videos(teacher, 3)
    theirs = loaded.encode_videos(*frames)
    for signal, value in teacher.encode_videos(*frames).items():
        assert torch.equal(value, theirs[signal]), signal
    sentence = loaded.encode_texts(FITTING_TEXTS)["text_embedding"]
    torch.testing.assert_close(sentence, teacher.encode_texts(FITTING_TEXTS)["text_embedding"])


@pytest.mark.parametrize("name", MODULES)
def test_weights_in_half_precision_are_read_as_they_are(tmp_path, name):
    content = official_content(name)
    tensors = tensors_of(content)
    for key, value in tensors.items():
        tensors[key] = value.half() if value.is_floating_point() else value
    loaded = load(name, write(tmp_path, name, content))
    assert {value.dtype for value in loaded.model.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("name", MODULES)
def test_a_key_that_is_missing_left_over_or_of_another_shape_stops_the_load(tmp_path, name):
    bias = {"xpool": "pool_frames.layer_norm3.bias", "albef": "itm_head.bias"}.get(name, "clip.ln_final.bias")
    for spoil, told in (
        (lambda tensors: tensors.pop(bias), f"1 missing ({bias})"),
        (lambda tensors: tensors.update(surprise=torch.ones(1)), "1 left over (surprise)"),
        (lambda tensors: tensors.update({bias: torch.ones(3)}), f"1 of another shape ({bias} [3] for ["),
    ):
        content = official_content(name)
        spoil(tensors_of(content))
        with pytest.raises(InputError) as caught:
            load(name, write(tmp_path, name, content))
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MODULES)
def test_the_checkpoint_of_another_teacher_is_refused_by_name(tmp_path, name):
    other = "xclip" if name in ("albef", "xpool") else "albef"
    path = write(tmp_path, name, official_content(other))
    with pytest.raises(InputError, match=r"lacks|nothing in it starts with"):
        load(name, path)


@pytest.mark.parametrize("name", MODULES)
def test_without_a_file_the_teacher_says_what_to_place_where(name):
    with pytest.raises(MissingFileError, match=rf"weights/{name}\.bin; place (the|a) .*github\.com"):
        MODULES[name].load(TeacherOptions())


@pytest.mark.parametrize("name", MODULES)
def test_a_teacher_refuses_options_and_variants_that_it_has_no_use_for(tmp_path, name):
    path = write(tmp_path, name, official_content(name))
    with pytest.raises(InputError, match=r"leave (it|out)"):
        load(name, path, architecture="ViT-B-32")
    with pytest.raises(InputError, match="takes no --prompts"):
        load(name, path, prompts=("a {}",))
    with pytest.raises(InputError, match="has no variant 'nonsense'"):
        load(name, path, variant=("nonsense",))


@pytest.mark.parametrize("name", ["clip4clip", "ts2net"])
def test_texts_are_as_long_as_was_asked_for_and_as_the_tower_allows(tmp_path, name):
    path = write(tmp_path, name, official_content(name))
    assert load(name, path).identity()["context_length"] == 32
    assert load(name, path, words=64).encode_texts(["a"])["word_embedding"].shape[1] == 64
    with pytest.raises(InputError, match="3 to 77 token ids, not of 78"):
        load(name, path, words=78)


def test_clip4clip_without_a_temporal_transformer_is_mean_pooling(tmp_path):
    model = Clip4Clip(Clip4ClipSizes(TowerSizes.tiny(), 0, 0))
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    loaded = load("clip4clip", tmp_path / "pytorch_model.bin")
    assert loaded.identity()["head"] == "meanP"
    assert "temporal_frame_embedding" not in {spec.name for spec in loaded.signals}


@pytest.mark.parametrize(
    ("key", "head"),
    [
        ("lstm_visual.weight_ih_l0", "seqLSTM"),
        ("cross.embeddings.x", "tightTransf"),
        ("clip.visual.conv2.weight", "3d"),
    ],
)
def test_heads_of_clip4clip_that_are_not_known_are_refused_by_name(tmp_path, key, head):
    path = write(tmp_path, "clip4clip", {**official_content("clip4clip"), key: torch.ones(1)})
    with pytest.raises(InputError, match=f"has {head}"):
        load("clip4clip", path)


def test_ts2net_shifts_the_blocks_that_its_checkpoint_wraps_and_none_else(tmp_path):
    path = write(tmp_path, "ts2net", official_content("ts2net"))
    assert load("ts2net", path).identity()["shifted_blocks"] == [1]
    assert load("ts2net", path, variant=("no-shift",)).identity()["shifted_blocks"] == []
    unwrapped = write(tmp_path, "ts2net", ts2net_layout(tiny_of("ts2net").model.state_dict(), ()))
    assert load("ts2net", unwrapped).identity()["shifted_blocks"] == []


def test_ts2net_names_the_most_frames_that_its_positions_allow(tmp_path):
    path = write(tmp_path, "ts2net", official_content("ts2net"))
    with pytest.raises(InputError, match="at most --frames 4"):
        ts2net.load(TeacherOptions(checkpoint=path, frames=5))


def test_xpool_weights_of_older_and_newer_libraries_are_the_same(tmp_path):
    content = official_content("xpool")
    older = load("xpool", write(tmp_path, "xpool", content)).identity()
    tensors = content["state_dict"]
    for key in [key for key in tensors if key.endswith("position_ids")]:
        del tensors[key]
    assert load("xpool", write(tmp_path, "xpool", content)).identity() == older


def test_xpool_whose_positions_do_not_count_from_zero_is_another_model(tmp_path):
    content = official_content("xpool")
    content["state_dict"]["clip.text_model.embeddings.position_ids"] += 1
    with pytest.raises(InputError, match="does not count from 0"):
        load("xpool", write(tmp_path, "xpool", content))


def test_albef_takes_the_copy_that_was_asked_for(tmp_path):
    path = write(tmp_path, "albef", official_content("albef"))
    online, momentum = load("albef", path), load("albef", path, variant=("momentum",))
    assert online.identity()["encoders"] == "online"
    assert momentum.identity()["encoders"] == "momentum"
    for loaded, seed in ((online, 3), (momentum, 4)):
        expected = tiny_albef(seed).model
        assert torch.equal(loaded.model.vision_proj.weight, expected.vision_proj.weight)
        assert torch.equal(loaded.model.itm_head.weight, tiny_albef(3).model.itm_head.weight)


def test_albef_of_pre_training_is_the_same_as_of_retrieval(tmp_path):
    expected = load("albef", write(tmp_path, "albef", official_content("albef"))).identity()
    states = tiny_albef(3).model.state_dict(), tiny_albef(4).model.state_dict()
    path = write(tmp_path, "albef", albef_layout(*states, pretraining=True))
    assert load("albef", path).identity() == expected
    assert load("albef", path, variant=("momentum",)).identity() != expected


def test_albef_without_momentum_copies_can_not_give_them(tmp_path):
    content = official_content("albef")
    content["model"] = {name: v for name, v in content["model"].items() if "_m." not in name}
    with pytest.raises(InputError, match=r"momentum copy"):
        load("albef", write(tmp_path, "albef", content), variant=("momentum",))


def test_albef_wants_the_vocabulary_that_its_weights_were_trained_with(tmp_path):
    path = write(tmp_path, "albef", official_content("albef"))
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "a"]))
    with pytest.raises(InputError, match="the vocabulary has 5 tokens"):
        load("albef", path)
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match="is no vocabulary"):
        load("albef", path)
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(MissingFileError, match=r"place the vocab\.txt"):
        load("albef", path)


def test_albef_scores_the_same_however_many_pairs_are_in_memory(monkeypatch):
    teacher = albef.tiny(0)
    videos = teacher.encode_videos(*random_videos(teacher, 3))
    texts = teacher.encode_texts(["a red dot", "grass", "a", "b c"])
    whole = teacher.score_pairs(videos, texts)
    matched = teacher.match_pairs(videos, {name: value[:3] for name, value in texts.items()})
    monkeypatch.setattr(albef_model, "PAIRS_AT_ONCE", 2)
    torch.testing.assert_close(teacher.score_pairs(videos, texts), whole)
    again = teacher.match_pairs(videos, {name: value[:3] for name, value in texts.items()})
    for name, value in matched.items():
        torch.testing.assert_close(again[name], value)


def test_albef_sees_the_frames_that_it_was_trained_with(tmp_path):
    path = write(tmp_path, "albef", official_content("albef"))
    with pytest.raises(InputError, match="1 frame"):
        albef.load(TeacherOptions(checkpoint=path, frames=2))


def test_a_safetensors_file_of_official_names_is_as_good(tmp_path):
    path = tmp_path / "clip4clip.safetensors"
    save_file(official_content("clip4clip"), path)
    assert load("clip4clip", path).identity() == clip4clip.tiny(3).identity()


def test_the_names_of_hugging_face_and_back_are_the_same_towers():
    towers = {k.removeprefix("clip."): v for k, v in clip4clip.tiny(3).model.clip.state_dict().items()}
    from teacher_dump.models.hugging_face_clip import openai_names

    back = openai_names(hugging_face_layout(towers))
    assert set(back) == set(towers)
    assert all(torch.equal(back[name], towers[name]) for name in towers)
