"""May a cache be shared, and under which licence: what its owner stated, or what the data's licence allows.

What is stated when the cache is dumped stands in the root's zarr.json, under its digest. What is stated later
stands in reports/sharing.json, outside every digest, and goes before it:

    {"licence": "CC-BY-4.0", "share": "no"}        either may be left out

Where nothing is stated a cache may be shared only if the data's licence is known to allow that; and one that
keeps pixels not, if the licence says that those belong to others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.contents import read_attributes
from store.durable import canonical_json, read_json, write_file
from store.errors import CacheError, NotShareableError
from store.inputs.samples import NO, NOT_STATED, YES
from store.manifest import REPORTS
from store.parts import VIEWS, groups_of
from store.reader import Cache, open_cache
from store.untrusted import known_fields, printable

STATED = f"{REPORTS}/sharing.json"
LICENCE_LETTERS = 1000
SHAREABLE = re.compile(
    r"(?:"
    r"cc0(?:-1\.0)?|cc-by(?:-nc)?(?:-sa)?(?:-(?:1\.0|2\.0|2\.5|3\.0|4\.0))?"
    r"|mit|isc|unlicense|bsd(?:-[23]-clause)?|apache(?:-license)?(?:,?-version)?(?:-2\.0)?"
    r"|odc-by(?:-1\.0)?|odbl(?:-1\.0)?|pddl(?:-1\.0)?|public-domain|free-for-any-use"
    r")(?:-licen[sc]e)?"
    r"(?P<of_captions>-for-the-(?:captions|annotations))?"
    r"(?P<of_others>;-the-(?:clips|images|videos)-belong-to-their-owners)?"
)
"""All of a licence that allows to pass on what was derived from the data, perhaps not for money: in small
letters, '-' for blanks, as SPDX or people spell it, with what our datasets add of what it covers. Creative
Commons' ND does not allow it. A word more may take it back, so a licence that says more is not known."""


@dataclass(frozen=True)
class Terms:
    """licence: of the data. share: whether the cache may be passed on. reason: why, in words."""

    licence: str
    share: bool
    reason: str

    @property
    def share_word(self) -> str:
        return YES if self.share else NO

    def to_dict(self) -> dict[str, Any]:
        return {"licence": self.licence, "share": self.share_word, "reason": self.reason}


@dataclass(frozen=True)
class Statement:
    """What somebody said of a cache; "" where nothing was said."""

    licence: str = ""
    share: str = ""

    @property
    def is_sound(self) -> bool:
        return self.share in ("", YES, NO) and len(self.licence) <= LICENCE_LETTERS


def terms_of(cache: Cache) -> Terms:
    """The terms of a finished cache. What can't be read of them keeps it at home, and says so."""
    stated = _stated(cache.path)
    if stated is None:
        reason = f"{STATED} says nothing usable; state it again with: python -m store card"
        return Terms(str(cache.dataset["licence"]), False, reason)
    licence = stated.licence or str(cache.dataset["licence"])
    share = stated.share or cache.dataset.get("share", "")
    if share:
        return Terms(licence, share == YES, "so its owner stated")
    return default_terms(licence, keeps_pixels(cache))


def default_terms(licence: str, with_pixels: bool) -> Terms:
    """What holds where nobody stated whether a cache over data of `licence` may be shared.

    with_pixels: whether it keeps frames of the videos themselves.
    """
    if licence.strip() in ("", NOT_STATED):
        return Terms(NOT_STATED, False, "the licence of the data is not stated")
    known = SHAREABLE.fullmatch(re.sub(r"[\s_]+", "-", licence.strip().lower()))
    if known is None:
        return Terms(licence, False, "the licence of the data is not known to allow it")
    if with_pixels and (known["of_captions"] or known["of_others"]):
        return Terms(licence, False, "it keeps frames, which the licence of the data does not cover")
    return Terms(licence, True, "the licence of the data allows it")


def keeps_pixels(cache: Cache) -> bool:
    """Whether a view of the cache keeps its frames, beyond the tiny thumbnails that all keep."""
    views = groups_of(filter(cache.partial.has, cache.manifest.groups), VIEWS)
    for view in views:
        cache.group_manifest(view.path)  # of a streamed cache, brings what is told of the view
    return any(read_attributes(cache.path, view.path).get("pixels") is not None for view in views)


def require_shareable(root: Path) -> None:
    """Raise NotShareableError, saying why and what to do, unless the cache at `root` may be shared."""
    terms = terms_of(open_cache(root))
    if not terms.share:
        licence = printable(terms.licence, 100)
        raise NotShareableError(
            f"the card of {root.name} says share: no ({terms.reason}; licence: {licence}); "
            "if you may share it all the same say --i-may, or once and for all: "
            f"python -m store card {root} --share yes (--licence CC-BY-4.0 tells the licence)"
        )


def state_terms(root: Path, licence: str | None, share: str | None) -> None:
    """Keep what is said of the finished cache at `root`, beside what was said before; None says nothing."""
    before = _stated(root) or Statement()
    told = {"licence": licence or before.licence, "share": share or before.share}
    write_file(root / STATED, canonical_json({key: value for key, value in told.items() if value}))


def _stated(root: Path) -> Statement | None:
    """What reports/sharing.json says; None if that is nothing usable."""
    file = root / STATED
    if not file.is_file():
        return Statement()
    try:
        found = Statement(**known_fields(Statement, read_json(file), STATED))
    except CacheError:
        return None
    return found if found.is_sound else None
