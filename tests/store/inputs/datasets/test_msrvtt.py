"""MSR-VTT from the files as they are published, in its three splits."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter

import pytest

from store.errors import InputError, MissingFileError
from store.inputs.datasets import load_dataset, msrvtt

TRAIN = [f"video{number}" for number in range(9000)]
TEST = [f"video{number}" for number in range(9000, 10000)]


@pytest.fixture
def excerpt(shared, tmp_path):
    """The official files, of which the captions are an excerpt of 58 videos, and a clip of each."""
    source = shared / "data" / "annotations" / "msrvtt"
    for name in (
        msrvtt.TRAIN_9K,
        msrvtt.TRAIN_7K,
        msrvtt.TEST,
        msrvtt.TRAIN_VAL_OFFICIAL,
        msrvtt.TEST_OFFICIAL,
    ):
        shutil.copyfile(source / name, tmp_path / name)
    shutil.copyfile(source / "derived" / msrvtt.CAPTIONS, tmp_path / msrvtt.CAPTIONS)
    clips = tmp_path / "MSRVTT_Videos"
    clips.mkdir()
    for video in json.loads((tmp_path / msrvtt.CAPTIONS).read_text())["videos"]:
        (clips / f"{video['video_id']}.mp4").touch()
    return tmp_path


def write_annotations(folder, sentences_per_video=20):
    """Files as large as the published ones."""
    (folder / msrvtt.TRAIN_9K).write_text("video_id\r\n" + "\r\n".join(TRAIN) + "\r\n")
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
    samples = load_dataset("msrvtt", whole)
    train, test = samples.splits["train"], samples.splits["test"]
    assert (len(train.video), len(train.text), len(test.video), len(test.text)) == (9000, 180_000, 1000, 1000)
    assert samples.missing == {}
    assert samples.videos[0].id == "video0"
    assert [text.text for text in samples.texts[:2]] == ["caption 0 of video0", "caption 1 of video0"]
    assert samples.texts[int(test.text[3])].text == "a test sentence of video9003"
    assert samples.texts[int(test.text[3])].video == test.video[3]


def test_other_counts_than_the_published_ones_are_refused(tmp_path):
    write_annotations(tmp_path, sentences_per_video=2)
    with pytest.raises(InputError, match="18,000 train texts, the published msrvtt has 180,000"):
        load_dataset("msrvtt", tmp_path)


def test_a_missing_clip_is_refused_unless_allowed_and_then_recorded(whole):
    gone = [whole / "videos" / "all" / f"{id}.mp4" for id in ("video7", "video9001")]
    for clip in gone:
        clip.unlink()
    try:
        with pytest.raises(
            MissingFileError, match="2 of 10000 video files are missing, first: video7, video9001"
        ):
            load_dataset("msrvtt", whole)
        samples = load_dataset("msrvtt", whole, allow_missing=True)
    finally:
        for clip in gone:
            clip.touch()
    assert (len(samples.splits["train"].text), len(samples.splits["test"].text)) == (179_980, 999)
    assert samples.missing == {"train videos": 1, "train texts": 20, "test videos": 1, "test texts": 1}


@pytest.mark.parametrize("name", ["msrvtt", "msrvtt-7k", "msrvtt-official"])
def test_an_excerpt_is_refused_unless_allowed(excerpt, name):
    with pytest.raises(InputError, match="the published msrvtt"):
        load_dataset(name, excerpt)


def test_captions_of_the_excerpt_keep_their_order_and_repeats_and_lose_outer_spaces(excerpt):
    official = json.loads((excerpt / msrvtt.CAPTIONS).read_text())["sentences"]
    assert official[0]["video_id"] != "video0", "the trap: sentences are not in the order of the videos"
    assert any(s["caption"] != s["caption"].strip() for s in official)
    assert any(not s["caption"].isascii() for s in official)
    samples = load_dataset("msrvtt", excerpt, allow_missing=True)
    train = samples.splits["train"]
    captions = {}
    for sentence in official:
        captions.setdefault(sentence["video_id"], []).append(" ".join(sentence["caption"].split()))
    assert any(len(set(texts)) < len(texts) for texts in captions.values())
    for row in train.video:
        ours = [samples.texts[text].text for text in train.text if samples.texts[text].video == row]
        assert ours == captions[samples.videos[row].id]
        assert len(ours) == 20


def test_test_sentences_are_those_of_the_csv_even_where_the_json_spells_them_otherwise(excerpt):
    with (excerpt / msrvtt.TEST).open(newline="") as file:
        sentence_of = {row["video_id"]: row["sentence"] for row in csv.DictReader(file)}
    samples = load_dataset("msrvtt", excerpt, allow_missing=True)
    test = samples.splits["test"]
    ids = [samples.videos[row].id for row in test.video]
    assert 0 < len(ids) == len(test.text)
    assert [samples.texts[row].text for row in test.text] == [sentence_of[id] for id in ids]
    in_json = {s["caption"] for s in json.loads((excerpt / msrvtt.CAPTIONS).read_text())["sentences"]}
    assert any(sentence_of[id] not in in_json for id in ids)


@pytest.mark.slow
def test_the_real_lists_are_disjoint_and_together_are_everything(excerpt):
    for id in TRAIN + TEST:
        (excerpt / "MSRVTT_Videos" / f"{id}.mp4").touch()
    path = excerpt / msrvtt.CAPTIONS
    path.write_text(
        json.dumps(
            {"sentences": [{"video_id": id, "caption": "a"} for id in TRAIN + TEST for _ in range(20)]}
        )
    )
    nine = load_dataset("msrvtt", excerpt)
    assert sorted(video.id for video in nine.videos) == sorted(TRAIN + TEST)
    test = [nine.videos[row].id for row in nine.splits["test"].video]
    assert all(7010 <= int(id.removeprefix("video")) <= 9999 for id in test)
    texts = Counter(nine.texts[row].text for row in nine.splits["test"].text)
    assert sum(count - 1 for count in texts.values()) == 5, "four sentences occur more than once"
    seven = load_dataset("msrvtt-7k", excerpt)
    assert len(seven.splits["train"].video) == 7010, "the file is called 7k and has 7,010 rows"
    assert [video.id for video in seven.videos[:2]] == ["video0", "video1000"]


def test_the_official_split_calls_validation_validate_and_tests_every_caption(excerpt):
    samples = load_dataset("msrvtt-official", excerpt, allow_missing=True)
    number = {
        split: sorted(int(samples.videos[row].id.removeprefix("video")) for row in rows.video)
        for split, rows in samples.splits.items()
    }
    assert max(number["train"]) <= 6512 < min(number["val"])
    assert max(number["val"]) <= 7009 < min(number["test"])
    for split in samples.splits.values():
        assert len(split.text) == 20 * len(split.video)
    assert samples.protocol == "multi-caption"
    assert samples.missing["test videos"] == 2990 - len(number["test"])


@pytest.fixture(scope="module")
def whole_digest(whole):
    return load_dataset("msrvtt", whole).rows_digest()


@pytest.mark.slow
@pytest.mark.parametrize("layout", msrvtt.LAYOUTS, ids=lambda layout: layout.title)
def test_every_layout_is_recognised(whole, whole_digest, tmp_path, layout):
    (tmp_path / layout.annotations).mkdir(parents=True, exist_ok=True)
    for name in (msrvtt.CAPTIONS, msrvtt.TRAIN_9K, msrvtt.TEST):
        (tmp_path / layout.annotations / name).symlink_to(whole / name)
    (tmp_path / layout.videos).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / layout.videos).symlink_to(whole / "videos" / "all")
    assert load_dataset("msrvtt", tmp_path).rows_digest() == whole_digest


def test_missing_annotations_say_what_to_place_where(tmp_path):
    with pytest.raises(MissingFileError) as caught:
        load_dataset("msrvtt", tmp_path)
    message = str(caught.value)
    names = (msrvtt.CAPTIONS, msrvtt.TRAIN_9K, msrvtt.TEST, "videos/all", "msrvtt_data.zip", "MSRVTT.zip")
    assert all(part in message for part in names)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (msrvtt.CAPTIONS, "[]", "expected an object"),
        (
            msrvtt.CAPTIONS,
            '{"sentences": [{"video_id": 1, "caption": "a"}]}',
            "sentence 0, 'video_id': expected a",
        ),
        (msrvtt.CAPTIONS, "{\n\n,", ":3: not JSON"),
        (msrvtt.TRAIN_9K, "video_id\nvideo\xe9\n", ":2: not UTF-8"),
        (msrvtt.TRAIN_9K, "id\nvideo0\n", ":1: the column 'video_id' is missing"),
        (msrvtt.TEST, "key,vid_key,video_id,sentence\nret0,msr0,video9000\n", ":2: 3 fields"),
        (msrvtt.TRAIN_9K, "video_id\nvideo0\n../video1\n", ":3: '../video1' is no id"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, name, content, message):
    for other in (msrvtt.CAPTIONS, msrvtt.TRAIN_9K, msrvtt.TEST):
        (tmp_path / other).write_text(
            '{"sentences": []}' if other == msrvtt.CAPTIONS else "video_id,sentence\nvideo0,a\n"
        )
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=message) as caught:
        load_dataset("msrvtt", tmp_path)
    assert name in str(caught.value)


def test_a_video_of_both_splits_is_refused(excerpt):
    with (excerpt / msrvtt.TRAIN_9K).open("a") as file:
        file.write("video7020\n")
    with pytest.raises(InputError, match="'video7020' is in the train split and comes again in test"):
        load_dataset("msrvtt", excerpt, allow_missing=True)
