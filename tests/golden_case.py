"""Golden vectors, read in one place: official axis orders become ours here only.

A case is `<case>_<variant>.json` (what the tensors are, how well they have to be met) beside a file of the
same name with .safetensors (`input.*`, `output.*`, `state.*`). Official score matrices are [text, video];
ours are [video, text].
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

TEXT_BY_VIDEO = "[text, video]"
ONE_FOR_ALL = re.compile(r"Suggested pass mark: (\S+) absolute on every output")


@dataclass(frozen=True)
class GoldenCase:
    """One case. config: the official settings. state: official parameter names. atol: by output's name."""

    name: str
    config: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    state: dict[str, Tensor]
    atol: dict[str, float]

    @classmethod
    def read(cls, path: Path) -> GoldenCase:
        """path: the .json of the case."""
        told = json.loads(path.read_text())
        parts: dict[str, dict[str, Tensor]] = {"input": {}, "output": {}, "state": {}}
        for key, value in load_file(path.with_suffix(".safetensors")).items():
            part, _, rest = key.partition(".")
            axes = told["tensors"].get(key, {}).get("axes", "")
            parts[part][rest] = value.T if axes.startswith(TEXT_BY_VIDEO) else value
        outputs = parts["output"]
        return cls(
            told["case"],
            told["config"],
            parts["input"],
            outputs,
            parts["state"],
            tolerances(told, set(outputs)),
        )

    @classmethod
    def shared(cls, shared: Path, name: str) -> GoldenCase:
        """The case `name` of the shared material."""
        return cls.read(shared / "golden" / f"{name}.json")

    def check(self, name: str, value: Tensor) -> None:
        """Fail unless `value` is output `name`, to the tolerance that its authors suggest."""
        expected = self.outputs[name]
        assert value.shape == expected.shape, (
            f"{name}: shape {tuple(value.shape)} in place of {tuple(expected.shape)}"
        )
        torch.testing.assert_close(
            value.to(expected.dtype),
            expected,
            atol=self.atol[name],
            rtol=0,
            msg=lambda text: f"{name}: {text}",
        )

    def check_all(self, ours: Mapping[str, Tensor], left_out: Mapping[str, str]) -> int:
        """Check every output but those of which `left_out` says why; returns how many were checked."""
        wanted = set(self.outputs) - set(left_out)
        missing = sorted(wanted - set(ours))
        assert not missing, f"no number of ours for the outputs {', '.join(missing)}"
        for name in sorted(wanted):
            self.check(name, ours[name])
        assert wanted, "the case has no outputs to check"
        return len(wanted)


def case_name(path: Path) -> str:
    """The case that a .json describes."""
    return str(json.loads(path.read_text())["case"])


def tolerances(told: dict[str, Any], outputs: set[str]) -> dict[str, float]:
    """Absolute tolerance of every output: one for each, or one for all in a sentence."""
    tolerance = told["tolerance"]
    if isinstance(tolerance, dict):
        return {name: tolerance["per_output"][name]["suggested_atol"] for name in outputs}
    found = ONE_FOR_ALL.search(tolerance)
    assert found, f"no pass mark in {tolerance!r}"
    return dict.fromkeys(outputs, float(found[1]))
