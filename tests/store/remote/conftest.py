"""Caches to be shared, and places to share them at."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.remote.location import Location
from store.remote.persistence import Patience
from store.remote.source import Remote, open_remote
from tests.store.remote import servers
from tests.store.remote.fake_gcs import fake_gcs
from tests.synthetic_cache import synthetic_samples, write_synthetic_cache

QUICK = Patience(attempts=3, first_pause_s=0.01, longest_pause_s=0.02)
PLACES = [
    "folder",
    pytest.param("s3", marks=pytest.mark.slow),
    pytest.param("sftp", marks=pytest.mark.slow),
    pytest.param("gs", marks=pytest.mark.slow),
    pytest.param("hf", marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """No test here is about a power cut, and each of them writes hundreds of small files."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    return write_synthetic_cache(tmp_path_factory.mktemp("made") / "team.zarr", synthetic_samples(20))


@pytest.fixture
def cache(made, tmp_path) -> Path:
    """A cache of one teacher, of 20 videos in shards of 5, that the test may change."""
    return Path(shutil.copytree(made, tmp_path / "own" / "team.zarr"))


def add_teacher(cache: Path, teacher: str) -> Path:
    """`cache`, with one more teacher over its view."""
    return write_synthetic_cache(cache, synthetic_samples(20), teacher=teacher)


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    server = servers.s3_server()
    yield server.port
    server.stop()


@pytest.fixture
def s3(s3_port, monkeypatch) -> str:
    """URL of an empty bucket."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "hush-hush",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    bucket = f"bucket{next(_numbers)}"
    s3fs.S3FileSystem(skip_instance_cache=True).call_s3("create_bucket", Bucket=bucket)
    return f"s3://{bucket}"


_numbers = iter(range(10**6))


@pytest.fixture(scope="session")
def ssh(tmp_path_factory) -> Iterator[tuple[servers.Served, Path]]:
    home = tmp_path_factory.mktemp("home")
    server = servers.sshd(home)
    yield server, home
    server.stop()


@pytest.fixture
def sftp(ssh, tmp_path, monkeypatch) -> str:
    """URL of an empty folder."""
    server, home = ssh
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "served").mkdir()
    return f"sftp://127.0.0.1:{server.port}{tmp_path}/served"


@pytest.fixture
def gs(monkeypatch) -> Iterator[str]:
    """URL of an empty bucket of a server that speaks as much of GCS's protocol as is used here."""
    pytest.importorskip("gcsfs")
    with fake_gcs() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield "gs://bucket"


@pytest.fixture
def hf(monkeypatch) -> str:
    """URL of an empty dataset of a hub in memory, that stands behind the API of huggingface_hub."""
    pytest.importorskip("huggingface_hub")
    from tests.store.remote.fake_hub import REPOSITORY, FakeHub

    FakeHub().install(monkeypatch)
    return f"hf://datasets/{REPOSITORY}"


@pytest.fixture(params=PLACES)
def place(request, tmp_path) -> str:
    """URL of a place that holds nothing yet."""
    if request.param == "folder":
        return str(tmp_path / "shared" / "team.zarr")
    return f"{request.getfixturevalue(request.param)}/shared/team.zarr"


def at(url: str) -> Remote:
    return open_remote(Location.parse(url), QUICK)


@contextlib.contextmanager
def pushed_as_files(cache: Path, folder: Path) -> Iterator[Path]:
    from store.remote.push import push

    push(cache, at(str(folder / "team.zarr")))
    yield folder / "team.zarr"
