"""Strings of strangers in Markdown and YAML: they are shown, and never become markup, a link or a script."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence

from store.untrusted import printable

MARKUP = re.compile(r"([\\`*{}\[\]<>&#|~!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
"""A "_" between letters marks nothing up."""
COLUMNS = 90
SHOWN_LETTERS = 300


def escaped(text: object) -> str:
    """`text` on one line, for any place behind the first letter of a line: a heading, a sentence, a cell."""
    return MARKUP.sub(r"\\\1", printable(str(text), SHOWN_LETTERS))


def yaml_string(text: object) -> str:
    """`text` as a quoted scalar of YAML: JSON's spelling, which YAML shares."""
    return json.dumps(printable(str(text), SHOWN_LETTERS), ensure_ascii=False)


def table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table; the first row is its head. Cells are escaped."""
    lines = [f"| {' | '.join(map(escaped, row))} |" for row in rows]
    return [lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]]


def shell(words: Iterable[str]) -> list[str]:
    """Lines of a command of the shell, each word quoted so that nothing in it is obeyed."""
    lines = [""]
    for word in words:
        quoted = shlex.quote(printable(word, SHOWN_LETTERS))
        if lines[-1] and len(lines[-1]) + len(quoted) > COLUMNS:
            lines[-1] += " \\"
            lines.append(f"    {quoted}")
        else:
            lines[-1] += f" {quoted}" if lines[-1] else quoted
    return lines


def fenced(language: str, lines: Iterable[str]) -> list[str]:
    """A block of code."""
    return [f"```{language}", *lines, "```"]
