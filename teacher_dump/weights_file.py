"""Weights that a fit wrote: one safetensors file with how they were made in its header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from store.durable import write_file
from store.errors import InputError

TOLD = "told"
FITTED_BY = "python -m teacher_dump fit"


def write_weights(path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
    """Write `tensors`, aside first; `told` lies in the header as JSON."""
    # Copied, since safetensors refuses tensors that share memory.
    own = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, save(own, {TOLD: json.dumps(told, sort_keys=True)}))


def told_by(path: Path) -> dict[str, Any]:
    """How the weights in `path` were made, and what they reached; raises InputError where no fit wrote it."""
    try:
        with safe_open(str(path), framework="pt") as file:
            told: dict[str, Any] = json.loads(file.metadata()[TOLD])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        raise InputError(f"{path} was not written by {FITTED_BY}; make it anew with that") from None
    return told


def file_digest(path: Path) -> str:
    """sha256 of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
