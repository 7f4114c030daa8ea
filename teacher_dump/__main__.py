"""python -m teacher_dump dump | estimate | recheck | fit | teachers: videos -> a cache of signals."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from store.cli import HelpFormatter, add_debug, at_least_one, run_cli
from teacher_dump import catalogue, dump_command, estimate_command, recheck_command, report_command


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m teacher_dump", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    dump_command.add_command(commands)
    estimate_command.add_command(commands)
    fit = commands.add_parser(
        "fit", help="train the small X-CLIP teacher of the demo", formatter_class=HelpFormatter
    )
    fit.set_defaults(execute=run_fit)
    fit.add_argument("--out", type=Path, default=Path("teacher_dump/weights/demo_xclip.safetensors"),
                     help="where the weights go")  # fmt: skip
    fit.add_argument("--data", type=Path, default=Path("data/demo-fit"), help="where its clips are rendered")
    fit.add_argument(
        "--seed", type=int, default=0, help="of the initial weights and the order of the batches"
    )
    fit.add_argument("--threads", type=at_least_one, default=2, help="of torch; they change the last bits")
    add_debug(fit)
    catalogue.add_command(commands)
    report_command.add_command(commands)
    recheck_command.add_command(commands)
    return parser


def run_fit(arguments: argparse.Namespace) -> int:
    from teacher_dump.fit import FitSettings, fit_demo

    told = fit_demo(
        arguments.data, arguments.out, FitSettings(seed=arguments.seed, threads=arguments.threads)
    )
    print(f"{arguments.out}: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(build_parser()))
