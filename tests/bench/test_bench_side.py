"""The side network's bench runs on a small backbone, and says of each way what it trained."""

from tests.bench.bench_side import WAYS, one_way, parsed

SMALL = ["--architecture", "tiny", "--blocks", "2", "--width", "64", "--patch", "8", "--pixels", "32"]


def test_full_fine_tuning_trains_the_backbone_and_the_side_network_leaves_it_alone() -> None:
    rows = {
        way: one_way(parsed([*SMALL, "--batch", "2", "--frames", "2", "--steps", "1", "--way", way]))
        for way in WAYS
    }
    assert rows["cached"]["trained parameters, M"] == rows["live"]["trained parameters, M"]
    for row in rows.values():
        assert set(row) == {"way", "peak MB", "seconds a step", "trained parameters, M"}
        assert row["seconds a step"] >= 0
