"""S3 and what speaks its language, through s3fs: conditional writes by If-None-Match and If-Match.

Credentials, region and endpoint come from where botocore looks: the environment (AWS_PROFILE,
AWS_ENDPOINT_URL, ...), ~/.aws, the machine's role.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from store.remote.location import Location
from store.remote.persistence import status_of
from store.remote.protocols.base import CONNECT_S, SILENCE_S, BucketEndpoint, Upload, Versioned, required

PRECONDITION_FAILED = 412


class S3Endpoint(BucketEndpoint):
    """Objects below s3://bucket/prefix."""

    def __init__(self, location: Location) -> None:
        s3fs = required("s3fs", "s3")
        fs = s3fs.S3FileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            config_kwargs={
                "connect_timeout": CONNECT_S,
                "read_timeout": SILENCE_S,
                "retries": {"total_max_attempts": 1},
                "max_pool_connections": 32,
            },
        )
        fs.retries = 1
        super().__init__(location, fs)

    def _key(self, path: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + path}

    def read(self, path: str, start: int, length: int) -> bytes:
        return self.read_versioned_range(path, start, length).content

    def read_versioned_range(self, path: str, start: int, length: int) -> Versioned:
        if length == 0:
            return Versioned(b"", "")
        asked = f"bytes={start}-{start + length - 1}"
        try:
            return Versioned(*self._get(path, length, Range=asked))
        except OSError as error:
            if status_of(error) == 416:  # the object ends before `start`
                return Versioned(b"", "")
            raise

    def _get(self, path: str, limit: int, **how: str) -> tuple[bytes, str]:
        """Up to `limit` bytes and the ETag, from one answer."""
        from fsspec.asyn import sync

        async def get() -> tuple[bytes, str]:
            answer = await self._fs._call_s3("get_object", **self._key(path), **how)
            async with answer["Body"] as body:
                found = bytearray()
                while len(found) < limit and (block := await body.read(min(limit - len(found), 1 << 20))):
                    found += block
            return bytes(found), str(answer["ETag"])

        return sync(self._fs.loop, get)

    def put(self, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            self._fs.put_file(str(upload.file), self._name(upload.path), max_concurrency=1)

    def create(self, path: str, content: bytes) -> bool:
        return self._write_if(path, content, IfNoneMatch="*")

    def read_versioned(self, path: str, limit: int) -> Versioned:
        return Versioned(*self._get(path, limit))

    def replace(self, path: str, content: bytes, version: str) -> bool:
        return self._write_if(path, content, IfMatch=version)

    def _write_if(self, path: str, content: bytes, **condition: Any) -> bool:
        try:
            self._fs.call_s3("put_object", **self._key(path), Body=content, **condition)
        except OSError as error:
            if status_of(error) == PRECONDITION_FAILED:
                return False
            raise
        return True

    def overwrite(self, path: str, content: bytes) -> None:
        self._fs.call_s3("put_object", **self._key(path), Body=content)


ENDPOINT = S3Endpoint
