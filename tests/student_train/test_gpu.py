"""What only a GPU can show: the loader keeps it busy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from student_train.students import afa

BUSY = 0.95


@pytest.mark.gpu
def test_the_loader_keeps_the_gpu_busy_on_afa_from_features(tmp_path: Path) -> None:
    """Of the time that steps from the cache take, steps on what lies on the GPU already take 95%: the rest is
    all that the GPU can have waited for the loader."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    # Every teacher of the bench would be imported by whoever only collects the tests.
    from tests.bench.bench_train import TAUGHT
    from tests.bench.train_arms import CACHED, RESIDENT, UNTAUGHT, Ground, Measured, Way
    from tests.bench.train_data import feature_cache

    recipe = afa.RECIPES["teachclip"]
    teacher = feature_cache(tmp_path / "features.zarr", 9600)
    batch, device = recipe.batch_size, torch.device("cuda")
    ground = Ground(teacher, afa, batch, steps=20, warm=5, device=device)
    untaught, taught = Way(recipe.model, {"info_nce": 1.0}), Way(recipe.model, TAUGHT)
    arms = {
        UNTAUGHT: ground.resident(untaught),
        RESIDENT: ground.resident(taught),
        CACHED: ground.cached(taught),
    }
    measured = Measured.of(arms, rounds=7, batch=batch)
    print(measured.rows())
    assert measured.ratio(RESIDENT, CACHED) >= BUSY
