"""Kinetics-400, UCF-101, HMDB-51, Something-Something: classes, their numbers and their texts."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

from store.errors import InputError
from store.inputs.class_names import KINETICS_PROMPTS, PERSON_PROMPT, spaced
from store.inputs.datasets import hmdb51, kinetics400, load_dataset, ssv2, ucf101
from tests.store.inputs.datasets import official_files


@pytest.fixture
def annotations(shared):
    return shared / "data" / "annotations"


def class_of(samples, video):
    return samples.texts[video.label].text.removeprefix("a video of a person ").removesuffix(".")


def kinetics_excerpt(annotations, folder, file_name):
    source = annotations / "kinetics400" / "kinetics-400_val.csv"
    shutil.copyfile(source, folder / "kinetics-400_val.csv")
    (folder / "kinetics-400_train.csv").write_text(
        source.read_text().splitlines()[0] + '\n"abseiling",--aaaaaaaaa,1,11,train,0\n'
    )
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        official_files.touch(folder / "videos" / row["label"], file_name(row))
    return rows


def full_name(row):
    return f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4"


@pytest.mark.parametrize(
    "file_name", [full_name, lambda row: f"{row['youtube_id']}.mp4"], ids=["usual", "Text4Vis"]
)
def test_kinetics_labels_are_those_of_the_csv_under_both_file_names(annotations, tmp_path, file_name):
    rows = kinetics_excerpt(annotations, tmp_path, file_name)
    assert any(row["youtube_id"].startswith("-") for row in rows)
    samples = load_dataset("kinetics400", tmp_path, allow_missing=True)
    assert [video.id for video in samples.videos] == [full_name(row).removesuffix(".mp4") for row in rows]
    assert [class_of(samples, video) for video in samples.videos] == [row["label"] for row in rows]


def test_kinetics_classes_are_numbered_as_in_text4vis(annotations, tmp_path):
    kinetics_excerpt(annotations, tmp_path, full_name)
    samples = load_dataset("kinetics400", tmp_path, allow_missing=True)
    names = kinetics400.numbered_names(annotations / "kinetics400" / "kinetics_400_labels.csv")
    assert len(names) == 400
    assert [text.text for text in samples.texts] == [f"a video of a person {name}." for name in names]


def test_the_real_list_of_text4vis_agrees_with_the_official_one(annotations, tmp_path):
    source = annotations / "kinetics400"
    shutil.copyfile(source / "kinetics_400_labels.csv", tmp_path / "kinetics_400_labels.csv")
    listed = "text4vis_kinetics_video_val_se320.txt"
    shutil.copyfile(source / listed, tmp_path / listed)
    (tmp_path / "kinetics_video_train_se320.txt").write_text("--33Lscn6sk.mp4 129\n")
    names = [line.split()[0] for line in (source / listed).read_text().splitlines()]
    official_files.touch(tmp_path / "videos", *names)
    samples = load_dataset("kinetics400-text4vis", tmp_path, allow_missing=True)
    with (source / "kinetics-400_val.csv").open(newline="") as file:
        official = {row["youtube_id"]: row["label"] for row in csv.DictReader(file)}
    both = [video for video in samples.videos if video.id in official]
    assert len(both) > 1
    assert [class_of(samples, video) for video in both] == [official[video.id] for video in both]


def test_a_list_of_frame_folders_is_refused_in_place_of_one_of_videos(annotations, tmp_path):
    official_files.kinetics400_text4vis(tmp_path)
    source = annotations / "kinetics400" / "text4vis_kinetics_rgb_val_se320.txt"
    listed = tmp_path / "lists" / "kinetics_video_val_se320.txt"
    shutil.copyfile(source, listed)
    with pytest.raises(InputError, match=r"kinetics_video_val_se320\.txt:1: .* is a frame folder"):
        load_dataset("kinetics400-text4vis", tmp_path, allow_missing=True)


def test_the_kinetics_test_list_without_labels_is_refused_in_place_of_val(annotations, tmp_path):
    kinetics_excerpt(annotations, tmp_path, full_name)
    shutil.copyfile(annotations / "kinetics400" / "kinetics-400_test.csv", tmp_path / "kinetics-400_val.csv")
    with pytest.raises(InputError, match=r"kinetics-400_val\.csv:1: the column 'label' is missing"):
        load_dataset("kinetics400", tmp_path, allow_missing=True)


def test_the_28_templates_of_clip_begin_with_the_one_to_evaluate_with(tmp_path):
    assert len(set(KINETICS_PROMPTS)) == 28
    assert KINETICS_PROMPTS[0] == PERSON_PROMPT == "a video of a person {}."
    official_files.kinetics400(tmp_path)
    samples = load_dataset("kinetics400-prompts", tmp_path, allow_missing=True)
    assert len(samples.texts) == 28 * 2
    for row, text in enumerate(samples.texts):
        prompt, number = divmod(row, 2)
        assert text.text == samples.prompts[prompt].format(("abseiling", "air drumming")[number])
    assert all(split.text.tolist() == [0, 1] for split in samples.splits.values())


def ucf_excerpt(annotations, folder):
    for path in (annotations / "ucf101").iterdir():
        shutil.copyfile(path, folder / path.name)
        if "list" in path.name:
            for line in path.read_text().split("\n"):
                if line.strip():
                    official_files.touch(folder / "UCF-101", line.split()[0])


def test_ucf_classes_come_from_the_folder_and_labels_start_at_one(annotations, tmp_path):
    ucf_excerpt(annotations, tmp_path)
    samples = load_dataset("ucf101", tmp_path, allow_missing=True)
    assert len(samples.texts) == 101
    assert len(samples.splits["test"].video) == 3783, "the real test list is whole"
    for video in samples.videos:
        assert class_of(samples, video) == spaced(video.path.parent.name)
    handstand = next(video for video in samples.videos if video.id.startswith("v_HandStandPushups"))
    assert class_of(samples, handstand) == "Handstand Pushups"
    assert "test videos" not in samples.missing
    assert samples.missing["train videos"] == 9537 - len(samples.splits["train"].video)


@pytest.mark.parametrize("split", [2, 3])
def test_ucf_has_three_splits(annotations, tmp_path, split):
    ucf_excerpt(annotations, tmp_path)
    samples = load_dataset(f"ucf101-split{split}", tmp_path, allow_missing=True)
    assert len(samples.splits["train"].video) == len(samples.splits["test"].video) == 202
    assert samples.name == f"ucf101-split{split}"


def test_a_ucf_label_that_is_not_its_folders_is_refused(tmp_path):
    official_files.ucf101(tmp_path)
    path = tmp_path / "ucfTrainTestlist" / ucf101.train_name(1)
    path.write_text(path.read_text().replace("v_YoYo_g08_c01.avi 2", "v_YoYo_g08_c01.avi 1"))
    with pytest.raises(InputError, match=r"trainlist01\.txt:\d: label '1' of 'YoYo'"):
        load_dataset("ucf101", tmp_path, allow_missing=True)


def test_the_real_hmdb_split_is_whole_and_its_classes_are_not_confused(annotations, tmp_path):
    """climb and climb_stairs, kick and kick_ball, sword and sword_exercise begin alike; names hold ! and (
    )."""
    folder = tmp_path / "testTrainMulti_7030_splits"
    folder.mkdir()
    class_by_file = {}
    for path in (annotations / "hmdb51").glob("*_test_split1.txt"):
        shutil.copyfile(path, folder / path.name)
        name = path.name.removesuffix("_test_split1.txt")
        for line in path.read_text().splitlines():
            class_by_file[line.split()[0]] = name
            official_files.touch(tmp_path / "hmdb51_org" / name, line.split()[0])
    assert len(class_by_file) == 6766
    samples = load_dataset("hmdb51", tmp_path)
    assert samples.missing == {}
    assert (len(samples.splits["train"].video), len(samples.splits["test"].video)) == (3570, 1530)
    assert len(samples.videos) == 5100, "those marked 0 are in no split"
    for video in samples.videos:
        assert class_of(samples, video) == class_by_file[video.path.name].replace("_", " ")


def test_hmdb_files_of_three_classes_are_no_split(annotations, tmp_path):
    for path in (annotations / "hmdb51").glob("*_test_split2.txt"):
        shutil.copyfile(path, tmp_path / path.name)
    with pytest.raises(InputError, match="210 train videos, the published hmdb51-split2 has 3,570"):
        load_dataset("hmdb51-split2", tmp_path)


def test_an_hmdb_use_that_is_none_is_named(tmp_path):
    official_files.hmdb51(tmp_path)
    path = tmp_path / "testTrainMulti_7030_splits" / "climb_test_split1.txt"
    path.write_text(path.read_text().replace(" 2 ", " 3 "))
    with pytest.raises(InputError, match=r"climb_test_split1\.txt:2: expected 1 \(train\)"):
        load_dataset("hmdb51", tmp_path, allow_missing=True)
    assert hmdb51.USES == {"0": None, "1": "train", "2": "test"}


def ssv2_excerpt(annotations, folder):
    source = annotations / "ssv2"
    for name in ("labels.json", "validation.json", "test.json", "test-answers.csv"):
        shutil.copyfile(source / name, folder / name)
    item = json.loads((source / "validation.json").read_text())[0]
    (folder / "train.json").write_text(json.dumps([{**item, "id": "999999"}]))
    for name in ("validation.json", "test.json"):
        ids = [entry["id"] for entry in json.loads((source / name).read_text())]
        official_files.touch(folder / "20bn-something-something-v2", *(f"{id}.webm" for id in ids))


def test_ssv2_classes_are_templates_without_brackets(annotations, tmp_path):
    ssv2_excerpt(annotations, tmp_path)
    samples = load_dataset("ssv2", tmp_path, allow_missing=True)
    official = json.loads((tmp_path / "validation.json").read_text())
    labels = json.loads((tmp_path / "labels.json").read_text())
    brackets = {word for entry in official for word in entry["template"].split() if word.startswith("[")}
    assert brackets - {"[something]"}, "some brackets hold other words"
    assert len(samples.texts) == 174
    test = [samples.videos[row] for row in samples.splits["test"].video]
    assert [video.id for video in test] == [entry["id"] for entry in official]
    for video, entry in zip(test, official, strict=True):
        name = entry["template"].replace("[", "").replace("]", "")
        assert video.label == int(labels[name])
        assert samples.texts[video.label].text == f"a video of a person {name}."


def test_ssv2_class_numbers_are_those_of_the_other_papers_csv_but_its_names_lost_their_commas(annotations):
    names = list(ssv2.class_numbers(annotations / "ssv2" / "labels.json"))
    others = kinetics400.numbered_names(annotations / "ssv2" / "sth_labels.csv")
    assert [name.replace(",", "") for name in names] == list(others)
    assert sum(a != b for a, b in zip(names, others, strict=True)) == 12


def test_ssv2_answers_are_joined_by_id_since_they_lie_in_another_order(annotations, tmp_path):
    ssv2_excerpt(annotations, tmp_path)
    ids = [entry["id"] for entry in json.loads((tmp_path / "test.json").read_text())]
    answers = dict(line.split(";", 1) for line in (tmp_path / "test-answers.csv").read_text().splitlines())
    assert list(answers) != ids
    samples = load_dataset("ssv2-challenge", tmp_path, allow_missing=True)
    challenge = [samples.videos[row] for row in samples.splits["challenge"].video]
    assert [video.id for video in challenge] == ids
    assert [class_of(samples, video) for video in challenge] == [answers[id] for id in ids]


def test_older_names_of_ssv2s_files_are_found(tmp_path):
    official_files.ssv2(tmp_path)
    samples = load_dataset("ssv2", tmp_path, allow_missing=True)
    for path in list((tmp_path / "labels").iterdir()):
        path.rename(path.with_name(f"something-something-v2-{path.name}"))
    assert load_dataset("ssv2", tmp_path, allow_missing=True).rows_digest() == samples.rows_digest()


def test_an_ssv1_class_that_is_not_listed_is_named(tmp_path):
    official_files.ssv1(tmp_path)
    path = tmp_path / "something-something-v1-train.csv"
    path.write_text("1;Turning [part] of something\n2;Holding\n")
    with pytest.raises(InputError, match=r"v1-train\.csv:2: class 'Holding' is not in"):
        load_dataset("ssv1", tmp_path, allow_missing=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ApplyEyeMakeup", "Apply Eye Makeup"),
        ("YoYo", "Yo Yo"),
        ("climb_stairs", "climb stairs"),
        ("TaiChi", "Tai Chi"),
    ],
)
def test_class_folders_become_words(name, words):
    assert spaced(name) == words
