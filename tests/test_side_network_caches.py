"""Side networks trained from dumped caches: layers in every encoding, live against cached, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from store.kept_pixels import KeptPixels
from store.reader import open_cache
from store.signals import VISION_HEAD
from student_train.__main__ import main
from student_train.evaluation.encoding import batch_of
from student_train.live_layers import LiveLayers
from student_train.side_network_model import LIVE, Config, Parts, SideStudent
from student_train.side_network_sizes import side_sizes
from student_train.students import side_network
from student_train.students.base import Task
from student_train.teachers import Teachers
from teacher_dump.dump import dump
from teacher_dump.plan import StorageOptions
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers import clip4clip
from teacher_dump.teachers.clip4clip import Clip4ClipTeacher
from tests.teacher_dump.colour_teacher import colour_samples

SETTINGS = DumpSettings(batch_videos=2, batch_texts=3, threads=1, decoders=1)
RAW = KeptPixels.parse("raw")
WAYS = {
    "float16": StorageOptions(pixels=RAW),
    "int8": StorageOptions({"vit_layers": "int8"}, pixels=RAW),
    "pooled": StorageOptions(tokens="pool2x2", pixels=RAW),
    "projected": StorageOptions(width=16, pixels=RAW),
    "cls": StorageOptions(tokens="cls", pixels=RAW),
}
LAYERS = (0, 1)
SMALL = ["--student", "side_network", "--recipe", "demo", "--epochs", "1", "--batch-size", "3"]
SMALL += ["--seeds", "0", "--set", "model.layers=[0,1]", "--set", "untaught_model.cls_layer=1"]
SMALL += ["--set", "model.width=16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("side")


def dumped(folder: Path, way: str) -> Path:
    path = folder / f"{way}.zarr"
    teacher = clip4clip.teacher_of(clip4clip.tiny(0).model, frames=4, layers=LAYERS)
    dump(path, colour_samples(folder), teacher, replace(SETTINGS, storage=WAYS[way]), {})
    return path


@pytest.mark.slow
@pytest.mark.parametrize("way", ["float16", "int8", "pooled", "projected"])
def test_it_trains_from_layers_in_every_encoding_and_repeats_its_numbers(
    folder: Path, tmp_path: Path, way: str, capsys
) -> None:
    assert main(["train", str(dumped(folder, way)), "--out", str(tmp_path / "run"), *SMALL]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "The same numbers" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"untaught", "taught"} <= set(results)


@pytest.mark.slow
def test_layers_of_cls_alone_are_refused_before_the_first_step(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["train", str(dumped(folder, "cls")), "--out", str(tmp_path / "run"), *SMALL]) == 2
    assert "not [CLS] and a square of patches; dump the layers with" in capsys.readouterr().err


def without_head() -> Clip4ClipTeacher:
    """As teachers were before they stored what stands behind their layers."""
    teacher = clip4clip.teacher_of(clip4clip.tiny(0).model, frames=4, layers=LAYERS)
    teacher.signals = tuple(spec for spec in teacher.signals if spec.name != VISION_HEAD)
    return teacher


def test_a_cache_without_the_head_is_refused_with_the_command_that_adds_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, settings = tmp_path / "old.zarr", replace(SETTINGS, storage=WAYS["float16"])
    dump(path, colour_samples(tmp_path), without_head(), settings, {})
    assert main(["train", str(path), "--out", str(tmp_path / "run"), *SMALL]) == 2
    told = capsys.readouterr().err
    assert f"stores no {VISION_HEAD}" in told
    assert "--teacher clip4clip --layers 0,1 --extend" in told
    teacher = clip4clip.teacher_of(clip4clip.tiny(0).model, frames=4, layers=LAYERS)
    layer = path / "teachers/clip4clip/vit_layers/1"
    before = {file: file.read_bytes() for file in layer.rglob("*") if file.is_file()}
    cache = dump(path, colour_samples(tmp_path), teacher, settings, {}, extend=True)
    assert {file: file.read_bytes() for file in before} == before
    visual = teacher.model.clip.visual
    rows = cache.teacher("clip4clip").read_decoded(VISION_HEAD, np.arange(2 + visual.proj.shape[1]))
    assert np.array_equal(rows[0], visual.ln_post.weight.numpy())
    assert np.array_equal(rows[1], visual.ln_post.bias.numpy())
    assert np.array_equal(rows[2:], visual.proj.numpy().T)
    assert main(["train", str(path), "--out", str(tmp_path / "run"), *SMALL, "--arms", "taught"]) == 0
    story = json.loads(next((tmp_path / "run").rglob("training.json")).read_text())
    assert story["started_from"]["head"]["signal"] == VISION_HEAD


@pytest.mark.slow
def test_a_live_backbone_gives_the_loss_of_its_cached_layers(folder: Path) -> None:
    """The teacher's own tower on the cache's pixels, against what the dump stored of it in float16."""
    teachers = Teachers(open_cache(dumped(folder, "float16")).teacher("clip4clip"))
    tower, sizes = clip4clip.tiny(0).model.clip.visual, teachers.sizes()
    config = Config(layers=LAYERS, width=16, architecture="tiny", words=8)
    side = side_sizes(config, dict.fromkeys(LAYERS, (5, 64)), sizes)
    found = {}
    for way, backbone in {"cached": None, LIVE: LiveLayers(tower, tuned=False)}.items():
        torch.manual_seed(0)
        way_config = replace(config, way_in=way)
        student = SideStudent(way_config, Parts(side, 64, 64, backbone=backbone)).eval()
        with torch.no_grad():
            student.up.normal_(std=0.1)
        rows = np.arange(4)
        batch = batch_of(student, teachers, "V", rows, torch.device("cpu"))
        batch |= batch_of(student, teachers, "T", rows, torch.device("cpu"))
        found[way] = Task(student, side_network.losses(config), {"info_nce": 1.0})(batch)["loss"].item()
    assert found[LIVE] == pytest.approx(found["cached"], abs=5e-3)
