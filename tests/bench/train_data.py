"""What the bench of the trainer trains from: caches with every number from a seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from store.inputs.datasets import demo
from store.inputs.demo_clips import render
from store.inputs.samples import Samples
from store.inputs.view import View
from store.kept_pixels import KeptPixels
from store.reader import TeacherReader, open_cache
from store.signals import SignalSpec
from store.writer import CacheWriter
from teacher_dump.dump import dump
from teacher_dump.models.clip4clip_model import Clip4Clip, Clip4ClipSizes
from teacher_dump.models.clip_towers import TowerSizes
from teacher_dump.models.xclip_scores import XClip, XClipSizes
from teacher_dump.plan import StorageOptions
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers import clip4clip, xclip
from teacher_dump.teachers.base import Teacher
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


def clip_4_clip() -> Clip4Clip:
    """At its published size over ViT-B/32, at random."""
    torch.manual_seed(0)
    return Clip4Clip(Clip4ClipSizes(TowerSizes.vit_b_32(), 4, 77))


def frame_cache(path: Path, videos: int) -> TeacherReader:
    """Rendered clips with their frames, 12 of 224 x 224, and what an X-CLIP of ViT-B/32 says of them."""
    return dumped(path, videos, xclip.teacher_of(x_clip(32), layers=(11,)))


def layer_cache(path: Path, videos: int) -> TeacherReader:
    """Rendered clips with 4 frames of 224 x 224, and all 12 layers of a CLIP4Clip of ViT-B/32."""
    return dumped(path, videos, clip4clip.teacher_of(clip_4_clip(), frames=4, layers=range(12)))


def dumped(path: Path, videos: int, teacher: Teacher) -> TeacherReader:
    clips = path.with_suffix(".clips")
    render(clips, split_sizes={"train": videos, "val": 2, "test": 2}, seed=1, workers=2)
    storage = StorageOptions(pixels=KeptPixels.parse("raw"))
    settings = DumpSettings(batch_videos=4, threads=torch.get_num_threads(), decoders=1, storage=storage)
    return dump(path, demo.load(clips), teacher, settings, {}).teacher(teacher.name)
