"""Students trained on frames that are decoded from video files: the same numbers as from kept frames."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from store.decoded_frames import DecodedFrames
from store.errors import IdentityError, InputError, MissingFileError
from store.reader import open_cache
from student_train.__main__ import main
from tests.teacher_dump.colour_teacher import colour_samples, write_clip
from tests.test_pixel_students import AFA, dumped

LOSSES = ["--set", "losses={info_nce: 1, coarse_pearson: 1}", "--seeds", "0", "--arms", "taught"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    colour_samples(folder)
    return folder


@pytest.fixture(scope="module")
def caches(clips: Path) -> dict[str, Path]:
    """With frames kept raw, and with none."""
    return {"kept": dumped(clips, "raw"), "none": dumped(clips, None)}


@pytest.fixture
def copy(clips: Path, tmp_path: Path) -> Path:
    """A teammate's copy of the clips, in a folder of its own layout."""
    (tmp_path / "theirs" / "videos").mkdir(parents=True)
    for path in clips.glob("*.mp4"):
        shutil.copy(path, tmp_path / "theirs" / "videos")
    return tmp_path / "theirs"


def losses(run: Path) -> list[float]:
    (log,) = run.glob("trainings/*/log.jsonl")
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()]


@pytest.mark.slow
def test_losses_and_metrics_equal_those_of_kept_frames(
    caches: dict[str, Path], copy: Path, tmp_path: Path
) -> None:
    words = [*AFA, *LOSSES, "--epochs", "2"]
    assert main(["train", str(caches["kept"]), "--out", str(tmp_path / "kept"), *words]) == 0
    videos = ["--videos", str(copy)]
    assert main(["train", str(caches["none"]), "--out", str(tmp_path / "files"), *words, *videos]) == 0
    assert losses(tmp_path / "files") == losses(tmp_path / "kept") != []
    found = [json.loads((tmp_path / run / "results.json").read_text()) for run in ("files", "kept")]
    assert found[0]["taught"] == found[1]["taught"]
    assert main(["evaluate", str(tmp_path / "files"), *videos]) == 0


def test_frames_of_files_are_those_that_the_cache_keeps(caches: dict[str, Path], copy: Path) -> None:
    cache = open_cache(caches["kept"])
    teacher = cache.teacher("clip4clip")
    rows = np.array([5, 0, 3, 0])
    with DecodedFrames(cache, teacher.view.name, copy) as files:
        assert np.array_equal(files.read(rows), teacher.pixels.read(rows))


def test_another_video_of_the_same_name_is_refused(caches: dict[str, Path], copy: Path) -> None:
    cache = open_cache(caches["none"])
    write_clip(copy / "videos" / "0_red.mp4", ["blue", "grey"])
    with DecodedFrames(cache, cache.teacher("clip4clip").view.name, copy) as files:
        with pytest.raises(IdentityError, match=r"0_red.mp4 is not the video .* show other pictures"):
            files.read(np.array([1, 0]))
        assert files.read(np.array([1])).any(), "the others can be read"


@pytest.mark.slow
def test_a_shorter_cut_of_the_video_is_refused(caches: dict[str, Path], copy: Path) -> None:
    cache = open_cache(caches["none"])
    write_clip(copy / "videos" / "0_red.mp4", ["red", "grey"], frames_each=9)
    with (
        DecodedFrames(cache, cache.teacher("clip4clip").view.name, copy) as files,
        pytest.raises(IdentityError, match="lie at other times"),
    ):
        files.read(np.array([0]))


@pytest.mark.slow
def test_a_file_that_does_not_decode_is_refused(caches: dict[str, Path], copy: Path) -> None:
    cache = open_cache(caches["none"])
    (copy / "videos" / "0_red.mp4").write_bytes(b"this is no video")
    with (
        DecodedFrames(cache, cache.teacher("clip4clip").view.name, copy) as files,
        pytest.raises(IdentityError, match="does not decode here"),
    ):
        files.read(np.array([0]))


def test_a_copy_that_lacks_videos_is_refused_before_the_first_step(
    caches: dict[str, Path], copy: Path, tmp_path: Path, capsys
) -> None:
    (copy / "videos" / "2_blue.mp4").unlink()
    words = ["train", str(caches["none"]), "--out", str(tmp_path / "run"), *AFA, *LOSSES]
    assert main([*words, "--videos", str(copy)]) == 2
    told = capsys.readouterr().err
    assert "lacks 1 of 8 videos" in told
    assert "2_blue.mp4" in told
    assert not (tmp_path / "run").exists()


def test_videos_for_a_student_that_reads_none_are_refused(
    caches: dict[str, Path], copy: Path, tmp_path: Path, capsys
) -> None:
    words = ["train", str(caches["none"]), "--out", str(tmp_path / "run"), "--recipe", "demo", *LOSSES]
    words += ["--batch-size", "3", "--learning-rates", "0.001"]
    assert main([*words, "--videos", str(copy)]) == 2
    assert "leave out --videos" in capsys.readouterr().err


@pytest.mark.slow
def test_a_failed_video_and_a_folder_that_is_none_are_refused(tmp_path: Path, copy: Path) -> None:
    samples = colour_samples(tmp_path, broken=(0,))
    assert samples.videos[0].path.read_bytes() == b"this is no video"
    cache = open_cache(dumped(tmp_path, None))
    view = cache.teacher("clip4clip").view.name
    with DecodedFrames(cache, view, copy) as files, pytest.raises(InputError, match=r"'0_red.mp4' failed"):
        files.read(np.array([0]))
    with pytest.raises(MissingFileError, match="is no folder"):
        DecodedFrames(cache, view, tmp_path / "nowhere")
