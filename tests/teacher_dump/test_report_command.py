"""A report that can't be read is no report that says nothing against a teacher."""

from __future__ import annotations

import pytest

from store.cli import run_cli
from store.durable import canonical_json, write_file
from store.errors import DamagedCacheError
from store.reader import open_cache
from store.teacher_report import stated_before, stored_complaint
from teacher_dump.__main__ import build_parser
from teacher_dump.dump import dump
from teacher_dump.report_command import report_teacher
from teacher_dump.settings import DumpSettings
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples

SETTINGS = DumpSettings(batch_videos=4, batch_texts=4, threads=1, decoders=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return dump(folder / "c.zarr", colour_samples(folder), ColourTeacher(), SETTINGS, {}).path


@pytest.fixture
def cache(root):
    (root / "reports" / "retrieval.json").unlink(missing_ok=True)
    return open_cache(root)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        canonical_json({"teachers": []}),
        canonical_json({"teachers": {"colour": []}}),
        canonical_json({"teachers": {"colour": {"expected": {}}}}),
        canonical_json({"teachers": {"colour": {"expected": {"holds": False, "split": "test"}}}}),
    ],
)
@pytest.mark.parametrize("ask", [stored_complaint, stated_before])
def test_an_unreadable_report_is_told_with_how_to_make_it_anew(cache, content, ask):
    write_file(cache.reports_dir / "retrieval.json", content)
    with pytest.raises(DamagedCacheError, match=r"only a report: delete it .* teacher_dump report CACHE"):
        ask(cache, "colour")


@pytest.mark.parametrize("ask", [stored_complaint, stated_before])
def test_no_report_and_a_report_of_another_teacher_say_nothing(cache, ask):
    assert ask(cache, "colour") is None
    write_file(cache.reports_dir / "retrieval.json", canonical_json({"teachers": {"other": {"splits": {}}}}))
    assert ask(cache, "colour") is None


def test_a_report_that_was_deleted_is_made_anew(cache, capsys):
    assert "published is 0.0" in report_teacher(cache, "colour", "0")
    assert stored_complaint(cache, "colour") is not None
    (cache.reports_dir / "retrieval.json").write_bytes(b"{")
    with pytest.raises(DamagedCacheError):
        report_teacher(cache, "colour", None)
    (cache.reports_dir / "retrieval.json").unlink()
    assert "published is 0.0" in report_teacher(cache, "colour", "0")
    assert stored_complaint(cache, "colour") is not None


def test_a_number_that_was_stated_holds_until_it_is_withdrawn(root, cache, capsys):
    said = ["report", str(root)]
    assert run_cli(build_parser(), [*said, "--expect-r1", "0"]) == 1
    assert run_cli(build_parser(), said) == 1
    assert "is withdrawn by --expect-r1 none" in capsys.readouterr().err
    assert run_cli(build_parser(), [*said, "--expect-r1", "none"]) == 0
    assert run_cli(build_parser(), said) == 0
    assert stored_complaint(cache, "colour") is None
