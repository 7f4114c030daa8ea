"""A training on disk: what it leaves in the end, and checkpoints while it runs; safetensors and JSON.

<folder>/student.safetensors       the kept epoch's parameters
<folder>/log.jsonl                 one line a step
<folder>/training.json             written last: without it the training does not count
<folder>/checkpoints/step-<n>.*    the state after n steps, gone when the training is finished:
                                   .safetensors, then .json with its digest
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from safetensors.torch import load, save
from torch import Tensor

from store.durable import json_digest, read_json, write_file
from store.errors import CacheError, DamagedCacheError

STUDENT_FILE = "student.safetensors"
STORY_FILE = "training.json"
LOG_FILE = "log.jsonl"


def readable_json(value: Any) -> bytes:
    """JSON for people: indented, in the order given; raises ValueError for NaN or infinity."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    content: bytes = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    return content


def save_training(folder: Path, state: Mapping[str, Tensor], story: Mapping[str, Any]) -> None:
    """Write parameters and story of a finished training, the story last."""
    parameters = tensor_bytes(state)
    write_file(folder / STUDENT_FILE, parameters)
    digest = hashlib.sha256(parameters).hexdigest()
    write_file(folder / STORY_FILE, readable_json({**story, "student_sha256": digest}))


class StepLog:
    """log.jsonl in `folder`: one line a step. Of an earlier try the lines before its first step are kept."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG_FILE
        self._file: IO[bytes] | None = None

    def __call__(self, step: int, line: Mapping[str, Any]) -> None:
        if "step" not in line:  # a score: training.json has those
            return
        if self._file is None:
            before = self._path.read_bytes().splitlines(keepends=True) if self._path.is_file() else []
            write_file(self._path, b"".join(before[:step]))
            self._file = open(self._path, "ab")  # noqa: SIM115, closed by close()
        self._file.write(json.dumps(line).encode() + b"\n")

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self.flush()
            self._file.close()


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


class Checkpoints:
    """The states of a running training in `folder`: the last `keep`, each with the best epoch so far.

    every_s: seconds between two; every_steps: steps between two, besides. before_saving: called first, e.g.
    to write out a log. A state counts once its JSON is there; a damaged one is passed over with a warning.
    """

    def __init__(
        self,
        folder: Path,
        every_s: float = 300.0,
        every_steps: int | None = None,
        keep: int = 2,
        before_saving: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.before_saving = before_saving
        self._every_s = every_s
        self._every_steps = every_steps
        self._keep = keep
        self._saved = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether a state should be saved after `step` steps."""
        if self._every_steps is not None and step % self._every_steps == 0:
            return True
        return time.monotonic() - self._saved >= self._every_s

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write a state atomically, then remove all but the last `keep`."""
        self.before_saving()
        content = tensor_bytes(tensors)
        write_file(self._file(step, ".safetensors"), content)
        told = {"facts": dict(facts), "tensors_sha256": hashlib.sha256(content).hexdigest()}
        write_file(self._file(step, ".json"), readable_json({**told, "digest": json_digest(told)}))
        for old in self._steps()[self._keep :]:
            self._file(old, ".json").unlink()
        kept = self._steps()
        for path in self.folder.glob("step-*.safetensors"):
            if int(path.stem.removeprefix("step-")) not in kept:
                path.unlink()
        self._saved = time.monotonic()

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts of the last sound state, None if there is none; warns of every damaged one."""
        steps = self._steps()
        for step in steps:
            try:
                return self._read(step)
            except (CacheError, OSError) as error:
                way = "the checkpoint before it is used"
                if step == steps[-1]:
                    way = "there is none before it, so the training begins anew"
                warnings.warn(f"{error}; {way}", RuntimeWarning, stacklevel=2)
        return None

    def step(self) -> int:
        """Steps that are done in the last sound state, 0 if there is none."""
        found = self.newest()
        return found[1]["step"] if found else 0

    def _read(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        document, path = read_json(self._file(step, ".json")), self._file(step, ".safetensors")
        stored = document if isinstance(document, dict) else {}
        told = {name: value for name, value in stored.items() if name != "digest"}
        content = path.read_bytes()
        sound = stored.get("digest") == json_digest(told)
        if not sound or hashlib.sha256(content).hexdigest() != told["tensors_sha256"]:
            raise DamagedCacheError(
                f"checkpoint {path.stem} in {self.folder} was changed after it was written"
            )
        return load(content), told["facts"]

    def clear(self) -> None:
        """Remove all states: the training is finished."""
        for path in self.folder.glob("step-*"):
            path.unlink()
        if self.folder.is_dir():
            self.folder.rmdir()

    def _file(self, step: int, suffix: str) -> Path:
        return self.folder / f"step-{step:08d}{suffix}"

    def _steps(self) -> list[int]:
        """Steps of the states that are written out, the last first."""
        return sorted(
            (int(path.stem.removeprefix("step-")) for path in self.folder.glob("step-*.json")), reverse=True
        )
