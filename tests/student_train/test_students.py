"""The contract, run over every student in the folder, and what is special about each."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from store.errors import InputError
from store.lookup import load_plugin, plugin_names
from student_train import students
from student_train.students import afa
from student_train.students.base import Task
from tests.contracts.student_contract import StudentContract, random_batch

SIZES = afa.tiny()[1]


@pytest.fixture(params=plugin_names(students))
def module(request: pytest.FixtureRequest) -> ModuleType:
    return load_plugin(students, "student", request.param)


class TestEveryStudent(StudentContract):
    pass


def test_torch_compile_is_applied_to_what_a_step_calls(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that `forward` goes round would stay as it was, and the option do nothing."""
    config, sizes = module.tiny()
    student = module.build(config, sizes)
    called: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        method = getattr(student, name)

        def call(*arguments: Any) -> Any:
            called.append(name)
            return method(*arguments)

        return call

    for name in student.compiled:
        monkeypatch.setattr(student, name, counted(name))
    student(random_batch(student.config.needs, sizes, pairs=4))
    assert called == list(student.compiled)


def test_the_text_projection_starts_as_the_identity() -> None:
    student = afa.build(*afa.tiny())
    text = torch.randn(3, 16)
    assert torch.equal(student.encode_texts({"text_embedding": text})["text_embedding"], text)


def test_mean_aggregation_weighs_valid_frames_equally_and_can_not_be_taught_frames() -> None:
    student = afa.build(afa.Config(aggregation="mean", temporal_layers=1), SIZES)
    batch = random_batch(student.config.needs, SIZES, pairs=2)
    expected = torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0], [0.25, 0.25, 0.25, 0.25]])
    assert torch.allclose(student(batch)["frame_weight"], expected)
    with pytest.raises(InputError, match="log_frame_weight"):
        Task(student, afa.LOSSES, {"fine_cross_entropy_mean": 1.0})


def test_masked_padding_is_never_read_whatever_stands_there() -> None:
    torch.manual_seed(0)
    student = afa.build(afa.Config(temporal_layers=2, heads=2, mask_padding=True), SIZES).eval()
    batch = random_batch(student.config.needs, SIZES, pairs=4)
    other = {**batch, "frame_embedding": batch["frame_embedding"].clone()}
    other["frame_embedding"][~batch["frame_valid"]] = 7.0
    first, second = student(batch), student(other)
    assert torch.allclose(first["video_embedding"], second["video_embedding"], atol=1e-6)


def test_the_logit_scale_stays_at_most_100() -> None:
    student = afa.build(*afa.tiny())
    with torch.no_grad():
        student.log_logit_scale += 3
    student.after_step()
    assert student.log_logit_scale.exp().item() == pytest.approx(100)


@pytest.mark.parametrize(
    "wrong", [{"aggregation": "max"}, {"temporal_layers": -1}, {"pooling_temperature": 0}]
)
def test_a_configuration_without_meaning_is_refused(wrong: dict) -> None:
    with pytest.raises(InputError):
        afa.Config(**wrong)


def test_frames_and_texts_of_different_width_are_refused() -> None:
    with pytest.raises(InputError, match="16 and text_embedding of 8"):
        afa.build(afa.Config(), {**SIZES, "text_embedding": {"D": 8}})


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(InputError, match="3 attention heads"):
        afa.build(afa.Config(heads=3), SIZES)
