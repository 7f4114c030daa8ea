"""Every step of a training, told to TensorBoard and to the services that are asked for.

    Trackers(step, numbers)     one dict of numbers a step, e.g. {"loss": 1.2, "info_nce": 3.1, ...}
      -> <training>/events.out.tfevents.*     always; `tensorboard --logdir RUN/trainings` shows them all
      -> wandb, trackio                       where they are installed and asked for

The event files are written by TensorBoard's own writer, one record a step: torch's `SummaryWriter`, which
accelerate's tracker wraps, writes a record for every number and took about 14 times as long.
"""

from __future__ import annotations

import importlib
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from store.durable import write_file
from store.errors import InputError

PROJECT = "student_train"
SERVICE_RUN = "service_run"
GROUPS = {
    "loss": "loss/total",
    "epoch": "progress/epoch",
    "gradient_norm": "optimizer/gradient_norm",
    "samples_per_s": "speed/samples_per_s",
    "data_wait_s": "speed/data_wait_s",
    "taught_share": "teaching/taught_share",
}
PREFIXES = {"learning_rate": "optimizer/learning_rate", "val_": "val/", "test_": "test/"}
NOT_TOLD = ("step",)


class Sink(Protocol):
    """Something that keeps numbers by step."""

    def tell(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class Trackers:
    """The sinks of one training, called with each step's numbers; a context manager that closes them.

    folder: of the training, `<run>/trainings/<name>`. services: modules of TRACKERS. settings: what the
    services show beside the curves. first_step: where this process begins; what an earlier one told from
    there on is forgotten, so that a resumed training is one curve. Raises InputError for a service that
    is not installed.
    """

    def __init__(
        self, folder: Path, services: Sequence[str], settings: Mapping[str, Any], first_step: int = 0
    ) -> None:
        modules = [(name, service_module(name)) for name in services]
        self._sinks: list[Sink] = [EventFile(folder, first_step)]
        self._sinks += [Service(name, module, folder, settings) for name, module in modules]

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        tagged = {tag(name): value for name, value in numbers.items() if name not in NOT_TOLD}
        for sink in self._sinks:
            sink.tell(step, tagged)

    def flush(self) -> None:
        """Write out what was told: a state that is saved now never knows more than the curves."""
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tag(name: str) -> str:
    """The number's place among others of its kind; a name that is none of ours is a loss term."""
    for start, group in PREFIXES.items():
        if name.startswith(start):
            return group + name.removeprefix(start)
    return GROUPS.get(name, f"loss/{name}")


class EventFile:
    """TensorBoard's event file in `folder`; imported here, it takes a third of a second."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(folder))
        start = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=time.time(), step=first_step, session_log=start))

    def tell(self, step: int, numbers: Mapping[str, float]) -> None:
        value = [self._summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        summary = self._summary(value=value)
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def own_name(folder: Path) -> str:
    """What tells the training in `folder` from all others, also from one with equal settings; drawn once."""
    file = folder / SERVICE_RUN
    if not file.exists():
        write_file(file, secrets.token_hex(8).encode())
    return file.read_text()


class Service:
    """wandb or trackio, whose interfaces agree in what is used here: init, log, finish.

    A training that is resumed goes on with its own run there, whose name its folder keeps (`SERVICE_RUN`).
    """

    def __init__(self, name: str, module: Any, folder: Path, settings: Mapping[str, Any]) -> None:
        run, own = folder.parent.parent, own_name(folder)
        told: dict[str, Any] = {
            "name": f"{run.name}/{folder.name} {own}",
            "config": dict(settings),
            "resume": "allow",
        }
        if name == "wandb":
            told |= {"id": own, "dir": str(run), "reinit": "finish_previous"}
        self._run = module.init(project=PROJECT, **told)

    def tell(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def flush(self) -> None:
        """A service keeps what it was told in a process of its own."""

    def close(self) -> None:
        self._run.finish()


def service_module(name: str) -> Any:
    """The service's own library; raises InputError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise InputError(f"{name} is not installed: pip install {name}, or leave it out of `track`") from None
