"""MSVD, VATEX, ActivityNet Captions, DiDeMo and LSMDC: every trap of their files, on real excerpts and small
files."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from store.errors import InputError
from store.inputs.annotation_files import id_list
from store.inputs.datasets import activitynet, didemo, load_dataset, lsmdc, msvd, vatex
from tests.store.inputs.datasets import official_files


@pytest.fixture
def annotations(shared):
    return shared / "data" / "annotations"


def copy(source: Path, target: Path, *names: str) -> None:
    for name in names:
        shutil.copyfile(source / name, target / name)


def texts_of(samples, id):
    row = [video.id for video in samples.videos].index(id)
    return [text.text for text in samples.texts if text.video == row]


def msvd_excerpt(annotations, folder):
    copy(annotations / "msvd", folder, msvd.CAPTIONS_XPOOL, *msvd.LISTS.values())
    official = json.loads((folder / msvd.CAPTIONS_XPOOL).read_text())
    for id in official:
        official_files.touch(folder / "YouTubeClips", f"{id}.avi")
    return official


def test_msvd_lists_have_the_published_sizes(annotations):
    sizes = {split: len(id_list(annotations / "msvd" / name)) for split, name in msvd.LISTS.items()}
    assert sizes == {"train": 1200, "val": 100, "test": 670}


def test_msvd_reads_every_caption_of_ids_that_begin_with_a_dash_or_underscore(annotations, tmp_path):
    official = msvd_excerpt(annotations, tmp_path)
    samples = load_dataset("msvd", tmp_path, allow_missing=True)
    assert {video.id for video in samples.videos} == set(official)
    assert any(id.startswith("-") for id in official)
    assert any(id.count("_") > 2 for id in official)
    for id, captions in official.items():
        assert texts_of(samples, id) == [" ".join(caption.split()) for caption in captions]
    assert any(len(set(captions)) < len(captions) for captions in official.values()), "repeats are kept"
    assert samples.protocol == "multi-caption"


def test_msvd_reads_the_same_rows_from_clip4clips_pickle_of_tokens(annotations, tmp_path):
    official = msvd_excerpt(annotations, tmp_path)
    from_json = load_dataset("msvd", tmp_path, allow_missing=True)
    tokens = {id: [caption.split() for caption in captions] for id, captions in official.items()}
    for protocol in (0, 2, 4):
        (tmp_path / msvd.CAPTIONS).write_bytes(pickle.dumps(tokens, protocol=protocol))
        assert load_dataset("msvd", tmp_path, allow_missing=True).rows_digest() == from_json.rows_digest()


def test_a_vatex_id_is_split_from_the_right():
    assert vatex.clip_of("", "5-xGskbsBgI_000055_000065") == ("5-xGskbsBgI", 55, 65)
    assert vatex.clip_of("", "-a_b_000001_000011") == ("-a_b", 1, 11)
    with pytest.raises(InputError, match="no videoID of VATEX"):
        vatex.clip_of("", "5-xGskbsBgI_55_65")


def test_the_real_vatex_entries_are_read_without_chinese(annotations):
    captions = vatex.english_captions(annotations / "vatex" / "videocap5data.json")
    assert len(captions) == 5
    assert all(len(texts) == 10 for texts in captions.values())
    assert "A guy is explaining" in " ".join(captions["5-xGskbsBgI_000055_000065"]), (
        "inner spaces are squeezed"
    )


def test_vatex_halves_come_as_an_array_or_as_text_and_never_as_a_pickle(tmp_path):
    official_files.vatex(tmp_path)
    as_array = load_dataset("vatex", tmp_path, allow_missing=True)
    names = tmp_path / "val_names.npy"
    np.save(names, np.array([id.encode() for id in official_files.VATEX_IDS[1:2]]))
    assert load_dataset("vatex", tmp_path, allow_missing=True).rows_digest() == as_array.rows_digest()
    np.save(names, np.array(official_files.VATEX_IDS[1:2], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"val_names\.npy: .*into val_names\.txt"):
        load_dataset("vatex", tmp_path, allow_missing=True)


def activitynet_excerpt(annotations, folder, file_name):
    source = annotations / "activitynet"
    shutil.copyfile(source / "train_modified.json", folder / activitynet.TRAIN)
    copy(source, folder, activitynet.TEST)
    official = {}
    for name in (activitynet.TRAIN, activitynet.TEST):
        official |= json.loads((folder / name).read_text())
    for id in official:
        official_files.touch(folder / "Activity_Videos", file_name(id))
    return official


@pytest.mark.parametrize(
    "file_name", [lambda id: f"{id}.mp4", lambda id: f"{id[2:]}.mp4"], ids=["v_", "bare"]
)
def test_activitynet_joins_the_sentences_of_a_video(annotations, tmp_path, file_name):
    """Files are named with or without v_; ids hold dashes; sentences begin with spaces and hold newlines."""
    official = activitynet_excerpt(annotations, tmp_path, file_name)
    samples = load_dataset("activitynet", tmp_path, allow_missing=True)
    assert {video.id for video in samples.videos} == set(official)
    assert any(s.startswith(" ") for item in official.values() for s in item["sentences"])
    for id, item in official.items():
        assert texts_of(samples, id) == [" ".join(" ".join(item["sentences"]).split())]
    assert samples.protocol == "paragraph"


def test_activitynet_moments_lie_in_the_video(annotations, tmp_path):
    official = activitynet_excerpt(annotations, tmp_path, lambda id: f"{id}.mp4")
    samples = load_dataset("activitynet", tmp_path, allow_missing=True)
    for video in samples.videos:
        assert video.moment_s is not None
        start_s, end_s = video.moment_s
        assert 0 <= start_s < end_s <= official[video.id]["duration"]


def test_the_second_annotation_of_activitynet_is_not_used(annotations, tmp_path):
    activitynet_excerpt(annotations, tmp_path, lambda id: f"{id}.mp4")
    samples = load_dataset("activitynet", tmp_path, allow_missing=True)
    copy(annotations / "activitynet", tmp_path, "val_2.json")
    assert load_dataset("activitynet", tmp_path, allow_missing=True).rows_digest() == samples.rows_digest()


@pytest.mark.parametrize(
    ("duration", "times", "moment"),
    [
        (20.5, [[0, 3.5], [2, 21]], (0.0, 20.5)),
        (20, [[5, 9.5], [1, 2]], (1.0, 9.5)),
        (20, [[3, 3]], None),
        (20, [], None),
        (20, [[9, 4]], (4.0, 9.0)),
    ],
)
def test_activitynet_times_are_unordered_too_long_or_empty(duration, times, moment):
    item = {"duration": duration, "timestamps": times, "sentences": ["a"]}
    assert activitynet.described("", item) == moment


def test_activitynet_ids_are_v_and_eleven_letters(tmp_path):
    official_files.activitynet(tmp_path)
    content = (tmp_path / activitynet.TRAIN).read_text().replace("v_uqiMw7tQ1Cc", "uqiMw7tQ1Cc")
    (tmp_path / activitynet.TRAIN).write_text(content)
    with pytest.raises(InputError, match=r"train\.json: 'uqiMw7tQ1Cc': expected v_"):
        load_dataset("activitynet", tmp_path, allow_missing=True)


def test_didemo_joins_scattered_descriptions_in_the_files_order(annotations, tmp_path):
    copy(annotations / "didemo", tmp_path, didemo.FILES["val"], didemo.FILES["test"])
    (tmp_path / didemo.FILES["train"]).write_text("[]")
    entries = [
        entry
        for split in ("val", "test")
        for entry in json.loads((tmp_path / didemo.FILES[split]).read_text())
    ]
    names = list(dict.fromkeys(entry["video"] for entry in entries))
    assert [entry["video"] for entry in entries] != sorted(
        (entry["video"] for entry in entries), key=names.index
    )
    assert any(entry["description"] != entry["description"].strip() for entry in entries)
    for at, name in enumerate(names):
        stem = name.rsplit(".", 1)[0]
        official_files.touch(tmp_path / "DiDeMo_Videos", name if at % 3 else f"{stem}.mp4")
    samples = load_dataset("didemo", tmp_path, allow_missing=True)
    assert len(samples.videos) == len(names), "another extension than the annotated one is found"
    for name in names:
        descriptions = [entry["description"] for entry in entries if entry["video"] == name]
        assert texts_of(samples, name.rsplit(".", 1)[0]) == [" ".join(" ".join(descriptions).split())]


def test_didemo_names_may_end_in_a_bare_dot_and_the_exact_file_wins(tmp_path):
    official_files.didemo(tmp_path)
    clips = tmp_path / "DiDeMo_Videos"
    (clips / "35034348999@N01_6060447507_dc1a90b8ef.avi").touch()
    samples = load_dataset("didemo", tmp_path, allow_missing=True)
    names = [video.path.name for video in samples.videos]
    assert names == ["35034348999@N01_6060447507_dc1a90b8ef.mov", "39727414@N00_36_45.", "1@N0_1_b.mp4"]


@pytest.mark.parametrize(
    ("chunks", "moment"),
    [([1, 1], (5.0, 10.0)), ([0, 0, 4, 5], (0.0, 30.0)), ([5, 6], (25.0, 30.0)), ([6, 6], None), ([], None)],
)
def test_didemo_chunks_are_inclusive_and_end_with_what_annotators_saw(chunks, moment):
    assert didemo.moment_s(chunks) == moment


def test_didemo_times_may_come_from_five_or_seven_annotators(annotations):
    times = [
        len(entry["times"])
        for name in ("val_data.json", "test_data.json")
        for entry in json.loads((annotations / "didemo" / name).read_text())
    ]
    assert set(times) > {4}
    assert didemo.chunks_of("", {"times": [[0, 1]] * 7}) == [0, 1] * 7


def lsmdc_line(clip, sentence):
    return "\t".join([clip, "00.00", "00.01", "00.00", "00.01", sentence]) + "\n"


def test_lsmdc_has_no_header_and_its_first_clip_is_not_lost(tmp_path):
    official_files.lsmdc(tmp_path)
    samples = load_dataset("lsmdc", tmp_path, allow_missing=True)
    assert samples.videos[0].id == "0000_American_Beauty_00.00.50.926-00.00.54.129"
    assert samples.videos[0].path.parent.name == "0000_American_Beauty"
    path = tmp_path / lsmdc.FILES["train"]
    path.write_text("\t".join(lsmdc.COLUMNS) + "\n" + path.read_text())
    with pytest.raises(InputError, match=r"LSMDC16_annos_training\.csv:1: a header"):
        load_dataset("lsmdc", tmp_path, allow_missing=True)


def test_lsmdc_clips_may_have_several_sentences_in_training_but_not_in_the_test(tmp_path):
    official_files.lsmdc(tmp_path)
    clip = "0000_American_Beauty_00.00.50.926-00.00.54.129"
    with (tmp_path / lsmdc.FILES["train"]).open("a") as file:
        file.write(lsmdc_line(clip, "SOMEONE's  sister, again."))
    samples = load_dataset("lsmdc", tmp_path, allow_missing=True)
    assert texts_of(samples, clip) == [f"SOMEONE looks at {clip}.", "SOMEONE's sister, again."]
    path = tmp_path / lsmdc.FILES["test"]
    path.write_text(path.read_text() * 2)
    with pytest.raises(InputError, match=r"publictect\.csv:2: clip .* comes twice"):
        load_dataset("lsmdc", tmp_path, allow_missing=True)


@pytest.mark.parametrize("columns", [5, 7])
def test_lsmdc_lines_have_six_columns(tmp_path, columns):
    official_files.lsmdc(tmp_path)
    (tmp_path / lsmdc.FILES["val"]).write_text("\t".join(["x"] * columns) + "\n")
    with pytest.raises(InputError, match=r"LSMDC16_annos_val\.csv:1: (expected CLIP_ID|more than 6)"):
        load_dataset("lsmdc", tmp_path, allow_missing=True)
