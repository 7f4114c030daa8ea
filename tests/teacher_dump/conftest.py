"""What most tests of a dump begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.teacher_dump.colour_teacher import colour_samples


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the clips of `colour_samples`."""
    folder = tmp_path_factory.mktemp("clips")
    colour_samples(folder)
    return folder
