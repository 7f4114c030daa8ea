"""MSR-VTT 1k-A from the files as they are published."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

from store.errors import InputError, MissingFileError
from store.inputs.datasets import msrvtt


@pytest.fixture
def excerpt(shared, tmp_path):
    """The official files, of which the captions are an excerpt: 58 videos."""
    source = shared / "data" / "annotations" / "msrvtt"
    for name in (msrvtt.TRAIN_IDS, msrvtt.TEST):
        shutil.copyfile(source / name, tmp_path / name)
    shutil.copyfile(source / "derived" / msrvtt.CAPTIONS, tmp_path / msrvtt.CAPTIONS)
    return tmp_path


TRAIN = [f"video{number}" for number in range(9000)]
TEST = [f"video{number}" for number in range(9000, 10000)]


def write_annotations(folder, sentences_per_video=20):
    """Files as large as the published ones."""
    (folder / msrvtt.TRAIN_IDS).write_text("video_id\r\n" + "\r\n".join(TRAIN) + "\r\n")
    rows = [f"ret{at},msr{at},{id},a test sentence of {id}" for at, id in enumerate(TEST)]
    (folder / msrvtt.TEST).write_text("key,vid_key,video_id,sentence\n" + "\n".join(rows) + "\n")
    sentences = [
        {"video_id": id, "caption": f" caption {at} of {id} ", "sen_id": at}
        for id in reversed(TRAIN + TEST)
        for at in range(sentences_per_video)
    ]
    (folder / msrvtt.CAPTIONS).write_text(json.dumps({"info": {}, "videos": [], "sentences": sentences}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with as many captions and clips as are published; the clips are of no bytes."""
    folder = tmp_path_factory.mktemp("msrvtt")
    write_annotations(folder)
    clips = folder / "videos" / "all"
    clips.mkdir(parents=True)
    for id in TRAIN + TEST:
        (clips / f"{id}.mp4").touch()
    return folder


def test_the_published_split_has_the_published_counts(whole):
    samples = msrvtt.load(whole)
    train, test = samples.splits["train"], samples.splits["test"]
    assert (len(train.video), len(train.text), len(test.video), len(test.text)) == (9000, 180_000, 1000, 1000)
    assert samples.videos[0].id == "video0"
    assert [text.text for text in samples.texts[:2]] == ["caption 0 of video0", "caption 1 of video0"]
    assert samples.texts[int(test.text[3])].text == "a test sentence of video9003"
    assert samples.texts[int(test.text[3])].video == test.video[3]


def test_other_counts_than_the_published_ones_are_refused(tmp_path):
    write_annotations(tmp_path, sentences_per_video=2)
    with pytest.raises(InputError, match="18,000 training captions, the published split has 180,000"):
        msrvtt.load(tmp_path)


def test_a_missing_clip_is_refused_unless_allowed(whole):
    gone = [whole / "videos" / "all" / f"{id}.mp4" for id in ("video7", "video9001")]
    for clip in gone:
        clip.unlink()
    try:
        with pytest.raises(
            MissingFileError, match="2 of 10000 video files are missing, first: video7, video9001"
        ):
            msrvtt.load(whole)
        samples = msrvtt.load(whole, allow_missing=True)
    finally:
        for clip in gone:
            clip.touch()
    assert (len(samples.splits["train"].text), len(samples.splits["test"].text)) == (179_980, 999)


def test_an_excerpt_is_refused_unless_allowed(excerpt):
    with pytest.raises(InputError, match="training captions, the published split has 180,000"):
        msrvtt.load(excerpt)


@pytest.mark.parametrize("folder", msrvtt.VIDEO_FOLDERS)
def test_the_official_excerpt_is_read_whole(excerpt, folder):
    official = json.loads((excerpt / msrvtt.CAPTIONS).read_text())
    clips = excerpt / folder
    clips.mkdir(parents=True)
    for video in official["videos"]:
        (clips / f"{video['video_id']}.mp4").touch()
    (clips / "video7020.mp4").touch()
    samples = msrvtt.load(excerpt, allow_missing=True)
    train = samples.splits["train"]
    captions = {}
    for sentence in official["sentences"]:
        captions.setdefault(sentence["video_id"], []).append(sentence["caption"].strip())
    assert len(train.video) > 0
    for row in train.video:
        ours = [samples.texts[text].text for text in train.text if samples.texts[text].video == row]
        assert ours == captions[samples.videos[row].id]
    with (excerpt / msrvtt.TEST).open(newline="") as file:
        sentence_of = {row["video_id"]: row["sentence"] for row in csv.DictReader(file)}
    test = samples.splits["test"]
    ids = [samples.videos[row].id for row in test.video]
    assert set(ids) == sentence_of.keys() & {path.stem for path in clips.iterdir()} != set()
    assert [samples.texts[row].text for row in test.text] == [sentence_of[id] for id in ids]


def test_missing_annotations_say_what_to_place_where(tmp_path):
    with pytest.raises(MissingFileError) as caught:
        msrvtt.load(tmp_path)
    message = str(caught.value)
    for part in (
        msrvtt.CAPTIONS,
        msrvtt.TRAIN_IDS,
        msrvtt.TEST,
        "videos/all",
        "msrvtt_data.zip",
        "MSRVTT.zip",
    ):
        assert part in message
    assert "\n" not in message


def test_missing_clips_say_what_to_place_where(excerpt):
    with pytest.raises(MissingFileError, match=r"holds none of the 10000 clips; .*<id>\.mp4 in videos/all"):
        msrvtt.load(excerpt, allow_missing=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (msrvtt.CAPTIONS, "[]", "not MSR-VTT's json"),
        (msrvtt.CAPTIONS, "{", "not MSR-VTT's json"),
        (msrvtt.TRAIN_IDS, "video_id\nvideo\xe9\n", "not a csv in UTF-8"),
        (msrvtt.TRAIN_IDS, "id\nvideo0\n", "row 2 lacks video_id"),
        (msrvtt.TEST, "key,vid_key,video_id,sentence\nret0,msr0,video9000\n", "row 2 lacks"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, name, content, message):
    for other in (msrvtt.CAPTIONS, msrvtt.TRAIN_IDS, msrvtt.TEST):
        (tmp_path / other).write_text(
            '{"sentences": []}' if other == msrvtt.CAPTIONS else "video_id,sentence\n"
        )
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=message) as caught:
        msrvtt.load(tmp_path)
    assert name in str(caught.value)


def test_a_video_of_both_splits_is_refused(excerpt):
    with (excerpt / msrvtt.TRAIN_IDS).open("a") as file:
        file.write("video7020\n")
    with pytest.raises(InputError, match="1 videos are in"):
        msrvtt.load(excerpt)
