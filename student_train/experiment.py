"""From a cache to trained students: which trainings a run needs, and each of them.

The learning rate is chosen on val for the untaught arm, by the mean over seeds of the kept epoch's SumR
(text to video), and the taught arm gets the same one, so that teaching is measured at equal rate and
steps. If only the taught arm is asked for, it is chosen for that one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from store.errors import InputError
from store.lookup import check_name, load_plugin
from store.reader import Cache, TeacherReader
from student_train import students
from student_train.checkpoint import Checkpoints, StepLog, load_story, save_training
from student_train.config import DRAWN, KEEP_BEST_ON_TEST, TAUGHT, TEST_SPLIT, UNTAUGHT, VAL_SPLIT
from student_train.distributed import from_first, rank
from student_train.evaluation.scoring import EvaluationRows, evaluation_rows, validation_score
from student_train.guard import TerminatedError, UnchangedCache
from student_train.needs import PIXELS, split_role
from student_train.recipe_list import require_known_roles
from student_train.renditions import drawn_renditions
from student_train.row_tensors import require_rows, whole_tensors
from student_train.run_folder import Choice, RunFolder, identity_of, pinned_digests
from student_train.smoke import smoke_step
from student_train.stream import TrainingStream, order_of, order_story, require
from student_train.students.base import Student, Task, losses_of
from student_train.teachers import Teachers
from student_train.tracking import Trackers, service_module
from student_train.trainer import Watch, train
from student_train.training_rows import PairedRows, few_of_each, training_rows
from student_train.video_files import require_videos

if TYPE_CHECKING:
    from store.decoded_frames import DecodedFrames

CHECKPOINTS = "checkpoints"
LONG_S = 60.0


@dataclass(frozen=True)
class Selection:
    """Which trainings stand for an arm, and why.

    learning_rate: the chosen one. tried: rate -> val SumR of each seed's kept epoch, empty
    without a val split.
    chosen_for: the arm that it was chosen for, None if there was nothing to choose.
    """

    learning_rate: float
    chosen_for: str | None = None
    tried: Mapping[float, list[float]] = field(default_factory=dict)


class Experiment:
    """The trainings of one run; a finished one is never trained again.

    track: services that are told every step, besides TensorBoard. frames: decoded from videos, by view, in
    place of what the cache keeps. saving: options of `Checkpoints`.
    Raises UnknownNameError or InputError before the first step if the cache lacks what a loss needs.
    """

    saving: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        cache: Cache,
        run: RunFolder,
        choice: Choice,
        track: Sequence[str] = (),
        frames: Mapping[str, DecodedFrames] = MappingProxyType({}),
    ) -> None:
        self.cache = cache
        self.run = run
        self.choice = choice
        self.track = track
        self.teacher: TeacherReader = cache.teacher(choice.teacher)
        self.module: ModuleType = load_plugin(students, "student", choice.student)
        others = {role: cache.teacher(name) for role, name in choice.roles.items()}
        self.teachers = Teachers(self.teacher, others, choice.recipe.classes, frames)
        self.recognises: bool = choice.recipe.model.recognises
        self.rows: PairedRows = training_rows(cache, self.teachers, self.recognises)
        self.frames = frames
        self.unchanged = UnchangedCache(cache, lambda found: pinned_digests(found, choice.teachers))
        wanted = TEST_SPLIT if choice.recipe.keep == KEEP_BEST_ON_TEST else VAL_SPLIT
        self.scored_split = wanted if wanted in cache.splits else None
        self.val: EvaluationRows | None = None
        if self.scored_split is not None:
            self.val = evaluation_rows(cache, self.teachers, self.scored_split, self.recognises)

    def check(self, arms: Sequence[str]) -> None:
        """Refuse what would fail later: a missing signal, a batch too large, rates without a val split."""
        for service in self.track:
            service_module(service)
        self.check_roles(arms)
        self.check_parameters()
        needs = [need for arm in arms for need in self.stream(self.task(arm), seed=0).needs]
        self.check_videos(PIXELS in needs)
        if self.cache.partial.lacks:
            self.check_rows(arms, needs)
        rates = self.choice.recipe.optimizer.lr
        if self.scored_split == TEST_SPLIT and len(rates) > 1:
            raise InputError(
                f"keep is {KEEP_BEST_ON_TEST!r}, so epochs are scored on {TEST_SPLIT!r}, where no learning "
                f"rate is chosen; give one of {', '.join(map(str, rates))} with --learning-rates"
            )
        if self.val is None and len(rates) > 1:
            raise InputError(
                f"{self.cache.path.name} has no split {VAL_SPLIT!r} to choose one of {len(rates)} learning "
                "rates on; give one with --learning-rates (its last epoch is then kept)"
            )

    def check_rows(self, arms: Sequence[str], needs: Sequence[str]) -> None:
        """Refuse a partial copy that lacks rows which are trained on, chosen by or measured."""
        require_rows(self.teachers, needs, self.rows.video, self.rows.text)
        read = [need for arm in arms for need in self.choice.recipe.model_of(arm).needs]
        held_out = {TEST_SPLIT} if self.scored_split is None else {TEST_SPLIT, self.scored_split}
        for split in sorted(held_out):
            rows = evaluation_rows(self.cache, self.teachers, split, self.recognises)
            require_rows(self.teachers, read, rows.video, rows.text.ravel())

    def check_parameters(self) -> None:
        """Refuse what was told of the learning of parameters that there are not; a recipe's own settings may
        be of another way in."""
        wanted, named = self.choice.recipe.optimizer, self.module.RECIPES[self.choice.recipe_name].optimizer
        names = [name for name, _ in self.student(TAUGHT).named_parameters()]
        begins = sorted({f"{name.partition('.')[0]}." for name in names})
        for start in wanted.lr_scale.keys() - named.lr_scale.keys():
            if not any(name.startswith(start) for name in names):
                check_name("beginning of parameters in optimizer.lr_scale", start, begins)
        for part in set(wanted.undecayed or ()) - set(named.undecayed or ()):
            if not any(part in name for name in names):
                check_name("part of a parameter's name in optimizer.undecayed", part, begins)

    def check_roles(self, arms: Sequence[str]) -> None:
        """Refuse a loss of a teacher that nobody named, for whom the main one would stand in unnoticed, and a
        role that no loss or model of the student knows."""
        recipe, roles = self.choice.recipe, self.choice.roles
        for name in (name for arm in arms for name in recipe.weights(arm)):
            role = split_role(name)[1]
            if role and role not in roles:
                raise InputError(
                    f"loss {name!r} is taught by the teacher in the role {role!r}, which nobody fills; name "
                    f"one with --role {role}=TEACHER"
                )
        require_known_roles(self.module, recipe, roles)

    def check_videos(self, read: bool) -> None:
        """Raises what `require_videos` does for the rows of training and evaluation."""
        held_out = [
            self.cache.split(name).video for name in (VAL_SPLIT, TEST_SPLIT) if name in self.cache.splits
        ]
        rows = np.concatenate([self.rows.video, *held_out])
        rows = rows[self.teachers.video_usable[rows]]
        require_videos(self.frames, self.choice.student, read, rows)

    def select_and_train(self, arms: Sequence[str], seeds: Sequence[int]) -> Selection:
        """Train every arm with every seed at the selected learning rate."""
        selection = self.select(UNTAUGHT if UNTAUGHT in arms else TAUGHT, seeds)
        for arm in arms:
            for seed in seeds:
                self.finished(arm, selection.learning_rate, seed)
        return selection

    def select(self, arm: str, seeds: Sequence[int]) -> Selection:
        """The learning rate with the best mean val score for `arm`; of equals the first."""
        rates = self.choice.recipe.optimizer.lr
        stories = {rate: [self.finished(arm, rate, seed) for seed in seeds] for rate in rates}
        if self.val is None:
            return Selection(rates[0])
        tried = {rate: [kept_score(story) for story in of_rate] for rate, of_rate in stories.items()}
        best = max(tried, key=lambda rate: fmean(tried[rate]))
        return Selection(best, arm if len(rates) > 1 else None, tried)

    def finished(self, arm: str, learning_rate: float, seed: int) -> dict[str, Any]:
        """The story of a training, which is trained now unless it lies in the run folder."""
        folder = self.run.training(arm, learning_rate, seed)
        story = from_first(load_story(folder) if rank() == 0 else None)
        if story is None:
            story = self.train(arm, learning_rate, seed, folder)
            best = (
                f"{self.scored_split} score {kept_score(story):.1f} in epoch"
                if story["val"]
                else "kept epoch"
            )
            name = f"{arm:8}  learning rate {learning_rate:<7g}  seed {seed}"
            epochs = f"{story['kept_epoch'] + 1} of {story['epochs']}"
            if rank() == 0:
                print(f"{name}:  {best} {epochs}, {story['seconds']:.1f} s", flush=True)
        return story

    def train(self, arm: str, learning_rate: float, seed: int, folder: Path) -> dict[str, Any]:
        """Train one student from `seed`, which decides its parameters and the order of rows; save it."""
        recipe = self.choice.recipe
        torch.manual_seed(seed)
        task = self.task(arm)
        started_from = self.started(task.student)
        stream = self.stream(task, seed)
        label = f"{arm}, learning rate {learning_rate:g}, seed {seed}"
        told = {"arm": arm, "learning_rate": learning_rate, "seed": seed}
        with ExitStack() as logs:
            checkpoints, watch = self.watch(label, folder, told, logs)
            trained = train(task, stream, recipe, learning_rate, watch)
        story = {
            "arm": arm,
            "learning_rate": learning_rate,
            "losses": task.weights,
            "started_from": started_from,
            "epochs": recipe.epochs,
            "steps": trained.step,
            **order_story(stream.order),
            "rows_without_video": self.rows.left_out,
            "kept_epoch": trained.kept_epoch,
            "epoch_chosen_on": self.scored_split,
            "val": trained.val,
            "seconds": trained.seconds,
        }
        if rank() == 0:
            save_training(folder, trained.state, story)
            checkpoints.clear()
        if trained.asked_to_end:
            raise TerminatedError(f"{label}: SIGTERM came with its last step; it is finished and saved")
        return story

    def started(self, student: Student) -> dict[str, Any]:
        """Let `student` take over public weights, and what the teachers stored of themselves; its record."""
        needs = student.config.starts_from
        return {**student.start(), **student.take_over(whole_tensors(self.teachers, needs))}

    def watch(
        self, label: str, folder: Path, told: Mapping[str, Any], logs: ExitStack
    ) -> tuple[Checkpoints, Watch]:
        """Checkpoints and logs of the training in `folder`; `logs` closes them."""
        lines = StepLog(folder)
        opened: list[StepLog | Trackers] = []

        def write_out() -> None:
            for log in opened:
                log.flush()

        checkpoints = Checkpoints(folder / CHECKPOINTS, before_saving=write_out, **self.saving)
        if rank() == 0:
            logs.callback(lines.close)
            settings = {**identity_of(self.cache, self.choice), **told}
            services = Trackers(folder, self.track, settings, checkpoints.step())
            opened = [lines, logs.enter_context(services)]
        validate = self.validate if self.val else None
        return checkpoints, Watch(label, validate, opened, self.unchanged, checkpoints)

    def try_out(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        """A batch of every arm through everything; tells what a long job will take, by the last arm."""
        began = time.perf_counter()
        for arm in arms:
            task = self.task(arm)
            self.started(task.student)
            stream = self.stream(task, seed=0)
            estimate = smoke_step(task, stream, self.choice.recipe)
        steps = self.choice.recipe.epochs * stream.steps_per_epoch
        trainings = len(seeds) * (len(self.choice.recipe.optimizer.lr) + len(arms) - 1)
        if rank() == 0 and estimate.step_s * steps * trainings > LONG_S:
            tried_s = time.perf_counter() - began
            print(f"tried a batch in {tried_s:.0f} s: {estimate.told(steps, trainings)}", flush=True)

    def validate(self, student: Student) -> float:
        """The score of an epoch on the split that it is chosen on."""
        assert self.val is not None
        return validation_score(student, self.teachers, self.val)

    def task(self, arm: str) -> Task:
        recipe = self.choice.recipe
        return Task(self.student(arm), losses_of(self.module, recipe.model_of(arm)), recipe.weights(arm))

    def student(self, arm: str) -> Student:
        """A new student of `arm` for the teacher's signals; raises UnknownNameError if it lacks one."""
        config = self.choice.recipe.model_of(arm)
        shaped_by = (*config.needs, *config.shaped_by, *config.starts_from)
        require(self.teachers, shaped_by)
        return self.module.build(config, self.teachers.sizes(shaped_by))

    def stream(self, task: Task, seed: int) -> TrainingStream:
        """Every arm of a run sees the same rows, also where a teacher knows only the batches of a plan."""
        recipe, rows, batch_size = self.choice.recipe, self.rows, self.choice.recipe.batch_size
        if recipe.shots is not None:
            rows = few_of_each(rows, recipe.shots, seed)
            batch_size = min(batch_size, len(rows.text))
        taught = self.task(TAUGHT).needs
        order = order_of(rows, self.teachers, taught, batch_size, seed)
        drawn = drawn_renditions(self.teachers, task.needs, seed) if recipe.renditions == DRAWN else None
        return TrainingStream(rows, self.teachers, task.needs, order, drawn)


def kept_score(story: Mapping[str, Any]) -> float:
    """The score of the epoch that a training kept, on the split that epochs are scored on."""
    score: float = story["val"][story["kept_epoch"]]
    return score
