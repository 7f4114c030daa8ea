"""python -m store pull URL DIR: bring a cache, or a part of it, from where a team keeps it."""

from __future__ import annotations

import argparse
from pathlib import Path

from store.card import write_card
from store.cli import add_debug, at_least_one
from store.errors import InputError
from store.remote.location import Location
from store.remote.persistence import Patience
from store.remote.pull import PullPlan, plan_only, pull
from store.remote.selection import Wanted
from store.remote.source import open_remote
from store.untrusted import printable

SHOWN = 12


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "pull", help="bring a cache, or a part of it, from s3://, gs://, hf://, sftp://, http(s)://, a folder"
    )
    parser.add_argument(
        "url", metavar="URL[@PIN]", help="where it lies; @sha256:<digest> or @<tag> pins the state of it"
    )
    parser.add_argument("cache", type=Path, metavar="DIR", help="folder that becomes the cache")
    part = parser.add_argument_group("a part of it (default: all; DIR then knows what it lacks)")
    part.add_argument("--teacher", type=names, default=(), metavar="X,Y", help="only these teachers")
    part.add_argument(
        "--signals",
        type=names,
        default=(),
        metavar="A,B",
        help="only these signals (pixels: the kept frames)",
    )
    part.add_argument("--layers", type=names, default=(), metavar="2,5", help="only these vit_layers")
    part.add_argument(
        "--split", type=names, default=(), metavar="train,val", help="only rows of these splits"
    )
    parser.add_argument(
        "--verify",
        type=Path,
        metavar="KEYS",
        help="file of SSH public keys (or allowed_signers) of which one has to have signed that state",
    )
    parser.add_argument("--dry-run", action="store_true", help="tell the bytes and bring nothing")
    add_attempts(parser)
    parser.set_defaults(execute=run_pull)
    add_debug(parser)


def add_attempts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--attempts",
        type=at_least_one,
        default=Patience().attempts,
        metavar="N",
        help="how often an object is tried, with growing pauses, before the command gives up",
    )


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them, for argparse."""
    found = tuple(filter(None, (word.strip() for word in text.split(","))))
    if not found:
        raise argparse.ArgumentTypeError("names nothing")
    return found


def run_pull(arguments: argparse.Namespace) -> int:
    location = Location.parse(arguments.url)
    if location.protocol == "file" and Path(location.url) == arguments.cache.absolute():
        raise InputError(f"{arguments.cache} can't be pulled into itself; name another DIR")
    remote = open_remote(location, Patience(arguments.attempts))
    wanted = Wanted(arguments.teacher, arguments.signals, arguments.layers, arguments.split)
    if arguments.dry_run:
        print(_planned(location, plan_only(remote, arguments.cache, wanted)))
        return 0
    pulled = pull(remote, arguments.cache, wanted, progress=True, trusted=arguments.verify)
    write_card(arguments.cache)  # the one that came is of the latest state, and of all of it
    print(f"{arguments.cache}: {pulled.fetched:,} bytes pulled, sha256:{pulled.digest}")
    if pulled.beyond:
        print(f"it held more, and still does; no part of {location}: {_listed(pulled.beyond)}")
    if pulled.signer:
        print(f"signed by {pulled.signer}")
    if pulled.lacks:
        print(f"a partial copy, it lacks {_listed(pulled.lacks)}; other options of this command add to it")
    return 0


def _planned(location: Location, plan: PullPlan) -> str:
    lines = [
        f"{location} is sha256:{plan.manifest.digest}",
        f"{len(plan.records):,} objects, {plan.bytes:,} bytes, {plan.missing:,} of them to be pulled",
    ]
    if plan.lacks:
        lines.append(f"left out: {_listed(sorted(plan.lacks))}")
    return "\n".join(lines)


def _listed(paths: tuple[str, ...] | list[str]) -> str:
    shown = [printable(path.removesuffix("/c")) for path in paths[:SHOWN]]
    return ", ".join(shown) + (f", ... ({len(paths):,} in all)" if len(paths) > SHOWN else "")
