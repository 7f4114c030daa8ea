"""Runs golden cases: what passed, what failed and why, and what nobody here knows."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tests import golden
from tests.golden_case import GoldenCase, case_name

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
NOT_CASES = ("__main__", "run")


@dataclass(frozen=True)
class Verdict:
    """Of one case. told: how many outputs were checked, what was wrong, or why it was skipped."""

    name: str
    result: str
    told: str


def known_cases() -> list[str]:
    """Names of the cases that have a module here."""
    return sorted(m.name for m in pkgutil.iter_modules(golden.__path__) if m.name not in NOT_CASES)


def run_folder(folder: Path) -> Iterator[Verdict]:
    """Every .json of `folder` that describes a case, by name."""
    for path in sorted(folder.glob("*.json")):
        yield run_case(path)


def run_case(path: Path) -> Verdict:
    try:
        name = case_name(path)
        if name not in known_cases():
            return Verdict(path.stem, SKIPPED, f"no module tests/golden/{name}.py for case {name!r}")
        module = importlib.import_module(f"{golden.__name__}.{name}")
        case = GoldenCase.read(path)
        left_out: Mapping[str, str] = {
            output: reason
            for output, reason in getattr(module, "LEFT_OUT", {}).items()
            if output in case.outputs
        }
        with torch.no_grad():
            checked = case.check_all(module.outputs(case), left_out)
    except Exception as error:  # one broken case must not hide the verdict on the others
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Verdict(path.stem, FAILED, f"{type(error).__name__}: {'; '.join(lines)}")
    told = f"{checked} outputs"
    if left_out:
        told += f"; {len(left_out)} left out: {'; '.join(sorted(set(left_out.values())))}"
    return Verdict(path.stem, PASSED, told)
