"""What every student must do. Subclass `StudentContract` and give it a `module` fixture."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import ModuleType

import pytest
import torch
from safetensors.torch import load, save

from store.signals import kind_of
from student_train.config import TAUGHT, UNTAUGHT, Recipe
from student_train.students.base import PAIR_SCORES, SignalSizes, Student, Task


def random_batch(
    needs: Iterable[str], sizes: SignalSizes, pairs: int, seed: int = 0
) -> dict[str, torch.Tensor]:
    """A batch of `pairs` videos with their texts, as the training stream hands it out; the last frame of
    every second video is missing."""
    generator = torch.Generator().manual_seed(seed)
    length = {axis: count for of_signal in sizes.values() for axis, count in of_signal.items()}
    batch = {"frame_valid": torch.ones(pairs, length["M"], dtype=torch.bool)}
    batch["frame_valid"][::2, -1] = False
    for need in needs:
        if need == PAIR_SCORES:
            batch["pair_score"] = 10 * torch.randn(pairs, pairs, generator=generator)
            continue
        axes = kind_of(need).axes[1:].replace("R", "")
        batch[need] = torch.randn(
            pairs, *(sizes.get(need, length)[axis] for axis in axes), generator=generator
        )
    if "frame_relevance" in batch:
        score = batch["frame_relevance"].masked_fill(~batch["frame_valid"], -torch.inf)
        batch["frame_relevance"] = score.softmax(-1)
    return batch


def recipes(module: ModuleType) -> list[Recipe]:
    return list(module.RECIPES.values())


class StudentContract:
    """Tests of one student module, in its tiny, weight-free configuration."""

    PAIRS = 5

    @pytest.fixture
    def sizes(self, module: ModuleType) -> SignalSizes:
        return module.tiny()[1]

    @pytest.fixture
    def student(self, module: ModuleType) -> Student:
        torch.manual_seed(0)
        return module.build(*module.tiny()).eval()

    @pytest.fixture
    def batch(self, student: Student, sizes: SignalSizes) -> dict[str, torch.Tensor]:
        return random_batch(student.config.needs, sizes, self.PAIRS)

    def test_a_forward_pass_gives_what_is_promised(
        self, student: Student, sizes: SignalSizes, batch: dict[str, torch.Tensor]
    ) -> None:
        outputs = student(batch)
        assert set(outputs) == set(student.gives)
        assert outputs["video_embedding"].shape[0] == outputs["text_embedding"].shape[0] == self.PAIRS
        assert outputs["logits"].shape == (self.PAIRS, self.PAIRS)
        assert all(torch.isfinite(value).all() for value in outputs.values())

    def test_frame_weights_sum_to_one(self, student: Student, batch: dict[str, torch.Tensor]) -> None:
        if "frame_weight" in student.gives:
            total = student(batch)["frame_weight"].sum(-1)
            assert torch.allclose(total, torch.ones(self.PAIRS))

    def test_logits_are_videos_by_texts(self, student: Student, batch: dict[str, torch.Tensor]) -> None:
        order = torch.randperm(self.PAIRS, generator=torch.Generator().manual_seed(3))
        texts = {name for name in student.config.needs if kind_of(name).axes[0] == "T"}
        permuted = {name: value[order] if name in texts else value for name, value in batch.items()}
        assert torch.allclose(student(permuted)["logits"], student(batch)["logits"][:, order], atol=1e-5)

    def test_a_video_is_encoded_the_same_in_any_company(
        self, student: Student, batch: dict[str, torch.Tensor]
    ) -> None:
        alone = {name: value[2:3] for name, value in batch.items()}
        together = student.encode_videos(batch)["video_embedding"][2:3]
        assert torch.allclose(student.encode_videos(alone)["video_embedding"], together, atol=1e-5)

    def test_what_it_needs_can_be_stored(self, student: Student) -> None:
        for name in student.config.needs:
            kind_of(name)

    def test_equal_seeds_give_equal_students(self, module: ModuleType, student: Student) -> None:
        torch.manual_seed(0)
        again = module.build(*module.tiny()).state_dict()
        assert all(torch.equal(value, again[name]) for name, value in student.state_dict().items())

    def test_its_parameters_survive_a_safetensors_file(self, module: ModuleType, student: Student) -> None:
        torch.manual_seed(1)
        other = module.build(*module.tiny())
        other.load_state_dict(load(save(student.state_dict())), strict=True)
        assert all(
            torch.equal(value, other.state_dict()[name]) for name, value in student.state_dict().items()
        )

    def test_every_recipe_is_plain_data_and_comes_back_from_it(self, module: ModuleType) -> None:
        for recipe in recipes(module):
            fields = json.loads(json.dumps(recipe.to_dict()))
            assert Recipe.from_dict(fields, module.Config) == recipe

    @pytest.mark.parametrize("arm", [UNTAUGHT, TAUGHT])
    def test_every_recipe_trains_every_parameter(
        self, module: ModuleType, sizes: SignalSizes, arm: str
    ) -> None:
        for recipe in recipes(module):
            task = Task(module.build(recipe.model, sizes), module.LOSSES, recipe.weights(arm))
            losses = task.losses(random_batch(task.needs, sizes, self.PAIRS))
            losses["loss"].backward()
            for name, parameter in task.student.named_parameters():
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name

    def test_only_the_taught_arm_asks_the_teacher(self, module: ModuleType, sizes: SignalSizes) -> None:
        for recipe in recipes(module):
            student = module.build(recipe.model, sizes)
            assert set(Task(student, module.LOSSES, recipe.weights(UNTAUGHT)).needs) == set(
                student.config.needs
            )
            assert set(Task(student, module.LOSSES, recipe.weights(TAUGHT)).needs) > set(student.config.needs)
