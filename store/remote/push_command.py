"""python -m store push CACHE URL: share a finished cache, or what was added to one, with a team."""

from __future__ import annotations

import argparse
from pathlib import Path

from store.cli import add_debug
from store.errors import InputError
from store.remote.location import Location, is_tag
from store.remote.persistence import Patience
from store.remote.pull_command import add_attempts
from store.remote.push import Terms, plan_push, push
from store.remote.source import open_remote
from store.untrusted import shown


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "push", help="share a cache, or what was added to it: s3://, gs://, hf://, sftp://, or a folder"
    )
    parser.add_argument("cache", type=Path, help="folder of the cache")
    parser.add_argument("url", metavar="URL", help="where to; what lies there is added to, never rewritten")
    parser.add_argument("--tag", type=tag, metavar="NAME", help="a name for this state: pull URL@NAME")
    parser.add_argument(
        "--force",
        action="store_true",
        help="move the tag if it names another state; take over what somebody began and never finished",
    )
    parser.add_argument(
        "--sign", type=Path, metavar="KEY", help="an SSH key that signs this state (ssh-keygen -Y)"
    )
    parser.add_argument(
        "--i-may",
        action="store_true",
        help="push although the card says share: no; what you may is yours to know",
    )
    parser.add_argument("--dry-run", action="store_true", help="tell the bytes and send nothing")
    add_attempts(parser)
    parser.set_defaults(execute=run_push)
    add_debug(parser)


def tag(text: str) -> str:
    """A tag's name, for argparse."""
    if not is_tag(text):
        raise argparse.ArgumentTypeError(f"{shown(text)} is no plain name (letters, digits, '_', '-', '.')")
    return text


def run_push(arguments: argparse.Namespace) -> int:
    location = Location.parse(arguments.url)
    if location.pin:
        raise InputError(
            f"{location}: push goes to a URL without a pin; --tag {location.pin} names the state"
        )
    remote = open_remote(location, Patience(arguments.attempts))
    if arguments.dry_run:
        plan = plan_push(arguments.cache, remote)
        print(f"{len(plan.records):,} objects, {plan.bytes:,} bytes: {_groups(plan.groups)}")
        return 0
    terms = Terms(arguments.tag, arguments.force, arguments.sign, arguments.i_may)
    pushed = push(arguments.cache, remote, terms, progress=True)
    print(f"{location}: {pushed.sent:,} bytes sent ({_groups(pushed.groups)})")
    print(f"pull it as {location}@sha256:{pushed.digest}")
    if pushed.latest != pushed.digest:
        print(f"together with what others added it is {location}@sha256:{pushed.latest}")
    return 0


def _groups(groups: tuple[str, ...]) -> str:
    return ", ".join(group or "tables" for group in groups) or "nothing is new"
