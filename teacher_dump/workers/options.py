"""The options of a dump that say who runs it; nobody's labels depend on them."""

from __future__ import annotations

import argparse

from store.cli import at_least_one
from teacher_dump.settings import SERIAL


def add_executor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--executor", default=SERIAL, help="who runs it: serial, local:N (N workers on this "
                        "machine), or tcp://HOST:8786, the scheduler of a dask cluster")  # fmt: skip
    parser.add_argument("--worker-memory-gb", type=at_least_one,
                        help="at which a worker of local:N is ended and its shard begun anew "
                        "(default: its share of the machine)")  # fmt: skip
