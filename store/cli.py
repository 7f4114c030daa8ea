"""What the three commands share: one clear line for an error, a stack trace only with --debug."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from store.errors import CacheError, InputError
from store.untrusted import is_url, printable

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
LARGEST = 1_000_000
_COLLAPSED_URL = re.compile(r"(s3|gs|hf|sftp|https?|file):/")


class HelpFormatter(argparse.HelpFormatter):
    """Adds "(default: x)" to the help of every option that has a default and does not tell it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.default in (None, False, argparse.SUPPRESS) or "default" in (action.help or "")
        return action.help if told or action.required else f"{action.help} (default: %(default)s)"


def add_debug(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--debug", action="store_true", help="show the stack trace of an error")


def at_least_one(text: str) -> int:
    """A whole number from 1 to a million, for argparse."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {LARGEST:,}")
    return number


def from_zero(text: str) -> int:
    """A whole number from 0 to a million, for argparse."""
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {LARGEST:,}")
    return number


def size_in_bytes(text: str) -> str:
    """The bytes of "20GB", in digits, for argparse."""
    from store.remote.streaming import parse_size

    try:
        return str(parse_size(text))
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def cache_place(text: str) -> Path | str:
    """Where a cache lies that is only read, for argparse: a folder as a Path, a URL as it stands."""
    return text if is_url(text) else Path(text)


class ToEnvironment(argparse.Action):
    """Puts what an option says into the variable `const`, where this process and its children look."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, text: Any, option: Any = None
    ) -> None:
        os.environ[self.const] = text


def add_chunk_cache(parser: argparse.ArgumentParser) -> None:
    """Options of a command that may read a cache from a URL, see `store.remote.streaming`."""
    for option, metavar, kind, variable, text in (
        (
            "--chunk-cache",
            "DIR",
            str,
            "TEACHER_CACHE_CHUNKS",
            "keep here what is read from a URL (default: $%s, else "
            "video-text-teacher-cache in the user's cache folder)",
        ),
        (
            "--chunk-cache-size",
            "SIZE",
            size_in_bytes,
            "TEACHER_CACHE_CHUNKS_SIZE",
            "its largest size, as 500MB (default: $%s, else 20GB)",
        ),
    ):
        parser.add_argument(
            option,
            metavar=metavar,
            type=kind,
            action=ToEnvironment,
            const=variable,
            default=argparse.SUPPRESS,
            help=text % variable,
        )


def require_folders(arguments: argparse.Namespace) -> None:
    """Raise InputError for a URL where a command needs a folder; what may be a URL is no Path."""
    for value in vars(arguments).values():
        if isinstance(value, Path) and _COLLAPSED_URL.match(str(value)):
            raise InputError(
                f"{value.parts[0]}//... is a URL, and this command works on a folder of this machine; pull "
                "the cache first: python -m store pull URL DIR"
            )


def run_cli(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse `argv` and call its `execute(arguments) -> exit status`.

    A CacheError or an error of the file system becomes one line on stderr and exit status 2, Ctrl-C
    130; anything else is a bug and keeps its stack trace.
    """
    arguments = parser.parse_args(argv)
    try:
        require_folders(arguments)
        return int(arguments.execute(arguments))
    except KeyboardInterrupt:
        print("\ninterrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (CacheError, OSError) as error:
        if getattr(arguments, "debug", False):
            raise
        print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return WRONG_USE
