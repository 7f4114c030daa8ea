"""Fixtures of the whole test suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared material (real clips, golden vectors); tests that use it skip where it is absent."""
    folder = (ROOT / os.environ.get("SHARED", "../shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared material: set SHARED, or place it at {folder.name} beside the project")
    return folder
