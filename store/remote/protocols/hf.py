"""Datasets of the Hugging Face hub: what is written is a commit, and a commit may name its parent.

Objects go up in commits of many; a manifest in a commit that is refused if another came between. The token
comes from where huggingface_hub looks: HF_TOKEN, or `hf auth login`.
"""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from store.durable import JSON_BYTES
from store.remote.location import Location
from store.remote.persistence import status_of
from store.remote.protocols.base import Endpoint, Upload, Versioned, required

REFUSED = (409, 412)
MOST_HEADS = 10


class HubEndpoint(Endpoint):
    """Objects below hf://datasets/owner/name[/folder], on the branch main."""

    uploads_together = 64

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._hub = required("huggingface_hub", "hf")
        self._errors = required("huggingface_hub.errors", "hf")
        self._api = self._hub.HfApi()
        self._committing = threading.Lock()
        owner, name, *folder = location.url.removeprefix("hf://datasets/").split("/")
        self._repository = f"{owner}/{name}"
        self._prefix = "".join(f"{word}/" for word in folder)

    def _head(self) -> str:
        """The commit that the branch is at."""
        try:
            return str(self._api.dataset_info(self._repository).sha)
        except self._errors.RepositoryNotFoundError as error:
            raise FileNotFoundError(
                f"there is no dataset {self._repository} on the hub that you may see; make it there first"
            ) from error

    def read(self, path: str, start: int, length: int) -> bytes:
        return self._read_at("main", path, start, length)

    def _read_at(self, revision: str, path: str, start: int, length: int) -> bytes:
        """From the file system of huggingface_hub; fresh, since what it knows of a branch may be old."""
        if length == 0:
            return b""
        files = self._hub.HfFileSystem(skip_instance_cache=True, use_listings_cache=False)
        name = f"datasets/{self._repository}@{revision}/{self._prefix}{path}"
        size = int(files.info(name)["size"])
        if start >= size:
            return b""
        return bytes(files.cat_file(name, start=start, end=min(start + length, size)))

    def sizes(self, folder: str) -> dict[str, int]:
        try:
            tree = self._api.list_repo_tree(
                self._repository,
                path_in_repo=(self._prefix + folder).rstrip("/") or None,
                recursive=True,
                repo_type="dataset",
            )
            return {
                entry.path.removeprefix(self._prefix): int(entry.size)
                for entry in tree
                if hasattr(entry, "size")
            }
        except self._errors.EntryNotFoundError:
            return {}

    def put(self, uploads: Sequence[Upload]) -> None:
        try:
            self._commit([(upload.path, str(upload.file)) for upload in uploads], None)
        except self._errors.HfHubHTTPError as error:
            if status_of(error) in REFUSED:
                raise BlockingIOError(errno.EAGAIN, "another commit came between") from error
            raise

    def create(self, path: str, content: bytes) -> bool:
        return self._commit_while(path, content, lambda now: now is None)

    def read_versioned(self, path: str, limit: int) -> Versioned:
        content = self._read_at(self._head(), path, 0, limit)
        return Versioned(content, hashlib.sha256(content).hexdigest())

    def replace(self, path: str, content: bytes, version: str) -> bool:
        return self._commit_while(
            path, content, lambda now: now is not None and hashlib.sha256(now).hexdigest() == version
        )

    def overwrite(self, path: str, content: bytes) -> None:
        self._commit([(path, content)], None)

    def _commit_while(self, path: str, content: bytes, holds: Callable[[bytes | None], bool]) -> bool:
        """Commit `content` upon a head at which `holds` of what lies at `path`; whether there was one."""
        for _ in range(MOST_HEADS):
            head = self._head()
            now: bytes | None
            try:
                now = self._read_at(head, path, 0, JSON_BYTES + 1)
            except FileNotFoundError:
                now = None
            if not holds(now):
                return False
            if self._commit_if(path, content, head):
                return True
        raise BlockingIOError(errno.EAGAIN, f"{MOST_HEADS} commits came between")

    def _commit_if(self, path: str, content: bytes, parent: str) -> bool:
        try:
            self._commit([(path, content)], parent)
        except self._errors.HfHubHTTPError as error:
            if status_of(error) in REFUSED:
                return False
            raise
        return True

    def _commit(self, files: Sequence[tuple[str, Any]], parent: str | None) -> None:
        operations = [self._hub.CommitOperationAdd(self._prefix + path, content) for path, content in files]
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        with self._committing:  # the hub takes one commit of a branch at a time
            self._api.create_commit(
                self._repository,
                operations,
                commit_message=files[0][0] + more,
                repo_type="dataset",
                parent_commit=parent,
            )


ENDPOINT = HubEndpoint
