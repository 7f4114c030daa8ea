"""python -m student_train ablate: a paper's ablation, a training a row and seed, beside the paper's numbers.

All rows have the same model (but for what only their losses need), teacher, seeds, batches, epochs and
learning rate. A finished training is never repeated, so rows and seeds may be added to a folder.

    <run>/<row>/           a run each, see `run_folder`
    <run>/ablation.json    what came out
    <run>/ablation.md      the table
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from store.durable import write_file
from store.errors import InputError
from store.lookup import check_name, load_plugin
from store.reader import Cache, open_cache
from store.retrieval_metrics import TEXT_TO_VIDEO, VIDEO_TO_TEXT
from student_train import students
from student_train.ablation_row import AblationRow
from student_train.checkpoint import readable_json
from student_train.config import TAUGHT, TEST_SPLIT
from student_train.configuration import Configuration, Told, read_settings
from student_train.evaluation.measure import TEACHER, measure
from student_train.evaluation.request import Request
from student_train.experiment import Experiment
from student_train.guard import require_trusted
from student_train.run_folder import SETTINGS_FILE, Choice, RunFolder
from student_train.video_files import opened_videos

if TYPE_CHECKING:
    from store.decoded_frames import DecodedFrames

DIRECTIONS = {"t2v": TEXT_TO_VIDEO, "v2t": VIDEO_TO_TEXT}
SHOWN = ("R@1", "SumR")
RESULTS, TABLE = "ablation.json", "ablation.md"


def ablate(options: argparse.Namespace) -> int:
    """Train and measure the rows that are asked for, write what came out, print the table."""
    cache = open_cache(options.cache)
    file = read_settings(options.config) if hasattr(options, "config") else {}
    configuration = Told(file, getattr(options, "words", ())).resolve(cache)
    if options.print_config:
        print(configuration.to_yaml(), end="")
        return 0
    if not hasattr(options, "out"):
        raise InputError("name the folder of the runs: --out RUN")
    rows = chosen_rows(configuration.run.student, options.rows)
    if not options.despite_report:
        require_trusted(cache, Choice.of(configuration).teachers)
    cache.split(TEST_SPLIT)
    torch.set_num_threads(configuration.run.threads)
    with opened_videos(options, cache, Choice.of(configuration).teachers) as frames:
        experiments = {
            row.label: experiment_of(cache, options.out, configuration, row, frames) for row in rows
        }
        for experiment in experiments.values():
            experiment.check((TAUGHT,))
        found = {
            label: measured(experiment, configuration, label) for label, experiment in experiments.items()
        }
    results = {
        **told_of(configuration, cache),
        "rows": [{"label": row.label, "paper": list(row.paper), **found[row.label]} for row in rows],
    }
    table = markdown(results)
    write_file(options.out / RESULTS, readable_json(results))
    write_file(options.out / TABLE, table.encode())
    print(table, end="")
    return 0


def told_of(configuration: Configuration, cache: Cache) -> dict[str, Any]:
    """What all rows have alike."""
    run, recipe = configuration.run, configuration.recipe
    return {
        "student": run.student,
        "recipe": run.recipe,
        "teacher": run.teacher,
        "cache": cache.digest,
        "seeds": list(run.seeds),
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.optimizer.lr[0],
    }


def chosen_rows(student: str, wanted: Sequence[str]) -> list[AblationRow]:
    """Rows of the student's ABLATION, those named or all; raises UnknownNameError, InputError without any."""
    module = load_plugin(students, "student", student)
    rows: tuple[AblationRow, ...] = getattr(module, "ABLATION", ())
    if not rows:
        raise InputError(f"student {student!r} has no ablation; train its recipes one by one")
    for label in wanted:
        check_name("row", label, [row.label for row in rows])
    return [row for row in rows if not wanted or row.label in wanted]


def experiment_of(
    cache: Cache,
    out: Path,
    configuration: Configuration,
    row: AblationRow,
    frames: Mapping[str, DecodedFrames],
) -> Experiment:
    """The run of one row; raises InputError for several learning rates, which would be chosen by row."""
    rates = configuration.recipe.optimizer.lr
    if len(rates) > 1:
        raise InputError(
            f"an ablation has one learning rate, not {list(rates)}; give one by --learning-rates"
        )
    module = load_plugin(students, "student", configuration.run.student)
    recipe = module.ablated(configuration.recipe, row.losses)
    choice = replace(Choice.of(configuration), recipe=recipe)
    return Experiment(cache, RunFolder(out / row.folder), choice, configuration.run.track, frames)


def measured(experiment: Experiment, configuration: Configuration, label: str) -> dict[str, Any]:
    """Train what is missing of a row; direction -> metric -> mean, std, per_seed, of student and teacher."""
    print(f"-- {label}", flush=True)
    experiment.run.pin(experiment.cache, experiment.choice)
    of_row = Configuration(replace(configuration.run, arms=(TAUGHT,)), experiment.choice.recipe)
    experiment.run.write(SETTINGS_FILE, of_row.to_yaml().encode())
    seeds, rates = configuration.run.seeds, configuration.recipe.optimizer.lr
    selection = experiment.select_and_train((TAUGHT,), seeds)
    request = Request((TAUGHT,), seeds, rates, configuration.run.evaluation)
    found = measure(experiment, request, selection.learning_rate)
    return {"student": found[TAUGHT], "teacher": found[TEACHER]}


def markdown(results: Mapping[str, Any]) -> str:
    """The table: ours with its spread over seeds, the paper's R@1 beside it."""
    seeds = ", ".join(str(seed) for seed in results["seeds"])
    head = [f"{metric} {way}" for way in DIRECTIONS for metric in SHOWN]
    head += [f"paper {way}" for way in DIRECTIONS]
    lines = [
        f"# Ablation of {results['student']} (recipe {results['recipe']}), taught by {results['teacher']}",
        "",
        f"Test split, percent; mean ± standard deviation over seeds {seeds}. Every row: {results['epochs']} "
        f"epochs of batches of {results['batch_size']}, learning rate {results['learning_rate']:g}. The "
        "paper's are R@1 of another dataset and backbone: its order is to be compared, not its height.",
        "",
        "| losses | " + " | ".join(head) + " |",
        "| --- " * (len(head) + 1) + "|",
    ]
    teacher = results["rows"][0]["teacher"]
    if "absent" not in teacher:
        lines.append(f"| (teacher) | {' | '.join(cells(teacher))} | | |")
    for row in results["rows"]:
        paper = " | ".join(f"{value:.1f}" for value in row["paper"])
        lines.append(f"| {row['label']} | {' | '.join(cells(row['student']))} | {paper} |")
    return "\n".join(lines) + "\n"


def cells(table: Mapping[str, Any]) -> list[str]:
    found = [table[direction][metric] for direction in DIRECTIONS.values() for metric in SHOWN]
    return [
        f"{one['mean']:.1f} ± {one['std']:.1f}" if len(one["per_seed"]) > 1 else f"{one['mean']:.1f}"
        for one in found
    ]
