"""COCO, Flickr30k, Conceptual Captions, SBU and ImageNet: images are videos of one frame."""

from __future__ import annotations

import json
import shutil

import pytest

from store.errors import InputError
from store.inputs.caption_files import image_list_entries, karpathy_entries
from store.inputs.datasets import cc3m, load_dataset
from tests.store.inputs.datasets import official_files


@pytest.fixture
def annotations(shared):
    return shared / "data" / "annotations"


@pytest.mark.parametrize(
    "name",
    [
        "coco/coco_test.json",
        "coco/coco_karpathy_test.json",
        "coco/coco_karpathy_val.json",
        "flickr30k/flickr30k_test.json",
    ],
)
def test_the_real_lists_are_read_whole(annotations, name):
    """ALBEF's one line and BLIP's indented CRLF; captions with outer spaces and newlines; five or six of
    them."""
    official = json.loads((annotations / name).read_text())
    entries = image_list_entries(annotations / name, "test")
    assert [f"{entry.id}.jpg" for entry in entries] == [item["image"].split("/")[-1] for item in official]
    for entry, item in zip(entries, official, strict=True):
        assert list(entry.texts) == [" ".join(caption.split()) for caption in item["caption"]]


def test_the_real_traps_of_the_lists_are_there(annotations):
    official = json.loads((annotations / "coco/coco_test.json").read_text())
    captions = [caption for item in official for caption in item["caption"]]
    assert any(len(item["caption"]) == 6 for item in official)
    assert any("\n" in caption for caption in captions)
    assert any(caption != caption.strip() for caption in captions)
    assert b"\r\n" in (annotations / "coco/coco_karpathy_test.json").read_bytes()
    for name in ("coco/coco_karpathy_test.json", "coco/coco_karpathy_val.json"):
        images = [item["image"] for item in json.loads((annotations / name).read_text())]
        assert all(image.startswith("val2014/") for image in images), "test and val both come from val2014"


def test_a_training_list_has_one_caption_an_entry(tmp_path):
    official_files.coco_lists(tmp_path)
    samples = load_dataset("coco-lists", tmp_path, allow_missing=True)
    assert samples.videos[0].id == "COCO_train2014_000000000009"
    assert [text.text for text in samples.texts if text.video == 0] == ["a dog", "one dog"]


def test_karpathys_own_layout_reads_raw_and_not_tokens(annotations):
    path = annotations / "flickr8k_karpathy" / "dataset_flickr8k.json"
    official = json.loads(path.read_text())["images"]
    entries = karpathy_entries(path, {split: split for split in ("train", "val", "test")})
    assert len(entries) == len(official) == 6
    assert entries[0].texts[0] == official[0]["sentences"][0]["raw"].strip()
    assert "." in entries[0].texts[0]
    assert all(entry.texts == () for entry in entries[-2:]), "that copy has the test captions emptied"


def test_emptied_test_captions_are_refused_by_their_count(annotations, tmp_path):
    """A copy of the file whose test captions were taken out must not pass as the dataset."""
    source = json.loads((annotations / "flickr8k_karpathy" / "dataset_flickr8k.json").read_text())
    (tmp_path / "dataset_flickr30k.json").write_text(json.dumps(source))
    for image in source["images"]:
        official_files.touch(tmp_path / "flickr30k-images", image["filename"])
    with pytest.raises(InputError, match="the published flickr30k has"):
        load_dataset("flickr30k", tmp_path)
    samples = load_dataset("flickr30k", tmp_path, allow_missing=True)
    assert "test" not in samples.splits
    assert samples.missing["test texts"] == 5000


def test_restval_counts_as_training(tmp_path):
    official_files.coco(tmp_path)
    samples = load_dataset("coco", tmp_path, allow_missing=True)
    train = [samples.videos[row].id for row in samples.splits["train"].video]
    assert train == ["COCO_train2014_000000000009", "COCO_val2014_000000000073"]


def test_an_unknown_split_of_karpathys_is_named(tmp_path):
    official_files.coco(tmp_path)
    path = tmp_path / "dataset_coco.json"
    path.write_text(path.read_text().replace('"restval"', '"rest"'))
    with pytest.raises(
        InputError, match=r"dataset_coco\.json: image 1: split 'rest' is none of train, restval"
    ):
        load_dataset("coco", tmp_path, allow_missing=True)


def test_missing_images_of_conceptual_captions_are_normal_and_recorded(tmp_path):
    official_files.cc3m(tmp_path)
    (tmp_path / "images" / "001.jpg").unlink()
    samples = load_dataset("cc3m", tmp_path, allow_missing=True)
    assert [video.path.name for video in samples.videos] == ["-000.jpg", "_002.webp"]
    assert samples.missing["train videos"] == 3_318_333 - 1
    assert samples.protocol == "equal-captions"


def test_an_image_that_images_tsv_does_not_name_is_missing_and_never_guessed(tmp_path):
    """Two urls end in image.jpg: a file of that name could be either's."""
    official_files.cc3m(tmp_path)
    (tmp_path / "images" / "image.jpg").touch()
    listed = tmp_path / "images.tsv"
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[1:]))
    samples = load_dataset("cc3m", tmp_path, allow_missing=True)
    assert [video.id for video in samples.videos] == ["train-0000001", "test-0000000"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("http://a/b.jpg\tx.jpg\nhttp://a/b.jpg\ty.jpg\n", r"images\.tsv:2: url .* comes twice"),
        ("http://a/b.jpg\tx.jpg\nhttp://a/c.jpg\tx.jpg\n", r"images\.tsv:2: file .* comes twice"),
        ("http://a/b.jpg x.jpg\n", r"images\.tsv:1: expected url, file separated by a tab"),
    ],
)
def test_a_broken_list_of_local_files_names_its_line(tmp_path, content, said):
    official_files.cc3m(tmp_path)
    (tmp_path / "images.tsv").write_text(content)
    with pytest.raises(InputError, match=said):
        load_dataset("cc3m", tmp_path, allow_missing=True)


def test_a_tsv_with_its_columns_exchanged_is_refused(tmp_path):
    official_files.cc3m(tmp_path)
    (tmp_path / cc3m.FILES["train"][0]).write_text("http://example.org/a.jpg\tthe top of it\n")
    with pytest.raises(InputError, match=r"training\.tsv:1: 'the top of it' is no url"):
        load_dataset("cc3m", tmp_path, allow_missing=True)


def test_sbu_lists_of_different_length_are_refused(tmp_path):
    official_files.sbu(tmp_path)
    with (tmp_path / "SBU_captioned_photo_dataset_captions.txt").open("a") as file:
        file.write("one more\n")
    with pytest.raises(InputError, match="3 lines for the 2 urls"):
        load_dataset("sbu", tmp_path, allow_missing=True)


def test_an_sbu_url_that_is_listed_twice_gives_its_image_two_captions(tmp_path):
    official_files.sbu(tmp_path)
    urls = tmp_path / "SBU_captioned_photo_dataset_urls.txt"
    urls.write_text((official_files.SBU_URLS[0] + "\n") * 2)
    samples = load_dataset("sbu", tmp_path, allow_missing=True)
    assert [text.text for text in samples.texts] == ["My chair .", "A dog in the car ."]
    assert len(samples.videos) == 1


def test_imagenet_classes_are_numbered_by_their_ids_and_wordnets_first_name_is_taken(tmp_path):
    official_files.imagenet(tmp_path)
    curated = load_dataset("imagenet", tmp_path, allow_missing=True)
    assert [text.text for text in curated.texts] == ["a photo of a tench.", "a photo of a goldfish."]
    (tmp_path / "classnames.txt").unlink()
    (tmp_path / "LOC_synset_mapping.txt").write_text(
        "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n"
    )
    assert load_dataset("imagenet", tmp_path, allow_missing=True).rows_digest() == curated.rows_digest()


def test_imagenet_validation_images_may_lie_in_one_folder_beside_kaggles_csv(tmp_path):
    official_files.imagenet(tmp_path)
    folders = load_dataset("imagenet", tmp_path, allow_missing=True)
    image = tmp_path / "val" / "n01440764" / "ILSVRC2012_val_00000293.JPEG"
    shutil.move(image, tmp_path / "val")
    image.parent.rmdir()
    (tmp_path / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\nILSVRC2012_val_00000293,n01440764 1 2 3 4 n01440764 5 6 7 8\n"
    )
    assert load_dataset("imagenet", tmp_path, allow_missing=True).rows_digest() == folders.rows_digest()


def test_an_imagenet_folder_without_a_class_name_is_named(tmp_path):
    official_files.imagenet(tmp_path)
    (tmp_path / "train" / "n99999999").mkdir()
    with pytest.raises(InputError, match="n99999999"):
        load_dataset("imagenet", tmp_path, allow_missing=True)
