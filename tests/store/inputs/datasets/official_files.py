"""A tiny annotation set of every published dataset, in its official layout, with video files of no bytes.

`OFFICIAL_FILES` maps the name of a dataset to the function that writes it into a folder. The ids are as odd
as the dataset's own: they begin with dashes and underscores and hold dots.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())


def write_json(path: Path, document: object) -> None:
    write(path, json.dumps(document))


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write(path, text.getvalue())


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def sentences(ids: Iterable[str], each: int = 2) -> list[dict[str, object]]:
    pairs = [(id, at) for id in ids for at in range(each)]
    return [{"video_id": id, "caption": f" caption {at} of {id} ", "sen_id": at} for id, at in pairs]


def msrvtt(folder: Path, train_ids: str = "MSRVTT_train.9k.csv") -> None:
    ids = [f"video{number}" for number in range(5)]
    write_json(folder / "MSRVTT_data.json", {"info": {}, "videos": [], "sentences": sentences(reversed(ids))})
    write_csv(folder / train_ids, ["video_id"], [[id] for id in ids[:3]])
    test = [[f"ret{at}", f"msr{at}", id, f"a test sentence of {id}"] for at, id in enumerate(ids[3:])]
    write_csv(folder / "MSRVTT_JSFUSION_test.csv", ["key", "vid_key", "video_id", "sentence"], test)
    touch(folder / "MSRVTT_Videos", *(f"{id}.mp4" for id in ids))


def msrvtt_7k(folder: Path) -> None:
    msrvtt(folder, "MSRVTT_train.7k.csv")


def msrvtt_official(folder: Path) -> None:
    splits = {"video0": "train", "video6513": "validate", "video7010": "test"}
    for name, ids in (
        ("train_val_videodatainfo.json", ["video0", "video6513"]),
        ("test_videodatainfo.json", ["video7010"]),
    ):
        videos = [{"video_id": id, "split": splits[id], "category": 1, "start time": 0.5} for id in ids]
        write_json(folder / name, {"info": {}, "videos": videos, "sentences": sentences(ids)})
    touch(folder / "MSRVTT_Videos", *(f"{id}.mp4" for id in splits))


def msvd(folder: Path) -> None:
    ids = ["-4wsuPCjDBc_5_15", "_a_b_10_20", "mv89psg6zh4_33_46"]
    captions = {id: [["a", "dog", "runs"], ["it", "s", id]] for id in ids}
    write(folder / "raw-captions.pkl", "")
    (folder / "raw-captions.pkl").write_bytes(pickle.dumps(captions))
    for split, id in zip(("train", "val", "test"), ids, strict=True):
        write(folder / f"{split}_list.txt", id + "\n")
    touch(folder / "MSVD_Videos", *(f"{id}.avi" for id in ids))


VATEX_IDS = ["5-xGskbsBgI_000055_000065", "--a_b-c_d_e_000000_000010", "_xGskbsBgI-_000001_000011"]


def vatex(folder: Path) -> None:
    entries = [{"videoID": id, "enCap": [f"one {id}", f"two {id}"], "chCap": ["一"]} for id in VATEX_IDS]
    write_json(folder / "vatex_training_v1.0.json", entries[:1])
    write_json(folder / "vatex_validation_v1.0.json", entries[1:])
    np.save(folder / "val_names.npy", np.array(VATEX_IDS[1:2]))
    write(folder / "tst_names.txt", VATEX_IDS[2] + "\n")
    touch(folder / "videos", *(f"{id}.mp4" for id in VATEX_IDS))


def vatex_teachclip(folder: Path) -> None:
    write_json(folder / "Annotations" / "VATEX_data.json", {"sentences": sentences(VATEX_IDS)})
    for split, id in zip(("train", "val", "test"), VATEX_IDS, strict=True):
        write_csv(folder / "Annotations" / f"VATEX_{split}.csv", ["video_id"], [[id]])
    touch(folder / "VideoData", *(f"{id}.mp4" for id in VATEX_IDS))


def activitynet(folder: Path) -> None:
    item = {
        "duration": 20.5,
        "timestamps": [[0, 3.5], [2, 21]],
        "sentences": ["One thing.", "  Another\n thing."],
    }
    write_json(folder / "train.json", {"v_uqiMw7tQ1Cc": item, "v_-_-_-_-_-_-": item})
    write_json(folder / "val_1.json", {"v_bXdq2zI1Ms0": item})
    touch(folder / "Activity_Videos", "v_uqiMw7tQ1Cc.mp4", "-_-_-_-_-_-.mp4", "bXdq2zI1Ms0.mkv")


def lsmdc(folder: Path) -> None:
    ids = [f"000{n}_American_Beauty_00.00.5{n}.926-00.00.54.129" for n in range(3)]
    for name, id in zip(
        ("LSMDC16_annos_training.csv", "LSMDC16_annos_val.csv", "LSMDC16_challenge_1000_publictect.csv"),
        ids,
        strict=True,
    ):
        row = "\t".join([id, "00.00", "00.01", "00.00", "00.01", f"SOMEONE looks at {id}."])
        write(folder / name, row + "\n")
    touch(folder / "LSMDC_Videos", *(f"{id.rsplit('_', 1)[0]}/{id}.avi" for id in ids))


def didemo(folder: Path) -> None:
    names = ["35034348999@N01_6060447507_dc1a90b8ef.mov", "39727414@N00_36_45.", "1@N0_1_b.3gp"]
    for split, name in zip(("train", "val", "test"), names, strict=True):
        entries = [
            {"video": name, "description": f"{words} \n", "times": [[0, 1]] * 4, "annotation_id": at}
            for at, words in enumerate(("first this", "then that"))
        ]
        write_json(folder / f"{split}_data.json", entries)
    stems = [name.rsplit(".", 1)[0] for name in names]
    touch(folder / "DiDeMo_Videos", f"{stems[0]}.mov", f"{stems[1]}.", f"{stems[2]}.mp4")


def karpathy(folder: Path, name: str, images: dict[str, tuple[str, str]]) -> None:
    document = [
        {
            "filename": file,
            "split": split,
            "imgid": at,
            "sentids": [at],
            "sentences": [
                {"tokens": ["a", "dog"], "raw": f"A dog , {n} of {file}.\n", "sentid": n} for n in (0, 1)
            ],
        }
        for at, (file, split) in enumerate(images.values())
    ]
    write_json(folder / name, {"dataset": "made", "images": document})


def coco(folder: Path) -> None:
    images = {
        "train": ("COCO_train2014_000000000009.jpg", "train"),
        "rest": ("COCO_val2014_000000000073.jpg", "restval"),
        "val": ("COCO_val2014_000000000042.jpg", "val"),
        "test": ("COCO_val2014_000000391895.jpg", "test"),
    }
    karpathy(folder, "dataset_coco.json", images)
    touch(folder, *(f"{file.split('_')[1]}/{file}" for file, _ in images.values()))


def coco_lists(folder: Path) -> None:
    train = {"image": "train2014/COCO_train2014_000000000009.jpg", "image_id": "coco_9"}
    write_json(
        folder / "coco_karpathy_train.json", [{**train, "caption": "a dog"}, {**train, "caption": "one dog "}]
    )
    for split, number in (("val", 42), ("test", 391895)):
        image = f"val2014/COCO_val2014_{number:012d}.jpg"
        write_json(
            folder / f"coco_karpathy_{split}.json", [{"image": image, "caption": ["a cat", "one\ncat"]}]
        )
        touch(folder, image)
    touch(folder, train["image"])


def flickr30k(folder: Path) -> None:
    images = {
        split: (f"{number}.jpg", split) for number, split in enumerate(("train", "val", "test"), 1000092795)
    }
    karpathy(folder, "dataset_flickr30k.json", images)
    touch(folder / "flickr30k-images", *(file for file, _ in images.values()))


def flickr30k_lists(folder: Path) -> None:
    for number, split in enumerate(("train", "val", "test"), 1007129816):
        image = f"flickr30k-images/{number}.jpg"
        write_json(folder / f"flickr30k_{split}.json", [{"image": image, "caption": ["a man", "a hat"]}])
        touch(folder, image)


def cc3m(folder: Path) -> None:
    urls = [f"http://example.org/{name}" for name in ("a/image.jpg", "b/image.jpg", "c/-image?size=1")]
    rows = [f"the {word} of it\t{url}\n" for word, url in zip(("top", "side", "top"), urls, strict=True)]
    write(folder / "Train_GCC-training.tsv", rows[0] + rows[1])
    write(folder / "Validation_GCC-1.1.0-Validation.tsv", rows[2])
    names = ["-000.jpg", "001.jpg", "_002.webp"]
    write(folder / "images.tsv", "".join(f"{u}\timages/{n}\n" for u, n in zip(urls, names, strict=True)))
    touch(folder / "images", *names)


SBU_URLS = [f"http://static.flickr.com/{n}/{n}4385058960_b0f291553e.jpg" for n in (1, 2)]


def sbu(folder: Path) -> None:
    write(folder / "SBU_captioned_photo_dataset_urls.txt", "\n".join(SBU_URLS) + "\n")
    write(folder / "SBU_captioned_photo_dataset_captions.txt", "My chair .\nA dog in the car .\n")
    touch(folder / "images", *(url.rsplit("/", 1)[1] for url in SBU_URLS))


def sbu_json(folder: Path) -> None:
    write_json(
        folder / "sbu-captions-all.json", {"image_urls": SBU_URLS, "captions": ["a", "b"], "user_ids": [1, 2]}
    )
    touch(folder / "images", *(url.rsplit("/", 1)[1] for url in SBU_URLS))


def kinetics400(folder: Path) -> None:
    header = ["label", "youtube_id", "time_start", "time_end", "split", "is_cc"]
    train = [["abseiling", "--33Lscn6sk", 7, 17, "train", 0], ["air drumming", "_a-", 0, 10, "train", 0]]
    write_csv(folder / "kinetics-400_train.csv", header, train)
    write_csv(folder / "kinetics-400_val.csv", header, [["abseiling", "0wR5jVB-WPk", 417, 427, "val", 0]])
    touch(folder / "videos" / "train" / "abseiling", "--33Lscn6sk_000007_000017.mp4")
    touch(folder / "videos", "_a-.mp4", "val/0wR5jVB-WPk_000417_000427.mp4")


def kinetics400_text4vis(folder: Path) -> None:
    write_csv(
        folder / "lists" / "kinetics_400_labels.csv", ["id", "name"], [[0, "abseiling"], [1, "air drumming"]]
    )
    write(folder / "lists" / "kinetics_video_train_se320.txt", "--33Lscn6sk.mp4 1\n")
    write(folder / "lists" / "kinetics_video_val_se320.txt", "0wR5jVB-WPk.mp4 0\n")
    touch(folder / "videos", "--33Lscn6sk.mp4", "0wR5jVB-WPk.mp4")


def ucf101(folder: Path, split: int = 1) -> None:
    lists = folder / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 HandstandPushups\r\n2 YoYo\r\n")
    train = "HandstandPushups/v_HandStandPushups_g08_c01.avi 1\r\nYoYo/v_YoYo_g08_c01.avi 2\r\n"
    write(lists / f"trainlist0{split}.txt", train)
    write(lists / f"testlist0{split}.txt", "YoYo/v_YoYo_g01_c01.avi\r\n")
    names = ("HandstandPushups/v_HandStandPushups_g08_c01", "YoYo/v_YoYo_g08_c01", "YoYo/v_YoYo_g01_c01")
    touch(folder / "UCF-101", *(f"{name}.avi" for name in names))


def hmdb51(folder: Path, split: int = 1) -> None:
    clips = {"climb": "-_A_climb_f_0", "climb_stairs": "!B_climb_stairs_u_1"}
    for name, clip in clips.items():
        lines = f"{clip}.avi 1 \n{clip}b.avi 2 \n{clip}c.avi 0 \n"
        write(folder / "testTrainMulti_7030_splits" / f"{name}_test_split{split}.txt", lines)
        touch(folder / "hmdb51_org" / name, f"{clip}.avi", f"{clip}b.avi", f"{clip}c.avi")


def ssv1(folder: Path) -> None:
    write(folder / "something-something-v1-labels.csv", "Holding something\nTurning [part] of something\n")
    write(folder / "something-something-v1-train.csv", "1;Turning [part] of something\n2;Holding something\n")
    write(folder / "something-something-v1-validation.csv", "3;Holding something\n")
    touch(folder / "videos", "1.mp4", "2.mp4", "3.webm")


def ssv2(folder: Path) -> None:
    labels = folder / "labels"
    write_json(labels / "labels.json", {"Turning part of something": "1", "Holding something": "0"})
    item = {"label": 'holding a "cup"', "placeholders": ['a "cup" \\ é'], "template": "Holding [something]"}
    train = [{"id": "1", **item}, {"id": "2", **item, "template": "Turning [part] of [something]"}]
    write_json(labels / "train.json", train)
    write_json(labels / "validation.json", [{"id": "3", **item}])
    touch(folder / "20bn-something-something-v2", "1.webm", "2.webm", "3.webm")


def ssv2_challenge(folder: Path) -> None:
    ssv2(folder)
    write_json(folder / "labels" / "test.json", [{"id": "4"}, {"id": "5"}])
    write(folder / "labels" / "test-answers.csv", "5;Holding something\n4;Turning part of something\n")
    touch(folder / "20bn-something-something-v2", "4.webm", "5.webm")


def imagenet(folder: Path) -> None:
    write(folder / "classnames.txt", "n01443537 goldfish\nn01440764 tench\n")
    touch(folder / "train", "n01440764/n01440764_10026.JPEG", "n01443537/n01443537_2.JPEG")
    touch(folder / "val", "n01440764/ILSVRC2012_val_00000293.JPEG")


OFFICIAL_FILES: dict[str, Callable[[Path], None]] = {
    "activitynet": activitynet,
    "cc3m": cc3m,
    "coco": coco,
    "coco-lists": coco_lists,
    "didemo": didemo,
    "flickr30k": flickr30k,
    "flickr30k-lists": flickr30k_lists,
    "hmdb51": hmdb51,
    "hmdb51-split2": lambda folder: hmdb51(folder, 2),
    "hmdb51-split3": lambda folder: hmdb51(folder, 3),
    "imagenet": imagenet,
    "kinetics400": kinetics400,
    "kinetics400-prompts": kinetics400,
    "kinetics400-text4vis": kinetics400_text4vis,
    "lsmdc": lsmdc,
    "msrvtt": msrvtt,
    "msrvtt-7k": msrvtt_7k,
    "msrvtt-official": msrvtt_official,
    "msvd": msvd,
    "sbu": sbu,
    "sbu-json": sbu_json,
    "ssv1": ssv1,
    "ssv2": ssv2,
    "ssv2-challenge": ssv2_challenge,
    "ucf101": ucf101,
    "ucf101-split2": lambda folder: ucf101(folder, 2),
    "ucf101-split3": lambda folder: ucf101(folder, 3),
    "vatex": vatex,
    "vatex-teachclip": vatex_teachclip,
}
