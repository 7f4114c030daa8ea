"""Fixtures of the whole test suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST = (
    "test_end_to_end",
    "test_fit",
    "test_hostile_caches",
    "test_faults",
    "test_worker_faults",
    "test_students",
    "test_decode_pool",
    "test_recheck",
    "test_estimate",
    "test_storage_options",
    "test_pair_layouts",
    "test_bad_input",
    "test_extend",
    "test_kept_pixels",
    "test_two_teachers",
    "test_side_network_caches",
)
"""Files of tests that take longest: begun first, so that no core waits for one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared material (real clips, golden vectors); tests that use it skip where it is absent."""
    folder = (ROOT / os.environ.get("SHARED", "../shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared material: set SHARED, or place it at {folder.name} beside the project")
    return folder
