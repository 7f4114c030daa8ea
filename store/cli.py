"""What the three commands share: one clear line for an error, a stack trace only with --debug."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from store.errors import CacheError
from store.untrusted import printable

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
LARGEST = 1_000_000


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


def run_cli(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse `argv` and call its `execute(arguments) -> exit status`.

    A CacheError or an error of the file system becomes one line on stderr and exit status 2, Ctrl-C
    130; anything else is a bug and keeps its stack trace.
    """
    arguments = parser.parse_args(argv)
    try:
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
