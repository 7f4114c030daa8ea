"""python -m teacher_dump teachers: what each teacher costs and gives, and where its weights are from."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from store.cli import add_debug
from store.lookup import load_plugin, plugin_names
from teacher_dump import teachers

if TYPE_CHECKING:
    from teacher_dump.models.frozen import FrozenTeacher
    from teacher_dump.teachers.base import TeacherCard

GIGA, MILLION = 1e9, 1e6
LOGITS = "video_text_logits"


@dataclass(frozen=True)
class Entry:
    """One teacher at its published size; a multiplication and an addition count as two operations.

    frame: of encoding one frame, what a video's frames share spread over them. block: of a video each time
    that it is scored against a block of texts, however many.
    """

    name: str
    card: TeacherCard
    view: str
    signals: tuple[str, ...]
    parameters: int
    frame_gflops: float
    text_gflops: float
    pair_gflops: float
    block_gflops: float

    def lines(self) -> list[str]:
        cost = (
            f"{self.frame_gflops:.2f} a frame, {self.text_gflops:.2f} a text, {self.pair_gflops:.2g} a pair"
        )
        if self.block_gflops:
            cost += f" (and {self.block_gflops:.2g} a video for each block of texts)"
        told = (
            f"{self.parameters / MILLION:.1f} million parameters; GFLOPs: {cost}",
            f"view {self.view}; signals {', '.join(self.signals)}",
            f"weights: {self.card.weights}",
            f"licence: {self.card.licence}",
        )
        return [f"{self.name:10} {self.card.model}", *(f"{'':10} {line}" for line in told)]


def add_command(commands: Any) -> None:
    """`commands`: the sub-parsers of python -m teacher_dump."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "teachers", help="list the teachers: cost, signals, view, weights, licence"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    parser.set_defaults(execute=execute)
    add_debug(parser)


def execute(arguments: argparse.Namespace) -> int:
    for name in arguments.names or plugin_names(teachers):
        print("\n".join(entry_of(name).lines()), end="\n\n")
    print("GFLOPs at the size named first; a multiplication and an addition count as two operations")
    return 0


def entry_of(name: str) -> Entry:
    """Build the teacher `name` without memory for its weights, and count what its forward does."""
    import torch

    from teacher_dump.teachers.base import TeacherOptions

    module = load_plugin(teachers, "teacher", name)
    with torch.device("meta"):
        teacher: FrozenTeacher = module.official(TeacherOptions())
    view = teacher.view
    frames = torch.zeros(1, view.frames, view.size, view.size, 3, dtype=torch.uint8)
    valid = torch.ones(1, view.frames, dtype=torch.bool)
    video_flops, videos = counted(lambda: teacher.encode_videos(frames, valid))
    text_flops, texts = counted(lambda: teacher.encode_texts(["a red circle moves over the grass"]))
    if any(spec.name == LOGITS for spec in teacher.signals):
        pair_flops, block_flops = scoring_flops(teacher, {**videos, "frame_valid": valid}, texts)
    else:
        # A factored teacher leaves the reader one product of embeddings.
        pair_flops, block_flops = 2 * texts["text_embedding"].shape[-1], 0
    return Entry(
        name,
        module.CARD,
        view.name,
        tuple(spec.name for spec in teacher.signals),
        teacher.parameters(),
        video_flops / view.frames / GIGA,
        text_flops / GIGA,
        pair_flops / GIGA,
        block_flops / GIGA,
    )


def scoring_flops(teacher: FrozenTeacher, video: Any, text: Any) -> tuple[int, int]:
    """Of one more pair, and of one more video whatever its texts, while a block is scored."""

    def of(videos: int, texts: int) -> int:
        block = (
            {name: value.repeat_interleave(count, 0) for name, value in signals.items()}
            for signals, count in ((video, videos), (text, texts))
        )
        return counted(lambda: teacher.score_pairs(*block))[0]

    one, more_videos, more_texts = of(1, 1), of(2, 1), of(1, 2)
    pair = of(2, 2) - more_videos - more_texts + one
    return pair, more_videos - one - pair


def counted(run: Any) -> tuple[int, Any]:
    """Floating-point operations of `run`, and what it returned."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        result = run()
    return counter.get_total_flops(), result
