"""Stage 2 on the command line: train students from a cache, evaluate and report what came out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from store.cli import HelpFormatter, add_debug, at_least_one, run_cli
from store.lookup import plugin_names
from student_train import students
from student_train.config import ARMS


def numbers(kind: type[int] | type[float]) -> Callable[[str], tuple[float, ...]]:
    """A parser of "a,b,c" into distinct numbers of `kind`, none below 0."""

    def parse(text: str) -> tuple[float, ...]:
        try:
            values = tuple(kind(part) for part in text.split(","))
        except ValueError:
            values = ()
        if not values or len(set(values)) < len(values) or not all(0 <= value < 2**63 for value in values):
            what = "whole numbers" if kind is int else "numbers"
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of different {what} like 1,2,3")
        return values

    return parse


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

    add_train_options(command("train", "train students from a cache, untaught and taught, and compare them"))
    evaluate = command("evaluate", "repeat a run's numbers from its saved students; exit 1 if they differ")
    report = command("report", "print a run's table, and write it and the picture anew, from results.json")
    for parser_of_run in (evaluate, report):
        parser_of_run.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    evaluate.add_argument(
        "--cache", type=Path, default=argparse.SUPPRESS, help="the cache, if it has moved since"
    )
    return parser


def add_train_options(parser: argparse.ArgumentParser) -> None:
    unset = argparse.SUPPRESS
    parser.add_argument("cache", metavar="CACHE", type=Path, help="a complete cache, from teacher_dump")
    parser.add_argument(
        "--out",
        metavar="RUN",
        type=Path,
        required=True,
        default=unset,
        help="folder of the run; goes on with it",
    )
    parser.add_argument("--student", default="afa", help=f"one of: {', '.join(plugin_names(students))}")
    parser.add_argument(
        "--recipe", help="a recipe of the student (default: demo for the demo's teacher, else teachclip)"
    )
    parser.add_argument("--teacher", default=unset, help="whose signals; not needed if there is one")
    parser.add_argument(
        "--threads",
        type=at_least_one,
        default=1,
        help="CPU threads of torch; small students get slower with more",
    )
    parser.add_argument("--seeds", type=numbers(int), default="0,1,2", help="one training of each arm a seed")
    parser.add_argument("--arms", default=",".join(ARMS), help="which of them to train")
    parser.add_argument(
        "--epochs", type=at_least_one, default=unset, help="passes over the rows (default: the recipe's)"
    )
    parser.add_argument(
        "--batch-size",
        type=at_least_one,
        default=unset,
        help="training rows of a step (default: the recipe's)",
    )
    parser.add_argument(
        "--learning-rates",
        metavar="A,B,...",
        type=numbers(float),
        default=unset,
        help="grid to choose from on val, for the untaught arm (default: the recipe's)",
    )


def run(options: argparse.Namespace) -> int:
    """Run one command: 0, or 1 if evaluate found other numbers."""
    from student_train import commands

    status: int = getattr(commands, options.command)(options)
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, see `store.cli.run_cli`."""
    return run_cli(make_parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
