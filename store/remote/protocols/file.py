"""Plain folders: objects are files, written aside and renamed; what is created once is linked into place."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from store.durable import PARTIAL_SUFFIX, sync_folder
from store.remote.protocols.base import Endpoint, Upload, Versioned
from store.untrusted import FILE, entries


class FolderEndpoint(Endpoint):
    """Objects below a folder. A link is followed nowhere: it could lead out of what was shared."""

    chained = True

    @property
    def root(self) -> Path:
        return Path(self.location.url)

    def read(self, path: str, start: int, length: int) -> bytes:
        return self.read_versioned_range(path, start, length).content

    def read_versioned_range(self, path: str, start: int, length: int) -> Versioned:
        descriptor = os.open(self.root / path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            file.seek(start)
            return Versioned(file.read(length), f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}")

    def sizes(self, folder: str) -> dict[str, int]:
        if not (self.root / folder).is_dir():
            return {}
        prefix = f"{folder}/" if folder else ""
        return {
            prefix + entry.path: entry.bytes for entry in entries(self.root / folder) if entry.kind == FILE
        }

    def put(self, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            aside = self._aside(upload.path)
            try:
                with open(upload.file, "rb") as source, open(aside, "xb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                    target.flush()
                    os.fsync(target.fileno())
                self._publish(aside, upload.path)
            finally:
                aside.unlink(missing_ok=True)

    def create(self, path: str, content: bytes) -> bool:
        aside = self._written_aside(path, content)
        try:
            os.link(aside, self.root / path)
        except FileExistsError:
            return False
        finally:
            aside.unlink()
        sync_folder((self.root / path).parent)
        return True

    def overwrite(self, path: str, content: bytes) -> None:
        self._publish(self._written_aside(path, content), path)

    def _aside(self, path: str) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.with_name(f"{secrets.token_hex(8)}{PARTIAL_SUFFIX}")

    def _written_aside(self, path: str, content: bytes) -> Path:
        aside = self._aside(path)
        with open(aside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return aside

    def _publish(self, aside: Path, path: str) -> None:
        os.replace(aside, self.root / path)
        sync_folder((self.root / path).parent)


ENDPOINT = FolderEndpoint
