"""Whatever single thing is changed in a finished cache, `verify` finds it and names the object."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from store.errors import CacheError, DamagedCacheError
from store.reader import TeacherReader, open_cache
from store.verify import verify
from tests.synthetic_cache import SIGNALS, synthetic_samples, synthetic_values, write_synthetic_cache

SMALL = (SIGNALS[0], SIGNALS[3])


def flip_a_bit(file: Path, draw: random.Random, others: list[Path]) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def cut_off_the_end(file: Path, draw: random.Random, others: list[Path]) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: draw.randrange(len(content))])


def append_bytes(file: Path, draw: random.Random, others: list[Path]) -> None:
    with open(file, "ab") as stream:
        stream.write(draw.choice([b"\0", b" ", b"\n", draw.randbytes(draw.randrange(1, 99))]))


def delete(file: Path, draw: random.Random, others: list[Path]) -> None:
    file.unlink()


def put_another_object_in_its_place(file: Path, draw: random.Random, others: list[Path]) -> None:
    content = file.read_bytes()
    different = [other.read_bytes() for other in others if other.read_bytes() != content]
    alike = [other for other in different if len(other) == len(content)]
    file.write_bytes(draw.choice(alike or different))


def change_a_blank(file: Path, draw: random.Random, others: list[Path]) -> None:
    """The JSON means what it meant; in other objects two neighbouring bytes change places."""
    content = file.read_bytes()
    if file.suffix == ".json":
        place = draw.choice([place for place, byte in enumerate(content) if byte in b":,"]) + 1
        file.write_bytes(content[:place] + draw.choice([b" ", b"\n", b"\t"]) + content[place:])
    else:
        place = draw.choice(
            [place for place in range(len(content) - 1) if content[place] != content[place + 1]]
        )
        file.write_bytes(content[:place] + content[place : place + 2][::-1] + content[place + 2 :])


CHANGES = (
    *(flip_a_bit,) * 3,
    cut_off_the_end,
    append_bytes,
    delete,
    put_another_object_in_its_place,
    change_a_blank,
)


@pytest.fixture(scope="module")
def sound_cache(tmp_path_factory):
    samples = synthetic_samples(4)
    root = tmp_path_factory.mktemp("faults") / "c.zarr"
    return write_synthetic_cache(root, samples, failed=frozenset({1}), signals=SMALL, shard_rows=3)


@pytest.fixture
def cache(sound_cache, tmp_path):
    return shutil.copytree(sound_cache, tmp_path / "c.zarr")


def found_at(root: Path) -> list[str]:
    """What verify complains of: paths, or the one line that it ends with."""
    try:
        report = verify(root)
    except CacheError as error:
        return [str(error)]
    assert report.count == len(report.faults)
    return [fault.path for fault in report.faults]


@pytest.mark.parametrize("faults", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_each_of_many_random_single_faults_is_found_and_named(cache, faults):
    """Seeded, so that a failure repeats; of a thousand, every object comes up a dozen times."""
    draw = random.Random(2026)
    files = sorted(path for path in cache.rglob("*") if path.is_file())
    tried, missed = Counter(), []
    assert found_at(cache) == []
    for number in range(faults):
        file, change = files[number % len(files)], draw.choice(CHANGES)
        content, name = file.read_bytes(), file.relative_to(cache).as_posix()
        change(file, draw, files)
        if not any(name in found for found in found_at(cache)):
            missed.append((change.__name__, name))
        file.write_bytes(content)
        tried[change.__name__] += 1
    assert missed == []
    assert found_at(cache) == []
    assert sum(tried.values()) == faults
    assert len(tried) == len(set(CHANGES))


@pytest.mark.slow
def test_an_added_object_is_found_wherever_it_lies(cache):
    draw = random.Random(5)
    files = sorted(path for path in cache.rglob("*") if path.is_file())
    folders = sorted(path for path in cache.rglob("*") if path.is_dir())
    for folder in [cache, *folders]:
        name = draw.choice(["added", "zarr.json.partial", "99", ".hidden", "manifest.json.bak", "c\x1b[2J"])
        added = folder / name
        added.write_bytes(draw.choice(files).read_bytes())
        assert found_at(cache) == [added.relative_to(cache).as_posix()]
        added.unlink()


def test_reports_and_the_card_are_nobody_elses_business(cache):
    (cache / "reports").mkdir()
    (cache / "reports" / "dump.json").write_text("{}")
    (cache / "README.md").write_text("# a cache")
    assert found_at(cache) == []


def test_an_empty_folder_is_found_too(cache):
    (cache / "teachers/synthetic/frame_embedding/c/7").mkdir()
    (cache / "extra").mkdir()
    assert sorted(found_at(cache)) == ["extra", "teachers/synthetic/frame_embedding/c/7"]


def test_two_objects_that_change_places_are_both_found(cache):
    first, second = (cache / f"teachers/synthetic/frame_relevance/c/{n}/0/0" for n in (0, 1))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert set(found_at(cache)) == {file.relative_to(cache).as_posix() for file in (first, second)}


def test_a_link_to_an_equal_file_is_found(cache, tmp_path):
    for name in (
        "manifest.json",
        "zarr.json",
        "texts/video/c/0",
        "teachers/synthetic/frame_embedding/c/0/0/0/0",
    ):
        twin = tmp_path / "twin"
        twin.write_bytes((cache / name).read_bytes())
        (cache / name).unlink()
        (cache / name).symlink_to(twin)
        assert any(name in found for found in found_at(cache)), name
        (cache / name).unlink()
        (cache / name).write_bytes(twin.read_bytes())
    assert found_at(cache) == []


@pytest.mark.parametrize("resident_bytes", [0, 1 << 20])
def test_training_reads_the_right_number_or_is_told_which_object_is_damaged(cache, resident_bytes):
    samples = synthetic_samples(4)
    values = {name: value.astype(np.float16) for name, value in synthetic_values(samples, SMALL).items()}
    draw = random.Random(7)
    raised = 0
    for _ in range(100):
        spec = draw.choice(SMALL)
        shards = (cache / "teachers/synthetic" / spec.name / "c").rglob("*")
        file = draw.choice(sorted(path for path in shards if path.is_file()))
        content = file.read_bytes()
        flip_a_bit(file, draw, [])
        rows = np.array([row for row in (0, 2, 3) if draw.random() < 0.7] or [0])
        found = read_or_complaint(cache, spec.name, rows, resident_bytes)
        if isinstance(found, str):
            assert f"teachers/synthetic/{spec.name}" in found
            raised += 1
        else:
            np.testing.assert_array_equal(found, values[spec.name][rows])
        file.write_bytes(content)
    assert 30 < raised <= 100


def read_or_complaint(root: Path, signal: str, rows: np.ndarray, resident_bytes: int) -> np.ndarray | str:
    try:
        return TeacherReader(open_cache(root), "synthetic", resident_bytes).read(signal, rows)
    except DamagedCacheError as error:
        return str(error)
