import dataclasses
import math

import pytest
import torch

from store.errors import InputError, NonFiniteError
from store.reader import TeacherReader
from student_train.checkpoint import Checkpoints
from student_train.config import Recipe
from student_train.rows import PerRow
from student_train.students import afa
from student_train.students.base import Task
from student_train.trainer import Trained, Watch, train
from tests.student_train.small_training import RATE, RECIPE, SIZES, Lines, task_and_stream, timeless


@pytest.fixture
def training(oracle: TeacherReader):
    """(recipe, seed, validate) -> what `train` returns, the student after its last step, and the log."""

    def run(
        recipe: Recipe = RECIPE, seed: int = 0, validate=None
    ) -> tuple[Trained, afa.AfaStudent, list[dict]]:
        task, stream = task_and_stream(oracle, recipe, seed)
        log = Lines()
        trained = train(task, stream, recipe, RATE, Watch("a test", validate, [log]))
        return trained, task.student, log

    return run


def with_optimizer(**changes) -> Recipe:
    return dataclasses.replace(RECIPE, optimizer=dataclasses.replace(RECIPE.optimizer, **changes))


def test_a_training_is_a_function_of_its_seed(training) -> None:
    (first, _, log), (again, _, same), (_, _, other) = training(), training(), training(seed=1)
    assert list(map(timeless, log)) == list(map(timeless, same))
    assert all(torch.equal(value, again.state[name]) for name, value in first.state.items())
    assert log[0]["loss"] != other[0]["loss"]


def test_the_log_tells_every_step_and_the_loss_is_the_weighted_sum_of_its_terms(training) -> None:
    log = training()[2]
    assert [line["step"] for line in log] == list(range(4 * 3))
    assert [line["epoch"] for line in log] == [step // 3 for step in range(12)]
    for line in log:
        total = sum(weight * line[name] for name, weight in RECIPE.losses.items())
        assert line["loss"] == pytest.approx(total, rel=1e-5)
        assert line["taught_share"] == 1
        assert 0 <= line["data_wait_s"] < 16 / line["samples_per_s"]
    assert log[-1]["loss"] < log[0]["loss"]


def test_the_best_epoch_is_kept_and_of_equals_the_first(training) -> None:
    scores, seen = iter([1.0, 5.0, 5.0, 2.0]), []

    def validate(student: afa.AfaStudent) -> float:
        seen.append({name: value.clone() for name, value in student.state_dict().items()})
        return next(scores)

    trained = training(validate=validate)[0]
    assert trained.val == [1.0, 5.0, 5.0, 2.0]
    assert trained.kept_epoch == 1
    assert all(torch.equal(value, seen[1][name]) for name, value in trained.state.items())


def test_the_last_epoch_is_kept_where_the_recipe_says_so(training) -> None:
    scores = iter([1.0, 5.0, 5.0, 2.0])
    kept_last = dataclasses.replace(RECIPE, keep="last")
    trained, student, _ = training(validate=lambda student: next(scores), recipe=kept_last)
    assert trained.kept_epoch == 3
    assert all(torch.equal(value, trained.state[name]) for name, value in student.state_dict().items())


def test_without_validation_the_last_epoch_is_kept(training) -> None:
    trained, student, _ = training()
    assert trained.kept_epoch == 3
    assert trained.val == []
    assert all(torch.equal(value, trained.state[name]) for name, value in student.state_dict().items())


def test_two_batches_make_one_update_where_gradients_are_accumulated(training) -> None:
    """Twelve batches, an update after every five; the end has one of its own."""
    seen = []
    recipe = dataclasses.replace(with_optimizer(accumulation=5), epochs=4)
    _, _, log = training(
        recipe, validate=lambda student: seen.append(student.text_projection.weight.clone()) or 0
    )
    updated = [line["step"] for line in log if "gradient_norm" in line]
    assert updated == [4, 9, 11]
    assert torch.equal(seen[0], torch.eye(len(seen[0])))
    assert not torch.equal(seen[1], seen[0])


@pytest.mark.parametrize("accumulation", [3, 5])
def test_accumulated_gradients_are_the_mean_of_their_batches(
    oracle: TeacherReader, accumulation: int
) -> None:
    """Of three also where five were wanted, since no more were left."""
    task, stream = task_and_stream(oracle)
    with stream.steps(0, 3, False, torch.device("cpu")) as feed:
        sum(task(step.batch)["loss"] for step in feed).backward()
    expected = torch.cat([p.grad.flatten() / 3 for p in task.parameters()]).norm()
    task, stream = task_and_stream(oracle)
    log = Lines()
    recipe = dataclasses.replace(with_optimizer(accumulation=accumulation), epochs=1)
    train(task, stream, recipe, RATE, Watch("a test", logs=[log]))
    assert log[2]["gradient_norm"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"channels_last": True}])
def test_options_of_speed_change_a_training_only_a_little(training, change: dict) -> None:
    plain, changed = training()[2], training(dataclasses.replace(RECIPE, **change))[2]
    assert changed[0]["loss"] == pytest.approx(plain[0]["loss"], rel=0.02)
    assert changed[-1]["loss"] == pytest.approx(plain[-1]["loss"], rel=0.2)


def test_the_official_optimiser_trains(training) -> None:
    recipe = with_optimizer(name="bert_adam", schedule="official_cosine", undecayed=("bias",))
    log = training(recipe)[2]
    assert log[0]["learning_rate"] == 0
    assert log[-1]["loss"] < log[0]["loss"]


def test_a_loss_that_is_not_a_number_stops_the_training_and_names_step_and_rows(
    training, monkeypatch
) -> None:
    broken = afa.LossTerm(
        lambda outputs, batch: PerRow(outputs["logits"].rows.mean(1) * math.nan), reads=("logits",)
    )
    monkeypatch.setitem(afa.LOSSES, "info_nce", broken)
    named = (
        r"step 0: loss is nan.*; 16 of 16 rows came out so: clip_\d+ \('meaning \d+, .*'\), .* and 12 more"
    )
    with pytest.raises(NonFiniteError, match=named):
        training()


def test_the_row_that_breaks_the_loss_of_a_batch_is_named_alone(training, monkeypatch) -> None:
    """Its video comes out as NaN, so that the loss of every row that it is compared with is NaN too."""
    encode = afa.AfaStudent.encode_videos

    def breaking(student, batch):
        outputs = encode(student, batch)
        broken = torch.arange(len(outputs["video_embedding"])) == 3
        return {
            **outputs,
            "video_embedding": outputs["video_embedding"].masked_fill(broken[:, None], math.nan),
        }

    monkeypatch.setattr(afa.AfaStudent, "encode_videos", breaking)
    with pytest.raises(
        NonFiniteError, match=r"; 1 of 16 rows came out so: clip_\d+ \('meaning[^()]*'\); choose"
    ):
        training()


def test_a_teacher_that_says_too_little_stops_the_training(training, monkeypatch) -> None:
    def half(outputs: dict, batch: dict) -> PerRow:
        return PerRow(outputs["logits"].rows.mean(1), torch.arange(16) < 8)

    silent = afa.LossTerm(half, reads=("logits",), needs=("pair_scores",))
    monkeypatch.setitem(afa.LOSSES, "coarse_pearson", silent)
    log = training(dataclasses.replace(RECIPE, losses={"coarse_pearson": 1.0}))[2]
    assert log[0]["taught_share"] == 0.5
    demanding = dataclasses.replace(RECIPE, losses={"coarse_pearson": 1.0}, least_taught_share=0.6)
    with pytest.raises(InputError, match=r"something about 50.0% .* less than 60%"):
        training(demanding)


def test_a_second_teacher_teaches_through_its_role(oracle: TeacherReader) -> None:
    weights = {"coarse_pearson": 1.0, "coarse_pearson@second": 1.0, "fine_cross_entropy_sum@second": 1.0}
    task = Task(afa.build(RECIPE.model, SIZES), afa.LOSSES, weights)
    assert set(task.needs) == {
        "frame_embedding",
        "text_embedding",
        "pair_scores",
        "pair_scores@second",
        "frame_relevance@second",
    }
    recipe = dataclasses.replace(RECIPE, losses=weights, epochs=1)
    _, stream = task_and_stream(oracle, recipe)
    log = Lines()
    train(task, stream, recipe, RATE, Watch("a test", logs=[log]))
    assert (
        log[0]["coarse_pearson@second"] == log[0]["coarse_pearson"] > 0
    )  # an empty role is the main teacher's


def test_parameters_that_only_teaching_trains_are_left_out_without_a_teacher(oracle: TeacherReader) -> None:
    task, stream = task_and_stream(oracle)
    task.student.serves = {"attention.": ("frame_weight",)}
    untaught = Task(task.student, afa.LOSSES, {"info_nce": 1.0})
    before = task.student.attention.score.weight.clone()
    train(untaught, stream, dataclasses.replace(RECIPE, epochs=1), RATE, Watch("a test"))
    assert torch.equal(task.student.attention.score.weight, before)


def test_a_finished_training_leaves_no_checkpoint(oracle: TeacherReader, tmp_path) -> None:
    task, stream = task_and_stream(oracle)
    checkpoints = Checkpoints(tmp_path / "checkpoints", every_steps=5)
    train(task, stream, RECIPE, RATE, Watch("a test", checkpoints=checkpoints))
    assert len(list((tmp_path / "checkpoints").glob("step-*.json"))) == 2
    checkpoints.clear()
    assert not (tmp_path / "checkpoints").exists()


def test_the_log_tells_the_rate_of_every_group_of_parameters(training) -> None:
    log = training(with_optimizer(lr_scale={"attention.": 10.0}))[2]
    assert all(line["learning_rate_attention."] == pytest.approx(10 * line["learning_rate"]) for line in log)
