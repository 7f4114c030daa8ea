"""Plain folders: objects are files, written aside and renamed; what is created once is linked into place."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from stat import S_ISLNK
from typing import BinaryIO

from store.durable import PARTIAL_SUFFIX
from store.errors import RemoteError
from store.remote.protocols.base import Endpoint, Upload, Versioned
from store.untrusted import FILE, entries

AS_FILE, AS_FOLDER = os.O_RDONLY | os.O_NONBLOCK, os.O_RDONLY | os.O_DIRECTORY
BLOCK_BYTES = 1 << 20


class FolderEndpoint(Endpoint):
    """Objects below a folder. A link below it is followed nowhere: it could lead out of what was shared.

    Each folder on the way to an object is opened inside the one above it, so no link can come in between.
    """

    chained = True

    @property
    def root(self) -> Path:
        return Path(self.location.url)

    def read(self, path: str, start: int, length: int) -> bytes:
        return self.read_versioned_range(path, start, length).content

    def read_versioned_range(self, path: str, start: int, length: int) -> Versioned:
        folder, _, name = path.rpartition("/")
        with self._opened(folder) as parent:
            descriptor = self._open(parent, name, AS_FILE, path)
        with open(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            file.seek(start)
            return Versioned(file.read(length), f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}")

    def sizes(self, folder: str) -> dict[str, int]:
        try:
            with self._opened(folder):
                found = list(entries(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        prefix = f"{folder}/" if folder else ""
        return {prefix + entry.path: entry.bytes for entry in found if entry.kind == FILE}

    def put(self, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            with open(upload.file, "rb") as source:
                self._replace(upload.path, source)

    def create(self, path: str, content: bytes) -> bool:
        with self._written_aside(path, BytesIO(content)) as (parent, aside, name):
            try:
                os.link(aside, name, src_dir_fd=parent, dst_dir_fd=parent)
            except FileExistsError:
                return False
        return True

    def overwrite(self, path: str, content: bytes) -> None:
        self._replace(path, BytesIO(content))

    def _replace(self, path: str, source: BinaryIO) -> None:
        with self._written_aside(path, source) as (parent, aside, name):
            os.replace(aside, name, src_dir_fd=parent, dst_dir_fd=parent)

    @contextlib.contextmanager
    def _written_aside(self, path: str, source: BinaryIO) -> Iterator[tuple[int, str, str]]:
        """A descriptor of the folder of `path`, and in it the names of a file with all of `source`, and of
        `path`. What was done with the file is synced in the end, and the file is gone.
        """
        folder, _, name = path.rpartition("/")
        with self._opened(folder, make=True) as parent:
            aside = f"{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(aside, flags, 0o666, dir_fd=parent)
            try:
                with open(descriptor, "wb") as target:
                    shutil.copyfileobj(source, target, BLOCK_BYTES)
                    target.flush()
                    os.fsync(target.fileno())
                yield parent, aside, name
                os.fsync(parent)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(aside, dir_fd=parent)

    @contextlib.contextmanager
    def _opened(self, folder: str, make: bool = False) -> Iterator[int]:
        """A descriptor of `folder`, "" for the root; make: with what is missing on the way to it."""
        if make:
            self.root.mkdir(parents=True, exist_ok=True)
        inner = os.open(self.root, AS_FOLDER | os.O_CLOEXEC)
        with contextlib.ExitStack() as opened:
            opened.callback(os.close, inner)
            for name in filter(None, folder.split("/")):
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, dir_fd=inner)
                inner = self._open(inner, name, AS_FOLDER, folder)
                opened.callback(os.close, inner)
            yield inner

    def _open(self, parent: int, name: str, flags: int, path: str) -> int:
        """Open `name` in the folder `parent`, on the way to `path`; raises RemoteError if it is a link."""
        try:
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                if S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    raise RemoteError(
                        f"{path} at {self.location}: {name} is a link, and no link in a shared folder is "
                        "followed; ask its owner to put there what it leads to"
                    ) from None
            raise


ENDPOINT = FolderEndpoint
