"""The hub's API as huggingface_hub offers it, over commits in memory: no test of the hub itself.

Every call is bound to the real signature, so an argument that the library does not know is an error here too.
"""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

REPOSITORY = "team/msrvtt"
REFUSED = SimpleNamespace(status_code=412, headers={}, request=None)
UNKNOWN = SimpleNamespace(status_code=404, headers={}, request=None)


class FakeHub:
    """One dataset: its commits, each all files by path."""

    def __init__(self) -> None:
        self.commits: list[tuple[str, dict[str, bytes]]] = [("0" * 40, {})]
        self.changing = threading.Lock()

    def at(self, revision: str) -> dict[str, bytes]:
        return self.commits[-1][1] if revision == "main" else dict(self.commits)[revision]

    def install(self, monkeypatch: Any) -> None:
        hub = self

        class Api:
            create_commit = _bound(huggingface_hub.HfApi.create_commit, hub.create_commit)
            dataset_info = _bound(huggingface_hub.HfApi.dataset_info, hub.dataset_info)
            list_repo_tree = _bound(huggingface_hub.HfApi.list_repo_tree, hub.list_repo_tree)

        class Files:
            def __init__(self, **options: Any) -> None:
                pass

            info = _bound(huggingface_hub.HfFileSystem.info, hub.info)
            cat_file = _bound(huggingface_hub.HfFileSystem.cat_file, hub.cat_file)

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        monkeypatch.setattr(huggingface_hub, "HfFileSystem", Files)

    def create_commit(self, repo_id: str, operations: Any, parent_commit: str | None, **told: Any) -> None:
        assert (repo_id, told["repo_type"]) == (REPOSITORY, "dataset")
        with self.changing:
            head, files = self.commits[-1]
            if parent_commit not in (None, head):
                raise HfHubHTTPError("A commit has happened since", response=REFUSED)
            added = {
                operation.path_in_repo: Path(operation.path_or_fileobj).read_bytes()
                if isinstance(operation.path_or_fileobj, str)
                else operation.path_or_fileobj
                for operation in operations
            }
            name = hashlib.sha1(f"{head}{sorted(added)}".encode()).hexdigest()
            self.commits.append((name, {**files, **added}))

    def dataset_info(self, repo_id: str, **told: Any) -> SimpleNamespace:
        if repo_id != REPOSITORY:
            raise RepositoryNotFoundError("no such dataset", response=UNKNOWN)
        return SimpleNamespace(sha=self.commits[-1][0])

    def list_repo_tree(self, repo_id: str, path_in_repo: str | None, **told: Any) -> list[SimpleNamespace]:
        assert told["recursive"]
        prefix = f"{path_in_repo}/" if path_in_repo else ""
        files = self.commits[-1][1].items()
        return [SimpleNamespace(path=p, size=len(content)) for p, content in files if p.startswith(prefix)]

    def _file(self, path: str) -> bytes:
        place, _, rest = path.partition("@")
        assert place == f"datasets/{REPOSITORY}"
        revision, _, inner = rest.partition("/")
        try:
            return self.at(revision)[inner]
        except KeyError:
            raise FileNotFoundError(path) from None

    def info(self, path: str, **told: Any) -> dict[str, int]:
        return {"size": len(self._file(path))}

    def cat_file(self, path: str, start: int, end: int, **told: Any) -> bytes:
        return self._file(path)[start:end]


def _bound(real: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(real)

    def call(*arguments: Any, **keywords: Any) -> Any:
        bound = signature.bind(*arguments, **keywords)
        bound.apply_defaults()
        told = dict(bound.arguments)
        told.pop("self")
        told.update(told.pop("kwargs", {}))
        return fake(**told)

    return call
