"""Class names through prompts, and the classifiers of Text4Vis that no text made."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional

from store.errors import InputError
from teacher_dump.models.text_classifiers import (
    discriminant_classifier,
    orthogonal_classifier,
    random_classifier,
    read_classes,
    read_features,
)
from teacher_dump.teachers import classes, clip
from teacher_dump.teachers.base import TeacherOptions
from tests.contracts.teacher_contract import random_videos

NAMES = ("abseiling", "air drumming", "zumba")
WIDTH = 32


def prompted(*prompts):
    tiny = classes.tiny(0)
    towers = (tiny.model, "tiny", clip.RANDOM, tiny.tokenize)
    return classes.ClassesTeacher(*towers, frames=3, prompts=prompts)


def embedded(teacher, names=NAMES):
    return teacher.encode_texts(names)["text_embedding"]


def test_a_class_name_is_read_in_the_official_prompt():
    plain = clip.tiny(0).encode_texts([f"a video of a person {name}." for name in NAMES])["text_embedding"]
    assert torch.equal(embedded(classes.tiny(0)), plain)


def test_several_prompts_are_averaged_by_direction():
    alone = [functional.normalize(embedded(prompted(prompt)), dim=-1) for prompt in ("{}", "a {} video")]
    torch.testing.assert_close(embedded(prompted("{}", "a {} video")), (alone[0] + alone[1]) / 2)


def test_frames_are_encoded_as_clip_does():
    frames = random_videos(clip.tiny(0), 3)
    ours, theirs = classes.tiny(0).encode_videos(*frames), clip.tiny(0).encode_videos(*frames)
    assert torch.equal(ours["frame_embedding"], theirs["frame_embedding"])


def test_prompts_are_part_of_the_identity():
    one, other = prompted("{}").identity(), prompted("a {}").identity()
    assert {field for field in one if one[field] != other[field]} == {"classifier"}


@given(st.integers(1, 40), st.integers(0, 1000))
def test_orthogonal_rows_are_orthonormal(count, seed):
    rows = orthogonal_classifier(count, 40, seed)
    torch.testing.assert_close(rows @ rows.T, torch.eye(count), atol=1e-5, rtol=0)


def test_more_classes_than_dimensions_can_not_be_orthogonal():
    with pytest.raises(InputError, match="41 classes can't be orthogonal in 40"):
        orthogonal_classifier(41, 40)


def test_random_rows_are_standard_normal_and_the_same_every_time():
    rows = random_classifier(100, 400)
    assert torch.equal(rows, random_classifier(100, 400))
    assert abs(rows.mean()) < 0.02
    assert abs(rows.std() - 1) < 0.02


def blobs(spread, per_class=200, seed=0):
    """Three classes of normal features [N, 4] whose spread differs by direction, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(3).repeat_interleave(per_class)
    means = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [-1, -1, 0, 0]])
    noise = torch.randn(len(label), 4, generator=generator) * torch.tensor(spread)
    return means[label] + noise, label


def test_a_discriminant_is_the_inverse_spread_times_the_means():
    features, label = blobs((2.0, 0.5, 1.0, 1.0), per_class=100_000)
    rows = discriminant_classifier(features, label, 3)
    expected = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [-1, -1, 0, 0]]) / torch.tensor([4, 0.25, 1, 1])
    torch.testing.assert_close(rows, expected, atol=0.05, rtol=0)


@given(st.integers(0, 100), st.floats(0.1, 10))
def test_a_discriminant_scores_the_same_after_any_stretching_of_the_features(seed, stretch):
    features, label = blobs((1.0, 0.5, 2.0, 1.0), per_class=30, seed=seed)
    matrix = torch.diag(torch.tensor([stretch, 1.0, 2.0, 1.0]))
    plain = features @ discriminant_classifier(features, label, 3).T
    stretched = (features @ matrix) @ discriminant_classifier(features @ matrix, label, 3).T
    torch.testing.assert_close(stretched, plain, atol=1e-3, rtol=1e-3)


def test_directions_without_any_spread_do_not_blow_up():
    features, label = blobs((1.0, 1.0, 0.0, 0.0))
    rows = discriminant_classifier(features, label, 3)
    assert torch.isfinite(rows).all()
    assert rows[:, 2:].abs().max() < 1e-6


def test_every_class_needs_features():
    features, label = blobs((1.0, 1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="class 3 has none"):
        discriminant_classifier(features, label, 4)
    with pytest.raises(InputError, match="largest label is 2"):
        discriminant_classifier(features, label, 2)
    with pytest.raises(InputError, match="two or more"):
        discriminant_classifier(torch.eye(3), torch.arange(3), 3)


@pytest.fixture
def class_list(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(NAMES) + "\n")
    return path


def classifier(kind, class_list, features=None, width=WIDTH):
    options = TeacherOptions(variant=(kind,), classes=class_list, features=features)
    return classes.classifier_of(options, width)


@pytest.mark.parametrize("kind", ["random", "orthogonal"])
def test_a_text_gets_the_row_of_its_class_in_any_batch(class_list, kind):
    made = classifier(kind, class_list)
    tiny = classes.tiny(0)
    teacher = classes.ClassesTeacher(
        tiny.model, "tiny", clip.RANDOM, tiny.tokenize, frames=3, classifier=made
    )
    assert torch.equal(embedded(teacher), made.rows)
    assert torch.equal(embedded(teacher, NAMES[2:]), made.rows[2:])
    assert torch.equal(embedded(teacher, ["a video of a person zumba."]), made.rows[2:])
    assert teacher.identity()["classifier"]["kind"] == kind
    with pytest.raises(InputError, match="'swimming' is none of the 3 classes"):
        embedded(teacher, ["swimming"])


def test_the_discriminant_is_made_of_the_features_given(tmp_path, class_list):
    features, label = blobs((1.0, 1.0, 1.0, 1.0))
    save_file({"embedding": features, "label": label}, tmp_path / "features.safetensors")
    made = classifier("lda", class_list, tmp_path / "features.safetensors", width=4)
    assert torch.equal(made.rows, discriminant_classifier(features, label, 3))
    with pytest.raises(InputError, match="4 wide, this tower's are 32"):
        classifier("lda", class_list, tmp_path / "features.safetensors")


def test_lists_and_features_that_are_none_are_refused(tmp_path, class_list):
    with pytest.raises(InputError, match="needs the list of classes"):
        read_classes(None)
    class_list.write_text("a\nb\na\n")
    with pytest.raises(InputError, match="each once"):
        read_classes(class_list)
    with pytest.raises(InputError, match="--features FILE"):
        read_features(tmp_path / "absent.pt")
    save_file({"embedding": torch.ones(3, 4), "label": torch.ones(2)}, tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match=r"wants 'embedding' \[N, D\]"):
        read_features(tmp_path / "wrong.safetensors")
    save_file({"embedding": torch.ones(2, 4), "label": torch.ones(2)}, tmp_path / "float.safetensors")
    with pytest.raises(InputError, match="whole numbers"):
        read_features(tmp_path / "float.safetensors")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"prompts": ("no place",)}, "has {} once"),
        ({"variant": ("random", "lda")}, "one classifier at a time"),
        ({"variant": ("best",)}, "no variant 'best'"),
        ({"variant": ("random",), "prompts": ("{}",)}, "takes no --prompts"),
        ({"classes": "classes.txt"}, "takes no --classes"),
    ],
)
def test_the_teacher_refuses_what_does_not_go_together(wrong, told):
    with pytest.raises(InputError, match=told):
        classes.load(TeacherOptions(architecture="ViT-S-32", pretrained="random", **wrong))
