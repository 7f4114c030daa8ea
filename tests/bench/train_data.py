"""What the bench of the trainer trains from: caches with every number from a seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from store.cli import run_cli
from store.inputs.demo_clips import render
from store.inputs.samples import Samples
from store.inputs.view import View
from store.reader import TeacherReader, open_cache
from store.signals import SignalSpec
from store.writer import CacheWriter
from teacher_dump.__main__ import build_parser
from teacher_dump.models.clip_towers import TowerSizes
from teacher_dump.models.xclip_scores import XClip, XClipSizes
from tests.student_train.learnable_cache import learnable_plan, learnable_samples
from tests.synthetic_cache import shard_commits, synthetic_values

FRAMES, WIDTH = 12, 512
FEATURES = (
    SignalSpec("frame_embedding", {"R": 1, "M": FRAMES, "D": WIDTH}),
    SignalSpec("text_embedding", {"D": WIDTH}),
    SignalSpec("frame_relevance", {"R": 1, "M": FRAMES}, attributes={"temperature": 0.2}),
    SignalSpec("video_text_logits", {}, attributes={"logit_scale": 20.0}),
)
PIXELS = 224


def feature_cache(path: Path, videos: int) -> TeacherReader:
    """`videos` training rows of 12 KB and their dense scores, as an X-CLIP of ViT-B/32 stores them."""
    samples: Samples = learnable_samples({"train": videos, "test": 8})
    plan = replace(learnable_plan(samples, "oracle", FEATURES), view=View("oracle_view", FRAMES, 8))
    values = synthetic_values(samples, FEATURES)
    with CacheWriter(path, samples) as writer:
        writer.plan(plan)
        tasks = []
        for commit in shard_commits(path, samples, plan, frozenset(), values):
            tasks.append(commit.task)
            writer.commit(commit)
        writer.complete(plan, tasks)
    return open_cache(path).teacher("oracle")


def x_clip(patch: int) -> XClip:
    """At its published size over ViT-B/32 or B/16, at random."""
    torch.manual_seed(0)
    towers = TowerSizes(512, PIXELS, patch, 768, 12, 49408, 77, 512, 12)
    return XClip(XClipSizes(towers, FRAMES, 32, 4, 77))


def frame_cache(folder: Path, videos: int) -> TeacherReader:
    """Rendered clips with their frames, 12 of 224 x 224, and what an X-CLIP of ViT-B/32 says of them."""
    render(folder / "clips", split_sizes={"train": videos, "val": 2, "test": 2}, seed=1, workers=2)
    weights = folder / "xclip.safetensors"
    save_file({name: value.contiguous() for name, value in x_clip(32).state_dict().items()}, weights)
    words = ["dump", "--data", str(folder / "clips"), "--cache", str(folder / "frames.zarr")]
    words += ["--teacher", "xclip", "--checkpoint", str(weights), "--layers", "11", "--keep-pixels", "raw"]
    if run_cli(build_parser(), words):
        raise RuntimeError("the bench's cache could not be dumped")
    return open_cache(folder / "frames.zarr").teacher("xclip")
