"""The command `few-shot`; what it does is in `student_train.few_shot`, imported when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from store.cli import HelpFormatter, add_debug, at_least_one
from student_train import video_files

TEXT = "train a recogniser on a few videos of each class and on all, beside its baseline"


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    add_train_options: Callable[[argparse.ArgumentParser], None],
) -> None:
    parser = commands.add_parser("few-shot", help=TEXT, description=TEXT, formatter_class=HelpFormatter)
    add_debug(parser)
    add_train_options(parser)
    video_files.add_options(parser)
    parser.add_argument(
        "--shots", metavar="K,...,all", default="1,5,all", help="videos of each class (default: %(default)s)"
    )
    parser.add_argument(
        "--few-shot-epochs",
        metavar="N",
        type=at_least_one,
        help="passes over the few videos, where they are not all (default: the recipe's)",
    )
    parser.set_defaults(execute=run)


def run(options: argparse.Namespace) -> int:
    """Run `few-shot`: 0."""
    from student_train.few_shot import few_shot

    return few_shot(options)
