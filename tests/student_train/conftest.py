"""Fixtures of the student's tests: one learnable cache, opened once, and one thread for tiny tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from store.reader import Cache, TeacherReader, open_cache
from tests.student_train.learnable_cache import write_learnable_cache


@pytest.fixture(scope="session")
def learnable_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_learnable_cache(tmp_path_factory.mktemp("caches") / "meanings.zarr")


@pytest.fixture(scope="session")
def learnable(learnable_path: Path) -> Cache:
    return open_cache(learnable_path)


@pytest.fixture(scope="session")
def oracle(learnable: Cache) -> TeacherReader:
    return learnable.teacher("oracle")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Two threads on tensors this small wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
