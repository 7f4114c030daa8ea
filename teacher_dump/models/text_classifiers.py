"""Classifiers of Text4Vis that are not made of text: random, orthogonal, and Fisher's discriminant.

Wu et al. 2023, "Revisiting Classifier: Transferring Vision-Language Models for Video Recognition", section
2.2, equations 4 and 5. Letters: C classes, D width, N videos.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from store.errors import InputError
from teacher_dump.checkpoints import read_state

# Directions in which features vary less than this, relative to the most, are noise of rounding.
NEGLIGIBLE_VARIANCE = 1e-8


def random_classifier(classes: int, width: int, seed: int = 0) -> Tensor:
    """[C, D] of independent standard normal numbers (equation 4)."""
    return torch.randn(classes, width, generator=torch.Generator().manual_seed(seed))


def orthogonal_classifier(classes: int, width: int, seed: int = 0) -> Tensor:
    """[C, D] orthonormal rows, of the QR decomposition of a normal [D, D] matrix (equation 5).

    Raises InputError for more classes than orthogonal directions.
    """
    if classes > width:
        raise InputError(
            f"{classes} classes can't be orthogonal in {width} dimensions; choose another variant"
        )
    square = torch.randn(width, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(square).Q.T[:classes].float().contiguous()


def discriminant_classifier(features_ND: Tensor, label_N: Tensor, classes: int) -> Tensor:
    """[C, D] weights of the linear discriminant: pooled within-class covariance, inverted, times the class
    means less the mean of all.

    Raises InputError where a class has no features, or no class has two.
    """
    features_ND = features_ND.double()
    count_C = torch.bincount(label_N, minlength=classes)
    if len(count_C) > classes or not bool((count_C > 0).all()):
        missing = [number for number in range(classes) if number >= len(count_C) or not count_C[number]]
        raise InputError(
            f"features of all {classes} classes are needed, labelled 0 to {classes - 1}; "
            f"{f'class {missing[0]} has none' if missing else f'the largest label is {int(label_N.max())}'}"
        )
    if len(features_ND) == classes:
        raise InputError("a discriminant needs classes with two or more features; give more videos a class")
    mean_CD = torch.zeros(classes, features_ND.shape[1], dtype=torch.float64)
    mean_CD = mean_CD.index_add(0, label_N, features_ND) / count_C[:, None]
    within_ND = features_ND - mean_CD[label_N]
    covariance_DD = within_ND.T @ within_ND / (len(features_ND) - classes)
    inverse_DD = torch.linalg.pinv(covariance_DD, rtol=NEGLIGIBLE_VARIANCE, hermitian=True)
    return ((mean_CD - features_ND.mean(0)) @ inverse_DD).float()


def read_classes(path: Path | None) -> list[str]:
    """Class names, one a line, in their order; raises InputError where they are no such list."""
    if path is None or not path.is_file():
        raise InputError(
            "this variant needs the list of classes: --classes FILE, one name a line, as in the dataset"
        )
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names or len(set(names)) != len(names):
        raise InputError(f"{path}: class names, one a line, each once, are wanted; it has {len(names)}")
    return names


def read_features(path: Path | None) -> tuple[Tensor, Tensor]:
    """ "embedding" [N, D] and "label" [N] (line of the class, from 0) of a safetensors or .pt file."""
    if path is None or not path.is_file():
        raise InputError(
            "variant 'lda' needs visual features of the train split: --features FILE with the tensors "
            "'embedding' [N, D] and 'label' [N]"
        )
    found = read_state(path, "classes", "features")
    embedding, label = found.get("embedding"), found.get("label")
    if embedding is None or label is None or embedding.ndim != 2 or label.shape != embedding.shape[:1]:
        shapes = {name: tuple(value.shape) for name, value in found.items()}
        raise InputError(f"{path} wants 'embedding' [N, D] and 'label' [N], it has {shapes}")
    if not torch.isfinite(embedding).all() or label.is_floating_point() or bool((label < 0).any()):
        raise InputError(f"{path}: embeddings are finite and labels whole numbers from 0")
    return embedding, label.long()
