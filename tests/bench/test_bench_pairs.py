"""The pairs that each layout scores, counted: what the bench's curve stands on."""

from __future__ import annotations

import pytest

from tests.bench.bench_pairs import BATCH, EPOCHS, LAYOUTS, K, cost_of

SIZES = {"first": (64, 2), "texts doubled": (64, 4), "videos doubled": (128, 1)}


@pytest.mark.slow
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout.startswith("planned")])
def test_planned_pairs_grow_with_texts_and_not_with_videos(layout, tmp_path):
    pairs = {
        name: cost_of(tmp_path / f"{name}.zarr", LAYOUTS[layout], *size).pairs for name, size in SIZES.items()
    }
    texts = {name: videos * captions // 2 for name, (videos, captions) in SIZES.items()}
    if "k=" not in layout:
        assert pairs == {name: EPOCHS * count * BATCH for name, count in texts.items()}
        return
    for name, count in texts.items():
        assert EPOCHS * count * K <= pairs[name] <= 2 * EPOCHS * count * K
