"""What every student must do. Subclass `StudentContract` and give it a `module` fixture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from store.encodings import BOOL
from store.signals import kind_of
from student_train.config import TAUGHT, UNTAUGHT, Recipe
from student_train.needs import (
    CLASS,
    FRAME_VALID,
    LOGIT_SCALE,
    MATCH_KNOWN,
    MATCH_PROBABILITY,
    NOT_SIGNALS,
    OF_CLASSES,
    PAIR_SCORES,
    PIXELS,
    PLANNED_TOPK,
    RELEVANCE,
    TEXT,
    in_role,
    split_role,
)
from student_train.rows import PairBlock
from student_train.students.base import SignalSizes, Student, Task, losses_of


def random_batch(needs: Iterable[str], sizes: SignalSizes, pairs: int, seed: int = 0) -> dict[str, Any]:
    """A batch of `pairs` videos with their texts, as the training stream hands it out; the last frame of
    every second video is missing."""
    generator = torch.Generator().manual_seed(seed)
    length = {axis: count for of_signal in sizes.values() for axis, count in of_signal.items()}
    valid = torch.ones(pairs, length["M"], dtype=torch.bool)
    valid[::2, -1] = False
    batch: dict[str, Any] = {FRAME_VALID: valid}
    for need in needs:
        name, role = split_role(need)
        batch[in_role(FRAME_VALID, role)] = valid
        batch[need] = random_values(
            name, {**length, **sizes.get(need, sizes.get(name, {}))}, pairs, generator
        )
        if name == MATCH_PROBABILITY:
            asked = torch.rand(pairs, pairs, generator=generator) < 0.8
            batch[in_role(MATCH_KNOWN, role)] = PairBlock.whole(asked)
        if name == RELEVANCE:
            batch[need] = batch[need].masked_fill(~valid, -torch.inf).softmax(-1)
    return batch


def random_values(name: str, length: Mapping[str, int], pairs: int, generator: torch.Generator) -> Any:
    """What a batch holds under the need `name`."""
    if name == PAIR_SCORES:
        return PairBlock.whole(10 * torch.randn(pairs, pairs, generator=generator))
    if name == MATCH_PROBABILITY:
        return PairBlock.whole(torch.rand(pairs, pairs, generator=generator))
    if name.startswith(PLANNED_TOPK):
        part, kept = name.removeprefix(PLANNED_TOPK), length["K"]
        if part.endswith("_index"):
            return torch.rand(pairs, pairs, generator=generator).argsort(-1)[:, :kept]
        shape = (pairs, kept, length["D"]) if part.endswith("_fused_cls") else (pairs, kept)
        return torch.randn(*shape, generator=generator)
    if name == LOGIT_SCALE:
        return torch.tensor(20.0)
    if name == TEXT:
        return [f"a caption, number {number}" for number in range(pairs)]
    if name == CLASS:
        return torch.arange(pairs) % 3
    if name == PIXELS:
        shape = (pairs, *(length[axis] for axis in "MYXC"))
        return torch.randint(256, shape, generator=generator).to(torch.uint8)
    kind = kind_of(name.removeprefix(OF_CLASSES))
    rows = (1, 3) if name.startswith(OF_CLASSES) else (pairs,)
    value = torch.randn(
        *rows, *(length[axis] for axis in kind.axes[1:].replace("R", "")), generator=generator
    )
    return value > -1 if kind.encodings == (BOOL,) else value


def of_texts(need: str) -> bool:
    name, _ = split_role(need)
    return name == TEXT or (name not in (*NOT_SIGNALS, FRAME_VALID) and kind_of(name).axes[0] == "T")


def picked(value: Any, rows: list[int]) -> Any:
    """Those rows of a tensor or of a list of captions."""
    return [value[row] for row in rows] if isinstance(value, list) else value[rows]


def recipes(module: ModuleType) -> list[Recipe]:
    return list(module.RECIPES.values())


def trainings(module: ModuleType, arm: str) -> list[tuple[Any, dict[str, float]]]:
    """The different trainings of the recipes' `arm` in small: configuration and weights of losses."""
    small = getattr(module, "small", lambda config: config)
    found = [(small(recipe.model_of(arm)), recipe.weights(arm)) for recipe in recipes(module)]
    return [training for place, training in enumerate(found) if training not in found[:place]]


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
    def batch(self, student: Student, sizes: SignalSizes) -> dict[str, Any]:
        return random_batch(student.config.needs, sizes, self.PAIRS)

    def test_a_forward_pass_gives_what_is_promised(
        self, module: ModuleType, student: Student, sizes: SignalSizes
    ) -> None:
        terms = losses_of(module, student.config).values()
        taught = dict.fromkeys(need for term in terms for need in term.needs)
        outputs = student(random_batch((*student.config.needs, *taught), sizes, self.PAIRS))
        assert set(outputs) == set(student.gives)
        assert set(student.gathers) <= set(student.gives)
        if student.gathers:
            logits = outputs.pop("logits")
            assert logits.rows.shape == logits.columns.shape == (self.PAIRS, self.PAIRS)
            assert torch.isfinite(logits.rows).all()
        assert all(len(value) == self.PAIRS and torch.isfinite(value).all() for value in outputs.values())

    def test_frame_weights_sum_to_one(self, student: Student, batch: dict[str, Any]) -> None:
        if "frame_weight" in student.gives:
            total = student(batch)["frame_weight"].sum(-1)
            assert torch.allclose(total, torch.ones(self.PAIRS))

    def test_logits_are_videos_by_texts(self, student: Student, batch: dict[str, Any]) -> None:
        if not student.gathers:
            pytest.skip("this student scores no pairs")
        order = torch.randperm(self.PAIRS, generator=torch.Generator().manual_seed(3))
        permuted = {
            name: picked(value, order.tolist()) if of_texts(name) else value for name, value in batch.items()
        }
        logits = student(batch)["logits"].rows
        assert torch.allclose(student(permuted)["logits"].rows, logits[:, order], atol=1e-5)

    def test_pairs_are_scored_alike_in_strips(self, student: Student, batch: dict[str, Any]) -> None:
        """What two processes compute, each in its strips, is what one computes of the whole block."""
        if not student.gathers:
            pytest.skip("this student scores no pairs")
        encoded = student.encode_videos(batch), student.encode_texts(batch)
        videos, texts = ({n: v for n, v in side.items() if n in student.gathers} for side in encoded)
        whole = student.similarity(videos, texts)
        strip = student.similarity({name: value[2:4] for name, value in videos.items()}, texts)
        assert torch.allclose(strip, whole[2:4], atol=1e-5)

    def test_a_video_is_encoded_the_same_in_any_company(
        self, student: Student, batch: dict[str, Any]
    ) -> None:
        alone = {
            name: value if name.startswith(OF_CLASSES) else picked(value, [2])
            for name, value in batch.items()
        }
        together = student.encode_videos(batch)
        for name, value in student.encode_videos(alone).items():
            assert torch.allclose(value, together[name][2:3], atol=1e-5), name

    def test_what_it_needs_can_be_stored(self, student: Student) -> None:
        for need in student.config.needs:
            name, _ = split_role(need)
            if name not in NOT_SIGNALS:
                kind_of(name.removeprefix(OF_CLASSES))

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

    @pytest.mark.slow
    @pytest.mark.parametrize("arm", [UNTAUGHT, TAUGHT])
    def test_every_recipe_trains_every_parameter(
        self, module: ModuleType, sizes: SignalSizes, arm: str
    ) -> None:
        for config, weights in trainings(module, arm):
            task = Task(module.build(config, sizes), losses_of(module, config), weights)
            task.freeze_unread()
            task(random_batch(task.needs, sizes, self.PAIRS))["loss"].backward()
            for name, parameter in task.student.named_parameters():
                if not parameter.requires_grad:
                    continue
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name

    def test_only_losses_of_the_taught_arm_ask_the_teacher(
        self, module: ModuleType, sizes: SignalSizes
    ) -> None:
        for recipe in recipes(module):
            for arm in (UNTAUGHT, TAUGHT):
                terms = losses_of(module, recipe.model_of(arm))
                asked = {name for name in recipe.weights(arm) if terms[split_role(name)[0]].needs}
                assert not asked or arm == TAUGHT
        assert any(
            recipe.weights(TAUGHT) != recipe.weights(UNTAUGHT)
            or recipe.model_of(TAUGHT) != recipe.model_of(UNTAUGHT)
            for recipe in recipes(module)
        )
