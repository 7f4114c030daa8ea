"""What a training tells is found again: read back from event files, and by services that stand in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from store.errors import InputError
from student_train.tracking import Trackers, tag
from tests.student_train.event_files import curves

STEP = {"loss": 2.5, "info_nce": 3.0, "coarse_pearson@second": 0.5, "learning_rate": 1e-3, "epoch": 0}


def test_every_number_of_every_step_is_in_the_event_file(tmp_path: Path) -> None:
    with Trackers(tmp_path, (), {}) as tell:
        for step in range(3):
            tell(step, {**STEP, "loss": 2.5 - step, "step": step})
        tell(2, {"val_SumR": 81.5})
    found = curves(tmp_path)
    assert found["loss/total"] == [(0, 2.5), (1, 1.5), (2, 0.5)]
    assert found["val/SumR"] == [(2, 81.5)]
    assert set(found) == {
        "loss/total",
        "loss/info_nce",
        "loss/coarse_pearson@second",
        "optimizer/learning_rate",
        "progress/epoch",
        "val/SumR",
    }


def test_what_was_told_before_a_state_was_saved_survives_a_kill(tmp_path: Path) -> None:
    tell = Trackers(tmp_path, (), {})
    tell(0, {"loss": 1.0})
    tell.flush()
    assert curves(tmp_path)["loss/total"] == [(0, 1.0)], "nothing was closed"
    tell.close()


def test_a_resumed_training_is_one_curve(tmp_path: Path) -> None:
    with Trackers(tmp_path, (), {}) as tell:
        for step in range(10):
            tell(step, {"loss": 1.0})
    with Trackers(tmp_path, (), {}, first_step=6) as tell:
        for step in range(6, 12):
            tell(step, {"loss": 2.0})
    assert curves(tmp_path)["loss/total"] == [
        *((step, 1.0) for step in range(6)),
        *((step, 2.0) for step in range(6, 12)),
    ]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("gradient_norm", "optimizer/gradient_norm"),
        ("learning_rate_attention.", "optimizer/learning_rate_attention."),
        ("samples_per_s", "speed/samples_per_s"),
        ("data_wait_s", "speed/data_wait_s"),
        ("taught_share", "teaching/taught_share"),
        ("test_SumR", "test/SumR"),
    ],
)
def test_numbers_of_a_kind_stand_together(name: str, place: str) -> None:
    assert tag(name) == place


class FakeService(ModuleType):
    """Stands for wandb or trackio: keeps what it is told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.began: dict[str, Any] = {}
        self.told: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def init(self, **settings: Any) -> FakeService:
        self.began = settings
        return self

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.told.append((step, numbers))

    def finish(self) -> None:
        self.finished = True


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_that_is_asked_for_is_told_the_same(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FakeService(name)
    monkeypatch.setitem(sys.modules, name, service)
    folder = tmp_path / "my_run" / "trainings" / "taught-lr0.01-seed0"
    with Trackers(folder, (name,), {"epochs": 3}) as tell:
        tell(0, STEP)
    own = service.began["name"].removeprefix("my_run/taught-lr0.01-seed0 ")
    assert own == (folder / "service_run").read_text()
    assert service.began.get("id", own) == own
    assert service.began["config"] == {"epochs": 3}
    assert service.began["resume"] == "allow"
    assert service.told[0][0] == 0
    assert service.told[0][1] == {name: values[0][1] for name, values in approximate(curves(folder)).items()}
    assert service.finished
    first = service.began["name"]
    with Trackers(folder, (name,), {"epochs": 3}, first_step=1):
        assert service.began["name"] == first, "a training that is resumed goes on with its own curve"
    elsewhere = tmp_path / "others" / "my_run" / "trainings" / "taught-lr0.01-seed0"
    with Trackers(elsewhere, (name,), {"epochs": 3}):
        assert service.began["name"] != first, "another run of the same name and settings has its own"


def approximate(found: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, Any]]]:
    """Event files hold float32."""
    return {name: [(step, pytest.approx(value)) for step, value in of_tag] for name, of_tag in found.items()}


def test_a_service_that_is_not_installed_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="pip install wandb"):
        Trackers(tmp_path, ("wandb",), {})
    assert not list(tmp_path.iterdir())


def test_tracking_is_imported_without_tensorboard() -> None:
    code = "import sys, student_train.tracking; print('tensorboard' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
