"""python -m teacher_dump reencode: a finished teacher's signals in another encoding, beside the first."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from store.cli import HelpFormatter, add_debug
from store.errors import InputError
from store.inputs.datasets import load_dataset
from teacher_dump.dump_options import parse_encodings


def add_command(commands: Any) -> None:
    """`python -m teacher_dump reencode`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "reencode", help="store a finished teacher's signals another way", formatter_class=HelpFormatter
    )
    parser.set_defaults(execute=execute)
    parser.add_argument("cache", type=Path, help="a finished cache")
    parser.add_argument("--dataset", required=True, help="of the cache, as it was dumped")
    parser.add_argument("--data", type=Path, help="its folder or file (default: data/<dataset>)")
    parser.add_argument("--allow-missing", action="store_true", help="as it was dumped")
    parser.add_argument("--teacher", required=True, help="whose signals")
    parser.add_argument("--name", required=True, help="of the new teacher, e.g. xclip-int8")
    parser.add_argument("--encoding", action="append", default=[], metavar="SIGNAL=ENCODING",
                        help="e.g. vit_layers=int8; may be repeated")  # fmt: skip
    add_debug(parser)


def execute(arguments: argparse.Namespace) -> int:
    encodings = parse_encodings(arguments.encoding)
    data = arguments.data or Path("data") / arguments.dataset
    if not encodings:
        raise InputError("nothing to re-encode; say what, e.g. --encoding vit_layers=int8")

    from store.card import write_card
    from store.info import describe
    from store.made import read_made, record_made
    from teacher_dump.reencode import reencode

    samples = load_dataset(arguments.dataset, data, arguments.allow_missing)
    reencode(arguments.cache, samples, arguments.teacher, arguments.name, encodings)
    record_made(arguments.cache, arguments.name, read_made(arguments.cache, arguments.teacher))
    write_card(arguments.cache)
    print(describe(arguments.cache))
    return 0
