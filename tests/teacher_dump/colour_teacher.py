"""A teacher without weights for tests of the dump: a frame is its mean colour, a text its letters."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import torch

from store.inputs.samples import DatasetCard, Samples, Split, Text, Video
from store.inputs.view import View
from store.signals import SignalSpec
from teacher_dump.teachers.base import Teacher

FRAMES = 4
COLOURS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230), "grey": (128, 128, 128)}


class ColourTeacher(Teacher):
    """layer: also emit vit_layers/0, whose patches are the pixels of the quarters of a frame."""

    def __init__(self, name="colour", gain=1.0, frames=FRAMES, sampling="uniform", layer=False):
        self.name = name
        self.gain = gain
        self.view = View(f"{sampling}_{frames}x16", frames, 16, sampling)
        self.signals = (
            SignalSpec("frame_embedding", {"R": 1, "M": frames, "D": 3}),
            SignalSpec("text_embedding", {"D": 3}),
            SignalSpec("frame_relevance", {"R": 1, "M": frames}, attributes={"temperature": 0.5}),
            SignalSpec("video_text_logits", {}, attributes={"logit_scale": 10.0}),
        )
        if layer:
            self.signals += (SignalSpec("vit_layers/0", {"R": 1, "M": frames, "L": 5, "D": 192}),)

    def identity(self):
        return {"weights_sha256": "none", "gain": self.gain, "logit_scale": 10.0}

    def encode_videos(self, frames_BMYXC, frame_valid_BM):
        colour_BMC = frames_BMYXC.float().mean((2, 3)) / 255 * self.gain
        return {
            "frame_embedding": torch.where(frame_valid_BM[..., None], colour_BMC, 0.0),
            "vit_layers/0": quarters(frames_BMYXC),
        }

    def encode_texts(self, texts):
        return {"text_embedding": torch.tensor([COLOURS[text.split()[-1]] for text in texts]) / 255}

    def score_pairs(self, videos, texts):
        count_V1 = videos["frame_valid"].sum(1, keepdim=True)
        return 10 * (videos["frame_embedding"].sum(1) / count_V1) @ texts["text_embedding"].T

    def relevance(self, videos, texts):
        return torch.einsum("bmd,bd->bm", videos["frame_embedding"], texts["text_embedding"])


def quarters(frames_BMYXC):
    """Tokens [B, M, 5, 192]: the mean quarter first, then the quarters, pixels from 0 to 1."""
    pixels = frames_BMYXC.float() / 255
    patches = pixels.unflatten(2, (2, 8)).unflatten(4, (2, 8)).permute(0, 1, 2, 4, 3, 5, 6)
    patches = patches.flatten(4).flatten(2, 3)
    return torch.cat([patches.mean(2, keepdim=True), patches], dim=2)


def write_clip(path: Path, colours: list[str], frames_each: int = 4) -> Path:
    """An H.264 MP4 that shows each colour for `frames_each` frames at 8 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "12"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for colour in colours:
            for _ in range(frames_each):
                picture = np.full((32, 32, 3), COLOURS[colour], np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def colour_samples(folder: Path, broken: tuple[int, ...] = ()) -> Samples:
    """Eight clips of one colour each, then grey; those in `broken` are no videos."""
    names = ["red", "green", "blue", "grey"] * 2
    videos = []
    for row, name in enumerate(names):
        path = folder / f"{row}_{name}.mp4"
        if row in broken:
            path.write_bytes(b"this is no video")
        elif not path.exists():
            write_clip(path, [name, "grey"])
        videos.append(Video(path.name, path, (0.0, 0.5)))
    texts = tuple(Text(f"a clip in {name}", row) for row, name in enumerate(names))
    splits = {"train": Split(np.arange(6), np.arange(6)), "test": Split(np.arange(6, 8), np.arange(6, 8))}
    return Samples(
        "colours",
        DatasetCard("clips of one colour", "CC0-1.0", "made in a test"),
        tuple(videos),
        texts,
        splits,
    )
