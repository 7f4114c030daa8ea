"""Which states a shared cache has had, and how it goes from one to the next without losing anybody's work.

    manifest.json                    the latest state, for whoever reads the place without us
    sharing/manifests/<digest>.json  every state that was pushed, never changed: what a pin names
    sharing/tags/<tag>.json          {"digest": ...}
    sharing/after/<sha256>.json      on folders and SFTP: what came after the manifest of that sha256

Objects and groups are never written again, so a state is its manifest alone. A push goes from the state that
it read to that with its own groups added; if another came in between, it reads again. Where the server can
replace an object on a condition (S3, GCS, the hub), that is manifest.json itself. Where it can only create
one (folders, SFTP), the next state is created under the sha256 of the one before it, which succeeds once;
manifest.json is a copy that may lag for a moment, so readers follow the chain from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from store.durable import JSON_BYTES, canonical_json, is_sha256
from store.errors import DamagedCacheError, IdentityError, MissingFileError, UnknownNameError
from store.manifest import MANIFEST, SHARING, Manifest
from store.remote.persistence import status_of
from store.remote.protocols.base import Endpoint
from store.untrusted import parse_json

TAG_BYTES = 1 << 12
MOST_STATES = 10_000


@dataclass(frozen=True)
class State:
    """A state as it was read; version: by which it is replaced."""

    manifest: Manifest
    version: str


def state_path(digest: str) -> str:
    return f"{SHARING}/manifests/{digest}.json"


def tag_path(tag: str) -> str:
    return f"{SHARING}/tags/{tag}.json"


def latest(endpoint: Endpoint) -> State:
    """The latest state; raises FileNotFoundError where no push was ever finished."""
    if not endpoint.chained:
        return _read_replaceable(endpoint)
    content = _small(endpoint, MANIFEST)
    for following in _following(endpoint, content):
        content = following
    return State(Manifest.parse(content, endpoint.location.name), _version(content))


def _read_replaceable(endpoint: Endpoint) -> State:
    found = endpoint.read_versioned(MANIFEST, JSON_BYTES + 1)
    _require_small(endpoint, MANIFEST, found.content)
    return State(Manifest.parse(found.content, endpoint.location.name), found.version)


def _following(endpoint: Endpoint, content: bytes) -> Iterator[bytes]:
    for _ in range(MOST_STATES):
        try:
            content = _small(endpoint, _after(_version(content)))
        except FileNotFoundError:
            return
        except Exception as error:
            if status_of(error) == 403:  # a bucket behind a web server says so of what is not there
                return
            raise
        yield content
    raise DamagedCacheError(f"{endpoint.location} goes on for over {MOST_STATES:,} states; ask its owner")


def advance(endpoint: Endpoint, before: State | None, manifest: Manifest) -> bool:
    """Make `manifest` the latest state if `before` (None: nothing) still is; whether it was."""
    content = canonical_json(manifest.to_dict())
    if before is None:
        return endpoint.create(MANIFEST, content)
    if not endpoint.chained:
        return endpoint.replace(MANIFEST, content, before.version)
    if not endpoint.create(_after(before.version), content):
        return False
    endpoint.overwrite(MANIFEST, content)
    return True


def show_latest(endpoint: Endpoint, state: State) -> None:
    """Copy the latest state over a manifest.json that was left behind, where that can happen."""
    content = canonical_json(state.manifest.to_dict())
    if endpoint.chained and endpoint.read(MANIFEST, 0, JSON_BYTES) != content:
        endpoint.overwrite(MANIFEST, content)


def record_state(endpoint: Endpoint, manifest: Manifest) -> None:
    """Keep `manifest` under its digest, for pins; nothing happens if it is kept already."""
    endpoint.create(state_path(manifest.digest), canonical_json(manifest.to_dict()))


def named(endpoint: Endpoint) -> Manifest:
    """The state that the endpoint's location names.

    Raises UnknownNameError for a tag that there is not, IdentityError for a digest that was never there.
    """
    location = endpoint.location
    digest = location.digest
    if location.tag is not None:
        digest = read_tag(endpoint, location.tag)
        if digest is None:
            raise UnknownNameError(f"{location}: there is no tag {location.tag!r}; push with --tag sets one")
    if digest is None:
        return latest(endpoint).manifest
    try:
        found = Manifest.parse(_small(endpoint, state_path(digest)), location.name)
        if found.digest != digest:
            raise DamagedCacheError(f"{state_path(digest)} at {location}: holds another state; ask its owner")
        return found
    except FileNotFoundError:
        return _earlier(endpoint, digest)


def _earlier(endpoint: Endpoint, digest: str) -> Manifest:
    """The state `digest` of a cache that was copied here by other means, out of what its manifest tells."""
    now = latest(endpoint).manifest
    state = now.as_of(digest)
    if state is None:
        raise IdentityError(
            f"{endpoint.location} is {now.digest} and was never pushed as {digest}; another cache, or that "
            "state was not pushed: ask who pinned it"
        )
    return state


def read_tag(endpoint: Endpoint, tag: str) -> str | None:
    """The digest that a tag names; None if there is no such tag."""
    try:
        content = endpoint.read(tag_path(tag), 0, TAG_BYTES + 1)
    except FileNotFoundError:
        return None
    try:
        told = parse_json(content) if len(content) <= TAG_BYTES else None
        digest = told["digest"] if isinstance(told, dict) and told.keys() == {"digest"} else None
    except ValueError:
        digest = None
    if not is_sha256(digest):
        raise DamagedCacheError(f"{tag_path(tag)} at {endpoint.location}: names no digest; ask its owner")
    return str(digest)


def set_tag(endpoint: Endpoint, tag: str, digest: str, force: bool) -> None:
    """Let `tag` name `digest`; raises IdentityError if it names another and is not forced."""
    content = canonical_json({"digest": digest})
    if endpoint.create(tag_path(tag), content):
        return
    before = read_tag(endpoint, tag)
    if before == digest:
        return
    if not force:
        raise tag_is_taken(endpoint, tag, str(before), digest)
    endpoint.overwrite(tag_path(tag), content)


def tag_is_taken(endpoint: Endpoint, tag: str, before: str, digest: str) -> IdentityError:
    """The error for a tag that names another state."""
    return IdentityError(
        f"tag {tag!r} at {endpoint.location} names {before}, not {digest}; tags do not move: choose another "
        "name, or say --force"
    )


def _small(endpoint: Endpoint, path: str) -> bytes:
    content = endpoint.read(path, 0, JSON_BYTES + 1)
    _require_small(endpoint, path, content)
    return content


def _require_small(endpoint: Endpoint, path: str, content: bytes) -> None:
    if len(content) > JSON_BYTES:
        raise DamagedCacheError(f"{path} at {endpoint.location}: is larger than {JSON_BYTES} bytes")


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _after(version: str) -> str:
    return f"{SHARING}/after/{version}.json"


def no_cache(endpoint: Endpoint) -> MissingFileError:
    """The error where no push was ever finished."""
    return MissingFileError(
        f"{MANIFEST} at {endpoint.location}: is not there: no cache, or its first push is not finished"
    )
