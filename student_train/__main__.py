"""Stage 2 on the command line: train students from a cache, evaluate and report what came out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from store.cli import HelpFormatter, add_chunk_cache, add_debug, cache_place, run_cli
from store.lookup import plugin_names
from student_train import (
    compare_command,
    few_shot_command,
    over_splits,
    students,
    video_files,
    zero_shot_command,
)

SHORTHANDS = (
    ("--student", "student", f"one of: {', '.join(plugin_names(students))} (default: afa)"),
    ("--recipe", "recipe", "a recipe of the student (default: demo for the demo's teacher, else its first)"),
    ("--teacher", "teacher", "whose signals; not needed if there is one"),
    ("--seeds", "seeds", "one training of each arm a seed (default: 0,1,2)"),
    ("--arms", "arms", "which of them to train (default: untaught,taught)"),
    ("--threads", "threads", "CPU threads of torch; small students get slower with more (default: 1)"),
    ("--epochs", "epochs", "passes over the rows (default: the recipe's)"),
    ("--batch-size", "batch_size", "training rows of a step (default: the recipe's)"),
    (
        "--learning-rates",
        "optimizer.lr",
        "optimizer.lr: one, or several to choose from on val for the untaught arm",
    ),
    ("--track", "track", "tell these services of every step, beside TensorBoard: wandb, trackio"),
)


class Setting(argparse.Action):
    """Keeps what is said in order: (path, text) of `--set path=text`, or of a shorthand for one path."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, text: Any, option: Any = None
    ) -> None:
        path, equals, value = (self.const, "=", text) if self.const else text.partition("=")
        if self.dest == "roles":
            role, equals, value = text.partition("=")
            path = f"roles.{role}"
        if not path or not equals or not value.strip():
            raise argparse.ArgumentError(self, f"{text!r} is not like {self.metavar}")
        namespace.words = [*getattr(namespace, "words", ()), (path.strip(), value.strip())]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m student_train", description=__doc__)
    parser.set_defaults(execute=run)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    add_debug(shared)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, parents=[shared], help=text, description=text, formatter_class=HelpFormatter
        )

    train = command("train", "train students from a cache, untaught and taught, and compare them")
    add_train_options(train)
    evaluate = command("evaluate", "repeat a run's numbers from its saved students; exit 1 if they differ")
    report = command("report", "print a run's table, and write it and the picture anew, from results.json")
    for parser_of_run in (evaluate, report):
        parser_of_run.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    evaluate.add_argument(
        "--cache", type=cache_place, default=argparse.SUPPRESS, help="the cache, if it has moved since"
    )
    add_chunk_cache(evaluate)
    compare_command.add_command(commands)
    few_shot_command.add_command(commands, add_train_options)
    zero_shot_command.add_command(commands)
    over_splits.add_command(commands)
    ablate = command(
        "ablate", "train the rows of a paper's ablation alike, and print them beside the paper's"
    )
    add_train_options(ablate)
    for parser_of_frames in (train, evaluate, ablate):
        video_files.add_options(parser_of_frames)
    ablate.add_argument(
        "--row",
        dest="rows",
        metavar="ROW",
        action="append",
        default=[],
        help="only this row; may be repeated",
    )
    ablate.set_defaults(execute=run_ablation)
    recipes = command("recipes", "list recipes: their losses, what they need of the cache, how they learn")
    recipes.add_argument("--student", choices=plugin_names(students), help="only of this one (default: all)")
    recipes.set_defaults(execute=run_recipes)
    return parser


def add_train_options(parser: argparse.ArgumentParser) -> None:
    unset = argparse.SUPPRESS
    parser.add_argument(
        "cache",
        metavar="CACHE",
        type=cache_place,
        help="a complete cache, from teacher_dump: its folder, or a URL (s3://bucket/name.zarr, pinned by "
        "@sha256:<digest> or @tag), which is streamed",
    )
    add_chunk_cache(parser)
    parser.add_argument(
        "--out", metavar="RUN", type=Path, default=unset, help="folder of the run; goes on with it"
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, default=unset, help="settings as YAML, see --print-config"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action=Setting,
        default=unset,
        help="any setting, e.g. optimizer.lr=1e-4, model.heads=8, losses.info_nce=0.5; may be repeated",
    )
    parser.add_argument(
        "--role",
        dest="roles",
        metavar="ROLE=TEACHER",
        action=Setting,
        default=unset,
        help="another teacher of the cache, for losses named after its role; may be repeated",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print all settings as YAML and train nothing"
    )
    parser.add_argument(
        "--despite-report",
        action="store_true",
        help="train also if the cache's report says that a teacher misses what was published of it",
    )
    for option, path, text in SHORTHANDS:
        metavar = "A,B,..." if path in ("seeds", "arms", "optimizer.lr", "track") else path.upper()
        parser.add_argument(option, metavar=metavar, action=Setting, const=path, default=unset, help=text)


def run(options: argparse.Namespace) -> int:
    """Run one command: 0, or 1 if evaluate found other numbers."""
    from student_train import commands

    status: int = getattr(commands, options.command)(options)
    return status


def run_ablation(options: argparse.Namespace) -> int:
    """Run `ablate`: 0."""
    from student_train.ablation import ablate

    return ablate(options)


def run_recipes(options: argparse.Namespace) -> int:
    """Run `recipes`: 0."""
    from student_train.recipe_list import recipes

    return recipes(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, see `store.cli.run_cli`."""
    return run_cli(make_parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
