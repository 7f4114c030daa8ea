import dataclasses
import math

import pytest
import torch

from store.errors import NonFiniteError
from store.reader import Cache, TeacherReader
from student_train.config import TAUGHT, Recipe
from student_train.rows import PerRow
from student_train.stream import TrainingStream, training_rows
from student_train.students import afa
from student_train.students.base import Task
from student_train.teachers import Teachers
from student_train.trainer import Trained, train
from tests.student_train.learnable_cache import SIGNALS

SIZES = {spec.name: spec.sizes for spec in SIGNALS}
RECIPE = dataclasses.replace(
    afa.RECIPES["demo"],
    keep="best",
    model=afa.Config(temporal_layers=1, logit_scale=20.0),
    epochs=4,
    batch_size=16,
)


@pytest.fixture
def training(learnable: Cache, oracle: TeacherReader):
    """(recipe, seed, validate) -> what `train` returns, and the student after its last step."""

    def run(
        recipe: Recipe = RECIPE, seed: int = 0, validate=None, rate: float = 3e-3
    ) -> tuple[Trained, afa.AfaStudent]:
        torch.manual_seed(seed)
        student = afa.build(recipe.model, SIZES)
        task = Task(student, afa.LOSSES, recipe.weights(TAUGHT))
        rows = training_rows(learnable, oracle)
        stream = TrainingStream(rows, Teachers(oracle), task.needs, recipe.batch_size, seed)
        return train(task, stream, recipe, rate, validate, "a test"), student

    return run


def test_a_training_is_a_function_of_its_seed(training) -> None:
    first, again, other = training(seed=0)[0], training(seed=0)[0], training(seed=1)[0]
    assert first.log == again.log
    assert all(torch.equal(value, again.state[name]) for name, value in first.state.items())
    assert first.log[0]["loss"] != other.log[0]["loss"]


def test_the_log_tells_every_step_and_the_loss_is_the_weighted_sum_of_its_terms(training) -> None:
    log = training()[0].log
    assert [line["step"] for line in log] == list(range(4 * 3))
    assert [line["epoch"] for line in log] == [step // 3 for step in range(12)]
    for line in log:
        total = sum(weight * line[name] for name, weight in RECIPE.losses.items())
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    assert log[-1]["loss"] < log[0]["loss"]


def test_the_best_epoch_is_kept_and_of_equals_the_first(training) -> None:
    scores, seen = iter([1.0, 5.0, 5.0, 2.0]), []

    def validate(student: afa.AfaStudent) -> float:
        seen.append({name: value.clone() for name, value in student.state_dict().items()})
        return next(scores)

    trained, _ = training(validate=validate)
    assert trained.val == [1.0, 5.0, 5.0, 2.0]
    assert trained.kept_epoch == 1
    assert all(torch.equal(value, seen[1][name]) for name, value in trained.state.items())


def test_the_last_epoch_is_kept_where_the_recipe_says_so(training) -> None:
    scores = iter([1.0, 5.0, 5.0, 2.0])
    kept_last = dataclasses.replace(RECIPE, keep="last")
    trained, student = training(validate=lambda student: next(scores), recipe=kept_last)
    assert trained.kept_epoch == 3
    assert all(torch.equal(value, trained.state[name]) for name, value in student.state_dict().items())


def test_without_validation_the_last_epoch_is_kept(training) -> None:
    trained, student = training()
    assert trained.kept_epoch == 3
    assert trained.val == []
    assert all(torch.equal(value, trained.state[name]) for name, value in student.state_dict().items())


def test_a_loss_that_is_not_a_number_stops_the_training_and_names_the_step(training, monkeypatch) -> None:
    broken = afa.LossTerm(
        lambda outputs, batch: PerRow(outputs["logits"].rows.mean(1) * math.nan), reads=("logits",)
    )
    monkeypatch.setitem(afa.LOSSES, "info_nce", broken)
    with pytest.raises(NonFiniteError, match="a test, step 0: loss is nan"):
        training()
