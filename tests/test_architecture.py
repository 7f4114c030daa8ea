"""The house of the project: teacher_dump -> store <- student_train, and what each may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FORBIDDEN = {
    "store": {"teacher_dump", "student_train", "torch", "dask", "distributed", "open_clip", "accelerate"},
    "teacher_dump": {"student_train"},
    "student_train": {"teacher_dump", "decord", "av"},
}
ONLY_WHEN_DECODING = {"decord", "av", "PIL"}


def imported(source: str) -> set[str]:
    """Top-level packages that a module imports anywhere, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_package_imports_what_it_must_not(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        wrong = imported(path.read_text()) & FORBIDDEN[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_the_rule_would_see_an_import_inside_a_function():
    assert imported("def f():\n    from teacher_dump.plan import x\n    import torch.nn") == {
        "teacher_dump",
        "torch",
    }


def test_no_module_has_a_name_that_says_nothing():
    vague = {"utils", "common", "helpers", "manager", "misc", "data"}
    for package in FORBIDDEN:
        names = {path.stem for path in (ROOT / package).rglob("*")} & vague
        assert not names, f"{package} holds {names}"


@pytest.mark.parametrize(
    "module", ["store.reader", "store.writer", "store.__main__", "student_train.__main__"]
)
def test_reading_and_training_need_no_decoder(module):
    """A laptop that only pulls and trains has neither decord nor PyAV."""
    code = f"import sys, {module}; print(*({ONLY_WHEN_DECODING} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


@pytest.mark.parametrize("module", ["store.__main__", "teacher_dump.__main__", "student_train.__main__"])
def test_help_does_not_wait_for_torch(module):
    code = f"import sys, {module}; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_every_tracked_text_is_free_of_paths_of_a_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    homes = ("/" + "root/", "/" + "home/", "/" + "work/")
    for name in listed.split():
        path = Path(ROOT / name)
        if path.suffix in {".py", ".md", ".toml", ".yml", ".txt"} and path.exists():
            text = path.read_text()
            assert not any(home in text for home in homes), name
