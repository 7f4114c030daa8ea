"""A trained student on disk: parameters as safetensors, the story of its training as JSON.

<folder>/student.safetensors    the kept epoch's parameters
<folder>/log.jsonl              one line a step
<folder>/training.json          written last: without it the training does not count
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from store.durable import read_json, write_file
from store.errors import DamagedCacheError

STUDENT_FILE = "student.safetensors"
STORY_FILE = "training.json"
LOG_FILE = "log.jsonl"


def readable_json(value: Any) -> bytes:
    """JSON for people: indented, in the order given; raises ValueError for NaN or infinity."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def save_training(
    folder: Path, state: Mapping[str, Tensor], story: Mapping[str, Any], log: Iterable[Mapping[str, Any]]
) -> None:
    """Write parameters, log and story of a finished training, the story last."""
    parameters = save({name: value.detach().cpu().contiguous() for name, value in state.items()})
    write_file(folder / STUDENT_FILE, parameters)
    write_file(folder / LOG_FILE, b"".join(json.dumps(line).encode() + b"\n" for line in log))
    digest = hashlib.sha256(parameters).hexdigest()
    write_file(folder / STORY_FILE, readable_json({**story, "student_sha256": digest}))


def load_story(folder: Path) -> dict[str, Any] | None:
    """What `save_training` wrote of a finished training; None if there is none."""
    path = folder / STORY_FILE
    return read_json(path) if path.is_file() else None


def load_parameters(folder: Path) -> dict[str, Tensor]:
    """Parameters of a finished training; raises DamagedCacheError unless they are those that were saved."""
    story = load_story(folder)
    path = folder / STUDENT_FILE
    content = path.read_bytes() if path.is_file() else b""
    if story is None or hashlib.sha256(content).hexdigest() != story["student_sha256"]:
        raise DamagedCacheError(
            f"{path} is not the student that {STORY_FILE} beside it tells of; remove {folder} and train again"
        )
    return load(content)
