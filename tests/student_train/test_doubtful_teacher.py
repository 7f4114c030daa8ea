"""A teacher whose report misses what was published of it is trained on only by who says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.reader import open_cache
from store.teacher_report import compared, teacher_report, write_report
from student_train.__main__ import main
from student_train.guard import require_trusted
from tests.student_train.learnable_cache import write_learnable_cache

QUICK = ["--epochs", "1", "--batch-size", "16", "--seeds", "0", "--learning-rates", "0.001"]
QUICK += ["--recipe", "demo", "--arms", "untaught"]


@pytest.mark.parametrize("words", [[], ["--teacher", "second", "--role", "other=oracle"]])
def test_it_is_refused_unless_told_as_the_main_teacher_and_in_a_role(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    path = write_learnable_cache(tmp_path / "c.zarr", teachers=("oracle", "second") if words else ("oracle",))
    cache, run = open_cache(path), tmp_path / "run"
    report = teacher_report(cache.teacher("oracle"))
    found = report["splits"]["test"]["text_to_video"]["R@1"]
    write_report(cache, "oracle", compared(report, "test", found - 30))
    train = ["train", str(path), "--out", str(run), *QUICK, *words]
    assert main(train) == 2
    told = capsys.readouterr().err
    assert f"teacher 'oracle' of c.zarr: text_to_video R@1 on 'test' is {found:.1f}" in told
    assert told.count("\n") == 1
    assert not run.exists()
    if not words:
        assert main([*train, "--despite-report"]) == 0


def test_a_report_within_a_point_or_without_an_expectation_says_nothing_against_it(oracle) -> None:
    cache = oracle.cache
    require_trusted(cache, ["oracle"])
    report = teacher_report(oracle)
    found = report["splits"]["test"]["text_to_video"]["R@1"]
    for harmless in (report, compared(report, "test", found - 0.5)):
        write_report(cache, "oracle", harmless)
        require_trusted(cache, ["oracle"])
    (cache.reports_dir / "retrieval.json").unlink()
