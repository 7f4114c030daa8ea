"""Google Cloud Storage through gcsfs: conditional writes by ifGenerationMatch.

Credentials come from where google-auth looks: GOOGLE_APPLICATION_CREDENTIALS, gcloud's own, the machine's
account. STORAGE_EMULATOR_HOST names another server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from store.remote.location import Location
from store.remote.persistence import status_of
from store.remote.protocols.base import SILENCE_S, BucketEndpoint, Upload, Versioned, required

PRECONDITION_FAILED = 412
NEVER_WRITTEN = "0"


class GsEndpoint(BucketEndpoint):
    """Objects below gs://bucket/prefix."""

    def __init__(self, location: Location) -> None:
        gcsfs = required("gcsfs.core", "gs")  # not the one that asks by gRPC what kind of bucket it is
        fs = gcsfs.GCSFileSystem(
            skip_instance_cache=True, use_listings_cache=False, requests_timeout=SILENCE_S
        )
        super().__init__(location, fs)

    def read(self, path: str, start: int, length: int) -> bytes:
        if length == 0:
            return b""
        try:
            found = self._fs.cat_file(self._name(path), start=start, end=start + length)
        except Exception as error:
            if status_of(error) == 416:  # the object ends before `start`
                return b""
            raise
        return bytes(found[:length])

    def put(self, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            self._fs.put_file(str(upload.file), self._name(upload.path))

    def create(self, path: str, content: bytes) -> bool:
        return self.replace(path, content, NEVER_WRITTEN)

    def read_versioned(self, path: str, limit: int) -> Versioned:
        return self.read_versioned_range(path, 0, limit)

    def read_versioned_range(self, path: str, start: int, length: int) -> Versioned:
        headers, content = self._fs.call(
            "GET",
            f"b/{quote(self._bucket)}/o/{quote(self._prefix + path, safe='')}",
            alt="media",
            headers={"Range": f"bytes={start}-{start + length - 1}"},
        )
        return Versioned(bytes(content[:length]), str(headers["x-goog-generation"]))

    def replace(self, path: str, content: bytes, version: str) -> bool:
        try:
            self._upload(path, content, ifGenerationMatch=version)
        except Exception as error:
            if status_of(error) == PRECONDITION_FAILED or isinstance(error, FileExistsError):
                return False
            raise
        return True

    def overwrite(self, path: str, content: bytes) -> None:
        self._upload(path, content)

    def _upload(self, path: str, content: bytes, **condition: Any) -> None:
        self._fs.call(
            "POST",
            f"{self._fs._location}/upload/storage/v1/b/{quote(self._bucket)}/o",
            uploadType="media",
            name=self._prefix + path,
            data=content,
            headers={"Content-Type": "application/octet-stream"},
            **condition,
        )


ENDPOINT = GsEndpoint
