"""Training the demo's teacher: X-CLIP's four scores and a symmetric contrastive loss, from random weights."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from store.errors import InputError
from store.inputs.datasets import table
from store.inputs.decode_pool import DecodeFailure, DecodePool
from store.inputs.demo_clips import TABLE, WORLD_VERSION, render
from store.inputs.preprocess import CLIP_MEAN, CLIP_STD
from store.inputs.samples import Samples
from store.retrieval_metrics import TEXT_TO_VIDEO, VIDEO_TO_TEXT, retrieval_metrics
from teacher_dump.models.clip_towers import encode_frames, encode_words, to_pixels
from teacher_dump.models.tokens import CompactVocabulary
from teacher_dump.models.xclip_scores import XClip
from teacher_dump.teachers.demo import VIEW, WORDS, save_weights, sizes

FIT_SPLITS = {"train": 4000, "val": 200}
MAX_LOGIT_SCALE = 100.0
ROWS_AT_ONCE = 50


@dataclass(frozen=True)
class FitSettings:
    """Of AdamW with linear warm-up and a cosine to 0. threads: of torch; they change the last bits."""

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_steps: int = 60
    clip_norm: float = 1.0
    seed: int = 0
    threads: int = 2


@dataclass(frozen=True)
class Pairs:
    """Clips with their captions: frames [N, M, Y, X, 3] uint8, ids [N, W] int64."""

    frames: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)


def fit_demo(data: Path, out: Path, settings: FitSettings) -> dict[str, object]:
    """Render the fit's clips at `data`, train, write the weights to `out`; returns what the file tells.

    The clips show none of the scenes of the demo's test split; its val split is the demo's.
    """
    render(data, FIT_SPLITS)
    samples = table.load(data / TABLE)
    torch.set_num_threads(settings.threads)
    vocabulary = CompactVocabulary.of(text.text for text in samples.texts)
    train, val = (load_pairs(samples, split, vocabulary) for split in ("train", "val"))
    model, seconds = fit(train, vocabulary, settings)
    told: dict[str, object] = {
        "settings": asdict(settings),
        "world": WORLD_VERSION,
        "clips": len(train),
        "seconds": round(seconds, 1),
        "val_sum_recall": evaluate(model, val),
        "made_with": "python -m teacher_dump fit",
    }
    save_weights(out, model, vocabulary.known_N, told)
    return told


def load_pairs(samples: Samples, split: str, vocabulary: CompactVocabulary) -> Pairs:
    """Decode the clips of a split; raises InputError if one fails."""
    rows = samples.splits[split].text
    texts = [samples.texts[row] for row in rows]
    paths = [samples.videos[text.video].path for text in texts]
    frames = np.empty((len(rows), VIEW.frames, VIEW.size, VIEW.size, 3), np.uint8)
    with DecodePool(VIEW) as pool:
        videos = tqdm(pool.decode(paths), total=len(paths), desc=f"decode {split}", unit="clip", disable=None)
        for place, video in enumerate(videos):
            if isinstance(video, DecodeFailure):
                raise InputError(
                    f"{paths[place]} does not decode ({video.reason}); remove it to render it anew"
                )
            frames[place] = video.frames[0]
    return Pairs(torch.from_numpy(frames), vocabulary.tokenize([text.text for text in texts], WORDS))


def fit(train: Pairs, vocabulary: CompactVocabulary, settings: FitSettings) -> tuple[XClip, float]:
    """Train from random weights; the model and the seconds that it took."""
    torch.manual_seed(settings.seed)
    model = XClip(sizes(vocabulary))
    steps = settings.epochs * (len(train) // settings.batch_size)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / settings.warmup_steps) * 0.5 * (1 + math.cos(math.pi * step / steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    began = time.monotonic()
    with tqdm(batches(len(train), settings), total=steps, desc="fit", unit="step", disable=None) as bar:
        for rows in bar:
            loss = contrastive_loss(logits(model, train, rows, rows))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                model.clip.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
            bar.set_postfix(loss=f"{loss.item():.2f}", refresh=False)
    return model.eval(), time.monotonic() - began


def batches(count: int, settings: FitSettings) -> Iterator[Tensor]:
    """Row numbers of every step: a shuffle an epoch, its tail dropped."""
    for epoch in range(settings.epochs):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(settings.seed * 10_000 + epoch))
        yield from order[: count // settings.batch_size * settings.batch_size].split(settings.batch_size)


def logits(model: XClip, pairs: Pairs, video_rows: Tensor, text_rows: Tensor) -> Tensor:
    """[V, T] of the clips `video_rows` against the captions `text_rows`."""
    pixels = to_pixels(pairs.frames[video_rows].flatten(0, 1), CLIP_MEAN, CLIP_STD)
    frames = encode_frames(model.clip.visual, pixels)[0].unflatten(0, (len(video_rows), VIEW.frames))
    sentence, words = encode_words(model.clip, pairs.ids[text_rows])
    return model.logits(frames, torch.ones(frames.shape[:2], dtype=torch.bool), sentence, words)


def contrastive_loss(logits_VT: Tensor) -> Tensor:
    """Mean of both directions' cross entropy with the diagonal (CLIP, figure 3)."""
    target = torch.arange(len(logits_VT))
    return (functional.cross_entropy(logits_VT, target) + functional.cross_entropy(logits_VT.T, target)) / 2


def evaluate(model: XClip, pairs: Pairs) -> dict[str, float]:
    """SumR of both directions over all pairs."""
    rows = torch.arange(len(pairs))
    with torch.inference_mode():
        scores = torch.cat([logits(model, pairs, some, rows) for some in rows.split(ROWS_AT_ONCE)])
    metrics = retrieval_metrics(scores.numpy(), rows.numpy())
    return {direction: metrics[direction]["SumR"] for direction in (TEXT_TO_VIDEO, VIDEO_TO_TEXT)}
