"""Which parameters learn how fast; the official Adam held to a plain statement of it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from store.errors import UnknownNameError
from student_train.optimizer import BertAdam, learning_rate_factor, make_optimizer, set_learning_rate
from student_train.students import afa
from tests.student_train.learnable_cache import SIGNALS

RECIPE = afa.RECIPES["demo"]
SETTINGS = RECIPE.optimizer
SIZES = {spec.name: spec.sizes for spec in SIGNALS}


def groups_by_name(settings) -> dict[str, tuple[float, float]]:
    student = afa.build(RECIPE.model, SIZES)
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in make_optimizer(student, settings, 1e-3).param_groups
        for parameter in group["params"]
    }


def test_parameters_get_the_rate_and_the_decay_of_their_kind() -> None:
    settings = dataclasses.replace(SETTINGS, lr_scale={"attention.": 10.0}, weight_decay=0.3)
    found = groups_by_name(settings)
    assert len(found) == len(list(afa.build(RECIPE.model, SIZES).parameters()))
    assert found["attention.hidden.weight"] == (pytest.approx(1e-2), 0.3)
    assert found["attention.hidden.bias"] == (pytest.approx(1e-2), 0.0)
    assert found["text_projection.weight"] == (1e-3, 0.3)
    assert found["log_logit_scale"] == (1e-3, 0.0)


def test_a_recipe_may_name_what_does_not_decay() -> None:
    found = groups_by_name(dataclasses.replace(SETTINGS, undecayed=("bias",), weight_decay=0.3))
    assert found["attention.hidden.bias"][1] == 0
    assert found["log_logit_scale"][1] == found["temporal.blocks.0.mlp_norm.weight"][1] == 0.3


def test_a_frozen_parameter_is_not_optimised() -> None:
    student = afa.build(RECIPE.model, SIZES)
    student.text_projection.requires_grad_(False)
    held = [p for group in make_optimizer(student, SETTINGS, 1e-3).param_groups for p in group["params"]]
    assert all(parameter is not student.text_projection.weight for parameter in held)


def test_an_unknown_optimiser_is_refused_with_what_there_is() -> None:
    with pytest.raises(UnknownNameError, match="bert_adam"):
        make_optimizer(nn.Linear(2, 2), dataclasses.replace(SETTINGS, name="bertadam"), 1e-3)


def test_the_official_adam_clips_each_tensor_and_corrects_no_bias() -> None:
    """Against the formula in NumPy, over steps of very different gradients."""
    rng = np.random.default_rng(0)
    parameters = [rng.normal(size=shape) for shape in ((3, 4), (5,))]
    ours = [nn.Parameter(torch.tensor(value)) for value in parameters]
    optimizer = BertAdam([{"params": ours, "lr": 0.01, "weight_decay": 0.2}], (0.9, 0.98), 1e-6, 1.0)
    averages = [(np.zeros_like(value), np.zeros_like(value)) for value in parameters]
    for scale in (0.1, 30.0, 2.0):
        for place, value in enumerate(parameters):
            gradient = scale * rng.normal(size=value.shape)
            ours[place].grad = torch.tensor(gradient)
            gradient = gradient * min(1.0, 1 / (np.linalg.norm(gradient) + 1e-6))
            first, second = averages[place]
            first, second = 0.9 * first + 0.1 * gradient, 0.98 * second + 0.02 * gradient**2
            averages[place] = first, second
            parameters[place] = value - 0.01 * (first / (np.sqrt(second) + 1e-6) + 0.2 * value)
        optimizer.step()
    for value, parameter in zip(parameters, ours, strict=True):
        assert np.allclose(parameter.detach().numpy(), value, rtol=1e-12)


def test_half_precision_weights_hardly_move_at_the_official_rate_as_officially() -> None:
    weight = nn.Parameter(torch.full((8,), 0.5, dtype=torch.float16))
    weight.grad = torch.ones_like(weight)
    BertAdam([{"params": [weight], "lr": 1e-7}]).step()
    assert torch.equal(weight, torch.full((8,), 0.5, dtype=torch.float16))


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    factors = [learning_rate_factor(SETTINGS, step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10] == 1 == max(factors)
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[-1] < 1e-3
    assert learning_rate_factor(dataclasses.replace(SETTINGS, warmup=0.0), 0, 100) == 1


def test_the_official_schedule_starts_at_nothing_and_does_not_stretch_its_cosine() -> None:
    settings = dataclasses.replace(SETTINGS, schedule="official_cosine", warmup=0.1)
    assert learning_rate_factor(settings, 0, 100) == 0
    assert learning_rate_factor(settings, 5, 100) == pytest.approx(0.5)
    assert learning_rate_factor(settings, 10, 100) == pytest.approx(0.5 * (1 + math.cos(0.1 * math.pi)))


def test_a_constant_rate_stays_after_its_warm_up() -> None:
    settings = dataclasses.replace(SETTINGS, schedule="constant", warmup=0.1)
    assert [learning_rate_factor(settings, update, 100) for update in (0, 9, 99)] == [0.1, 1, 1]


def test_every_group_is_set_by_the_same_factor() -> None:
    settings = dataclasses.replace(SETTINGS, lr_scale={"attention.": 10.0})
    optimizer = make_optimizer(afa.build(RECIPE.model, SIZES), settings, 1e-3)
    set_learning_rate(optimizer, 0.5)
    assert all(group["lr"] == 0.5 * group["base_lr"] for group in optimizer.param_groups)
