"""python -m store card: print the card of a cache, or write it again; say on which terms it may be shared."""

from __future__ import annotations

import argparse
from pathlib import Path

from store.card import card_files, write_card
from store.cli import add_debug
from store.inputs.samples import NO, YES
from store.manifest import CARD, CROISSANT
from store.reader import open_cache
from store.sharing import state_terms, terms_of
from store.untrusted import printable


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "card", help="print or write the card of a cache; say on which terms it may be shared"
    )
    parser.add_argument("cache", type=Path, help="folder of a finished cache")
    parser.add_argument("--json", action="store_true", help=f"print {CROISSANT} instead of {CARD}")
    parser.add_argument("--write", action="store_true", help=f"write {CARD} and {CROISSANT} into it")
    add_terms(parser)
    parser.set_defaults(execute=run_card)
    add_debug(parser)


def add_terms(parser: argparse.ArgumentParser) -> None:
    """--licence and --share, for whoever owns the data."""
    parser.add_argument("--licence", metavar="NAME", type=licence_name,
                        help="of the data, e.g. CC-BY-4.0 (default: as the dataset says)")  # fmt: skip
    parser.add_argument("--share", choices=(YES, NO),
                        help="whether the cache may be pushed (default: if the licence is known to allow "
                        "it)")  # fmt: skip


def licence_name(text: str) -> str:
    """A name that says something, for argparse."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name is no licence")
    return text.strip()


def run_card(arguments: argparse.Namespace) -> int:
    root = arguments.cache
    cache = open_cache(root)
    if arguments.licence or arguments.share:
        state_terms(root, arguments.licence, arguments.share)
        terms = terms_of(cache)
        print(f"licence {printable(terms.licence)}; share: {terms.share_word} ({printable(terms.reason)})")
        arguments.write = True
    if arguments.write:
        write_card(root)
        print(f"written: {CARD} and {CROISSANT}")
    else:
        print(card_files(root)[CROISSANT if arguments.json else CARD], end="")
    return 0
