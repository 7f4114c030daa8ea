"""Fitting the prompt of `classes`: CoOp's vectors before frozen towers, on a dataset of classes.

Frames go through the frozen tower once, before the first epoch, and a video is the mean of its frames'
embeddings (Text4Vis' TAP): D numbers a video are all that stays in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from store.errors import InputError
from store.inputs.samples import CLASS
from store.retrieval_metrics import recognition_metrics
from teacher_dump.checkpoints import weights_digest
from teacher_dump.fitting.course import Course, FitRequest, Place
from teacher_dump.fitting.pair_batches import EPOCH_SEED, FrameSource
from teacher_dump.fitting.settings import SGD, WARM_EPOCH_COSINE, FitSettings
from teacher_dump.fitting.validation import SCORE, VIDEOS_AT_ONCE
from teacher_dump.models.learned_prompt import CONTEXT, encode_after, text_width
from teacher_dump.teachers.classes import ClassesTeacher

VECTORS = 4
INITIAL_STD = 0.02
DEFAULTS = FitSettings(
    epochs=50,
    batch_size=32,
    learning_rate=2e-3,
    pretrained_learning_rate=0.0,
    weight_decay=5e-4,
    optimiser=SGD,
    betas=(0.9, 0.0),
    schedule=WARM_EPOCH_COSINE,
    warmup=0.005,
    clip_norm=0.0,
)
"""KaiyangZhou/CoOp `configs/trainers/CoOp/vit_b32_ep50.yaml` (SGD 2e-3, batches of 32, 50 epochs, the first
at 1e-5, cosine) with Dassl's momentum 0.9 and decay 5e-4; four vectors: Text4Vis, appendix B.4."""


class Context(nn.Module):
    """The learned vectors [K, D]."""

    def __init__(self, vectors: int, width: int, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(vectors, width, generator=torch.Generator().manual_seed(seed))
        self.context = nn.Parameter(INITIAL_STD * drawn)


class PromptCourse(Course):
    """teacher: whose towers read the names; it stays as it is. Raises InputError where the dataset has no
    classes."""

    model: Context

    def __init__(self, teacher: ClassesTeacher, request: FitRequest, started_from: Mapping[str, Any]) -> None:
        self.teacher, self.request, self.started_from = teacher, request, started_from
        teacher.to(request.device)
        vectors = (request.options or {}).get(CONTEXT, VECTORS)
        self.model = Context(vectors, text_width(teacher.model), request.settings.seed).to(request.device)
        samples = request.samples
        classes = [row for row, text in enumerate(samples.texts) if text.kind == CLASS]
        classes = classes[: len(classes) // max(1, len(samples.prompts))]
        if not classes:
            raise InputError(f"dataset {samples.name!r} has no classes; a prompt is learned on one that has")
        self.names = [samples.texts[row].text for row in classes]
        self._number = {row: number for number, row in enumerate(classes)}
        self.source = FrameSource(samples, teacher.view, request.decoding)
        self.train_ND, self.label_N = self._features(request.train_split, None)
        self.val_ND, self.val_label_N = self._features(request.val_split, request.decoding.val_videos)
        if len(self.train_ND) < request.settings.batch_size:
            raise InputError(
                f"split {request.train_split!r} has {len(self.train_ND)} videos with a class, fewer than a "
                "batch; give a smaller --batch-size"
            )

    def _features(self, split: str, most: int | None) -> tuple[Tensor, Tensor]:
        """Normalised video embeddings [N, E] and classes [N] of a split; empty where there is no such one.

        Raises InputError where none of its videos decodes.
        """
        samples = self.request.samples
        rows = samples.splits[split].video if split in samples.splits else np.array([], dtype=np.int64)
        rows = np.array([row for row in rows if samples.videos[row].label is not None], dtype=np.int64)
        if most is not None and len(rows) > most:
            rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]
        features, labels = [], []
        bar = tqdm(range(0, len(rows), VIDEOS_AT_ONCE), desc=f"encode {split}", unit="batch", disable=None)
        for start in bar:
            found = self.source.frames(rows[start : start + VIDEOS_AT_ONCE].tolist())
            if not found:
                continue
            frames, valid = (torch.from_numpy(np.stack([v[part] for v in found.values()])) for part in (0, 1))
            frames_BMD = self.teacher.encode_videos(frames, valid)["frame_embedding"]
            frames_BMD = functional.normalize(frames_BMD, dim=-1) * valid[..., None].to(frames_BMD.device)
            features.append(functional.normalize(frames_BMD.sum(1), dim=-1))
            labels += [self._number[int(samples.videos[row].label or 0)] for row in found]
        if len(rows) and not features:
            raise InputError(f"not one video of split {split!r} decodes; see that they are whole")
        embedded = torch.cat(features).clone() if features else torch.empty(0, 1)
        return embedded, torch.tensor(labels, dtype=torch.long, device=embedded.device)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train_ND) // self.request.settings.batch_size

    def groups(self) -> list[dict[str, Any]]:
        settings = self.request.settings
        return [
            {
                "params": [self.model.context],
                "lr": settings.learning_rate,
                "weight_decay": settings.weight_decay,
            }
        ]

    def batches(self, epoch: int) -> Iterator[Tensor]:
        settings = self.request.settings
        generator = torch.Generator().manual_seed(settings.seed * EPOCH_SEED + epoch)
        order = torch.randperm(len(self.train_ND), generator=generator)
        yield from order[: self.steps_per_epoch * settings.batch_size].split(settings.batch_size)

    def _logits(self, features_ND: Tensor) -> Tensor:
        model = self.teacher.model
        rows_CE = encode_after(model, self.teacher.tokenize, self.model.context, self.names)
        scale = model.logit_scale.exp()
        logits: Tensor = scale * features_ND @ functional.normalize(rows_CE, dim=-1).T
        return logits

    def loss(self, batch: Tensor, place: Place) -> Tensor:
        rows = batch.to(self.train_ND.device)
        return functional.cross_entropy(self._logits(self.train_ND[rows]), self.label_N[rows])

    def validate(self) -> dict[str, float]:
        if not len(self.val_ND):
            return {}
        with torch.no_grad():
            scores = self._logits(self.val_ND)
        found = recognition_metrics(scores.cpu().numpy(), self.val_label_N.cpu().numpy())
        return {**found, SCORE: found["top-1"]}

    def weights(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict())

    def told(self) -> dict[str, Any]:
        return {"towers_sha256": weights_digest(self.teacher.model)}

    def described(self) -> dict[str, Any]:
        return {"vectors": len(self.model.context)}

    def failures(self) -> Mapping[str, str]:
        return {self.request.samples.videos[row].id: why for row, why in self.source.failures.items()}

    def close(self) -> None:
        self.source.close()
