"""Two processes on one global batch compute what one process computes on all of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.student_train.two_processes import everything

pytestmark = pytest.mark.slow
Numbers = dict[str, torch.Tensor]


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def start_two(*words: str) -> None:
    """`python WORDS` twice, with what torchrun would tell each of them."""
    shared = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "CUDA_VISIBLE_DEVICES": "",
    }
    processes = []
    for number in ("0", "1"):
        own = {"RANK": number, "LOCAL_RANK": number, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        environment = {**os.environ, **shared, **own}
        processes.append(subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment))
    assert [process.wait(timeout=300) for process in processes] == [0, 0]


@pytest.fixture(scope="module")
def together(learnable_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Numbers, Numbers]]:
    """Of each of two processes: numbers, and its texts of every step."""
    folder = tmp_path_factory.mktemp("two")
    start_two("-m", "tests.student_train.two_processes", str(learnable_path), str(folder))
    return [
        (load_file(folder / f"numbers-{n}.safetensors"), load_file(folder / f"texts-{n}.safetensors"))
        for n in (0, 1)
    ]


@pytest.fixture(scope="module")
def alone(learnable_path: Path) -> tuple[Numbers, Numbers]:
    return everything(learnable_path)


def test_losses_and_gradients_of_every_student_are_those_of_the_whole_batch(together, alone) -> None:
    names = [name for name in alone[0] if not name.startswith("trained/")]
    assert any("coarse_pearson" in name for name in names)
    for numbers, _ in together:
        for name in names:
            # Noise of float32 is small beside the loss's largest gradient, also where one cancels out.
            of_loss = name.rsplit("/", 1)[0]
            largest = max(value.norm() for key, value in alone[0].items() if key.startswith(f"{of_loss}/"))
            assert (numbers[name] - alone[0][name]).norm() <= 1e-3 * largest, name


def test_two_processes_read_the_same_batches_in_the_same_order(together, alone) -> None:
    for step, whole in alone[1].items():
        assert torch.equal(torch.cat([texts[step] for _, texts in together]), whole)


def test_two_processes_train_as_one_does_and_end_with_the_same_student(together, alone) -> None:
    """Losses are compared, not parameters: where a gradient cancels out, Adam makes steps of its noise."""
    (first, _), (second, _) = together
    assert torch.allclose(first["trained/losses"], alone[0]["trained/losses"], rtol=1e-5)
    for name, value in second.items():
        if name.startswith("trained/"):
            assert torch.equal(value, first[name]), name
