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
from functools import partial
from typing import Any

from store.durable import write_file
from store.errors import InputError
from store.lookup import check_name, load_plugin
from store.reader import Cache
from store.retrieval_metrics import TEXT_TO_VIDEO, VIDEO_TO_TEXT
from student_train import students
from student_train.ablation_row import AblationRow
from student_train.checkpoint import readable_json
from student_train.config import TAUGHT
from student_train.configuration import Configuration
from student_train.distributed import rank
from student_train.evaluation.measure import TEACHER
from student_train.experiment import Experiment
from student_train.run_folder import Choice
from student_train.runs import Prepared, train_and_measure, with_prepared

DIRECTIONS = {"t2v": TEXT_TO_VIDEO, "v2t": VIDEO_TO_TEXT}
SHOWN = ("R@1", "SumR")
RESULTS, TABLE = "ablation.json", "ablation.md"


def ablate(options: argparse.Namespace) -> int:
    """Train and measure the rows that are asked for, write what came out, print the table."""
    return with_prepared(options, partial(train_rows, options.rows))


def train_rows(wanted: Sequence[str], prepared: Prepared) -> None:
    """The runs of `ablate`; raises what `chosen_rows` and `row_choice` do before anything is trained."""
    configuration = prepared.configuration
    rows = chosen_rows(configuration.run.student, wanted)
    experiments = {
        row.label: prepared.experiment(prepared.out / row.folder, row_choice(configuration, row))
        for row in rows
    }
    for experiment in experiments.values():
        experiment.check((TAUGHT,))
    found = {label: measured(experiment, configuration, label) for label, experiment in experiments.items()}
    if rank():
        return
    results = {
        **told_of(configuration, prepared.cache),
        "rows": [{"label": row.label, "paper": list(row.paper), **(found[row.label] or {})} for row in rows],
    }
    table = markdown(results)
    write_file(prepared.out / RESULTS, readable_json(results))
    write_file(prepared.out / TABLE, table.encode())
    print(table, end="")


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


def row_choice(configuration: Configuration, row: AblationRow) -> Choice:
    """What one row trains; raises InputError for several learning rates, which would be chosen by row."""
    rates = configuration.recipe.optimizer.lr
    if len(rates) > 1:
        raise InputError(
            f"an ablation has one learning rate, not {list(rates)}; give one by --learning-rates"
        )
    module = load_plugin(students, "student", configuration.run.student)
    return replace(Choice.of(configuration), recipe=module.ablated(configuration.recipe, row.losses))


def measured(experiment: Experiment, configuration: Configuration, label: str) -> dict[str, Any] | None:
    """Train what is missing of a row; direction -> metric -> mean, std, per_seed, of student and teacher.

    None if not rank 0.
    """
    if rank() == 0:
        print(f"-- {label}", flush=True)
    of_row = Configuration(replace(configuration.run, arms=(TAUGHT,)), experiment.choice.recipe)
    found = train_and_measure(experiment, of_row)
    return None if found is None else {"student": found[TAUGHT], "teacher": found[TEACHER]}


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
