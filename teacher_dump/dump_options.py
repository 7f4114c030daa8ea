"""The options of a dump on the command line, which its estimate and a recheck share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from store.cli import at_least_one
from store.errors import InputError
from store.signals import ALL_TOKENS, FEATURES, TOKENS
from teacher_dump.pairs.options import add_pair_options, pair_options
from teacher_dump.settings import DumpSettings

if TYPE_CHECKING:
    from teacher_dump.plan import StorageOptions
    from teacher_dump.teachers.base import TeacherOptions

DTYPE_NAMES = ("float32", "float16", "bfloat16")


def add_dump_options(parser: argparse.ArgumentParser) -> None:
    """Dataset, cache, teacher, storage, and how to run."""
    parser.add_argument("--dataset", default="demo", help="demo, table, msrvtt, ...: python -m store dataset")
    parser.add_argument("--data", type=Path, help="its folder or file (default: data/<dataset>)")
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="take the rows that are there; the cache records what is missing",
    )
    parser.add_argument("--cache", type=Path, help="where the cache goes (default: caches/<dataset>.zarr)")
    parser.add_argument("--name", help="what the teacher is called in the cache, which may hold it several "
                        "times: other prompts, another checkpoint (default: its own name)")  # fmt: skip
    add_teacher_options(parser)
    add_storage_options(parser)
    add_pair_options(parser)
    parser.add_argument("--batch-videos", type=at_least_one, default=32, help="videos in one forward")
    parser.add_argument("--batch-texts", type=at_least_one, default=256, help="texts in one forward")
    parser.add_argument("--threads", type=at_least_one, help="threads of torch (default: one a core)")
    parser.add_argument("--shard-rows", type=at_least_one, help="rows of a shard (default: up to 512 MB)")
    parser.add_argument("--decoders", type=at_least_one,
                      help="processes that decode videos ahead, of each worker (default: 2; its share of the "
                      "cores with EXECUTOR=local:N)")  # fmt: skip
    parser.add_argument(
        "--time-limit", type=float, default=60.0, help="seconds that decoding one video may take"
    )
    parser.add_argument(
        "--memory-limit-mb",
        type=at_least_one,
        default=2048,
        help="megabytes that decoding one video may take",
    )


def add_teacher_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--teacher", default="demo", help="demo, xclip, clip, ...")
    parser.add_argument("--checkpoint", type=Path, help="file with the teacher's weights")
    parser.add_argument("--architecture", help="for clip and classes: a name of open_clip, e.g. ViT-B-32")
    parser.add_argument("--pretrained", help="for clip and classes: a tag of open_clip, a file, or random")
    parser.add_argument(
        "--layers", help="ViT blocks to store, from 0, separated by commas (default: the teacher's own)"
    )
    parser.add_argument("--frames", type=at_least_one, help="frames of a video (default: the teacher's own)")
    parser.add_argument("--clips", type=at_least_one,
                        help="times that a video is seen, each on other frames, for recognition "
                        "(default: 1)")  # fmt: skip
    parser.add_argument("--crops", type=at_least_one,
                        help="crops of each of these, along the longer side (default: 1)")  # fmt: skip
    parser.add_argument("--words", type=at_least_one,
                        help="token ids of a text, for clip4clip and ts2net (default: 32)")  # fmt: skip
    parser.add_argument("--dtype", choices=DTYPE_NAMES, default=DTYPE_NAMES[0],
                        help="precision of the forward; the weights stay as they are")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="where the teacher runs: cpu, cuda, cuda:1, mps")
    parser.add_argument("--variant", default="", help="forms of one teacher, separated by commas: ts2net "
                        "noise-free, no-shift; albef momentum; classes random, orthogonal, lda")  # fmt: skip
    parser.add_argument("--vocabulary", type=Path, help="for albef: vocab.txt of bert-base-uncased")
    parser.add_argument("--classes", type=Path, help="for a variant of classes: class names, one a line")
    parser.add_argument("--features", type=Path, help="for classes lda: embedding [N, D], label [N]")
    parser.add_argument("--prompt", action="append", default=[],
                        help="for classes: a text with {} for the name; several are averaged")  # fmt: skip
    parser.add_argument("--learned-prompt", type=Path, help="for classes: what fit classes wrote")


def add_storage_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoding", action="append", default=[], metavar="SIGNAL=ENCODING",
                        help="store a signal another way, e.g. vit_layers=int8; may be repeated")  # fmt: skip
    parser.add_argument("--tokens", choices=TOKENS, default=ALL_TOKENS, help="what to keep of vit_layers")
    parser.add_argument("--keep-pixels", metavar="HOW",
                        help="keep the view's frames, for students from pixels: raw, or jpeg:90")  # fmt: skip
    parser.add_argument("--project", type=at_least_one, metavar="WIDTH",
                        help="keep vit_layers on as many principal directions")  # fmt: skip


def storage_options(arguments: argparse.Namespace) -> StorageOptions:
    """What --encoding, --tokens, --project and --keep-pixels say; raises InputError for another spelling."""
    from store.kept_pixels import KeptPixels
    from teacher_dump.plan import StorageOptions

    pixels = KeptPixels.parse(arguments.keep_pixels) if arguments.keep_pixels else None
    return StorageOptions(parse_encodings(arguments.encoding), arguments.tokens, arguments.project, pixels)


def parse_encodings(told: Sequence[str]) -> dict[str, str]:
    """["vit_layers=int8"] -> {"vit_layers": "int8"}; raises InputError for another spelling."""
    encodings = {}
    for words in told:
        signal, equals, encoding = words.partition("=")
        if not equals or encoding not in FEATURES:
            raise InputError(
                f"--encoding wants SIGNAL=ENCODING with one of {', '.join(FEATURES)}, "
                f"e.g. vit_layers=int8, not {words!r}"
            )
        encodings[signal] = encoding
    return encodings


def dump_settings(arguments: argparse.Namespace) -> DumpSettings:
    return DumpSettings(
        arguments.batch_videos,
        arguments.batch_texts,
        arguments.threads,
        arguments.shard_rows,
        arguments.decoders,
        arguments.time_limit,
        arguments.memory_limit_mb,
        storage_options(arguments),
        pair_options(arguments),
        arguments.device.partition(":")[0],
    )


def teacher_options(arguments: argparse.Namespace, layers: tuple[int, ...] | None) -> TeacherOptions:
    from teacher_dump.teachers.base import TeacherOptions

    return TeacherOptions(
        checkpoint=arguments.checkpoint,
        architecture=arguments.architecture,
        pretrained=arguments.pretrained,
        layers=layers,
        frames=arguments.frames,
        clips=arguments.clips,
        crops=arguments.crops,
        words=arguments.words,
        dtype=arguments.dtype,
        device=arguments.device,
        variant=tuple(word for word in arguments.variant.split(",") if word),
        vocabulary=arguments.vocabulary,
        classes=arguments.classes,
        features=arguments.features,
        prompts=tuple(arguments.prompt),
        learned_prompt=arguments.learned_prompt,
    )


def parse_layers(words: str | None) -> tuple[int, ...] | None:
    """ "2,5" -> (2, 5); raises InputError for anything but numbers from 0."""
    if words is None:
        return None
    try:
        layers = tuple(int(word) for word in words.split(","))
    except ValueError:
        raise InputError(f"--layers wants numbers separated by commas, e.g. 2,5, not {words!r}") from None
    if min(layers) < 0 or len(set(layers)) != len(layers):
        raise InputError(f"--layers wants different numbers from 0, not {words!r}")
    return layers
