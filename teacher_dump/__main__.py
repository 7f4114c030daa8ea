"""python -m teacher_dump dump | fit | teachers: stage 1, from video files to a cache of teacher signals."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from store.cli import HelpFormatter, add_debug, at_least_one, run_cli
from store.errors import CacheError, InputError
from store.inputs.datasets import load_dataset, prepare_dataset
from store.lookup import check_name, plugin_names
from store.signals import ALL_TOKENS, FEATURES, TOKENS
from teacher_dump import catalogue, teachers
from teacher_dump.settings import DumpSettings

if TYPE_CHECKING:
    from store.reader import Cache
    from teacher_dump.plan import StorageOptions
    from teacher_dump.teachers.base import TeacherOptions


DTYPE_NAMES = ("float32", "float16", "bfloat16")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m teacher_dump", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    dump = commands.add_parser(
        "dump", help="write a teacher's signals into a cache", formatter_class=HelpFormatter
    )
    dump.set_defaults(execute=run_dump)
    dump.add_argument("--dataset", default="demo", help="demo, table, msrvtt, ...: python -m store dataset")
    dump.add_argument("--data", type=Path, help="its folder or file (default: data/<dataset>)")
    dump.add_argument(
        "--allow-missing",
        action="store_true",
        help="take the rows that are there; the cache records what is missing",
    )
    dump.add_argument("--cache", type=Path, help="where the cache goes (default: caches/<dataset>.zarr)")
    add_teacher_options(dump)
    add_storage_options(dump)
    dump.add_argument("--batch-videos", type=at_least_one, default=32, help="videos in one forward")
    dump.add_argument("--batch-texts", type=at_least_one, default=256, help="texts in one forward")
    dump.add_argument("--threads", type=at_least_one, help="threads of torch (default: one a core)")
    dump.add_argument("--shard-rows", type=at_least_one, help="rows of a shard (default: up to 512 MB)")
    dump.add_argument("--decoders", type=at_least_one,
                      help="processes that decode videos ahead, of each worker (default: 2; its share of the "
                      "cores with EXECUTOR=local:N)")  # fmt: skip
    dump.add_argument(
        "--time-limit", type=float, default=60.0, help="seconds that decoding one video may take"
    )
    dump.add_argument(
        "--memory-limit-mb",
        type=at_least_one,
        default=2048,
        help="megabytes that decoding one video may take",
    )
    dump.add_argument("--extend", action="store_true",
                      help="append rows that the dataset has behind those of the cache, and signals that its "
                      "teacher lacks; what is there stays as it is")  # fmt: skip
    dump.add_argument("--max-failures", type=int, nargs="?", const=0, metavar="N",
                      help="exit 1 if more than N videos fail (without a number: any)")  # fmt: skip
    add_debug(dump)
    fit = commands.add_parser(
        "fit", help="train the small X-CLIP teacher of the demo", formatter_class=HelpFormatter
    )
    fit.set_defaults(execute=run_fit)
    fit.add_argument("--out", type=Path, default=Path("teacher_dump/weights/demo_xclip.safetensors"),
                     help="where the weights go")  # fmt: skip
    fit.add_argument("--data", type=Path, default=Path("data/demo-fit"), help="where its clips are rendered")
    fit.add_argument(
        "--seed", type=int, default=0, help="of the initial weights and the order of the batches"
    )
    fit.add_argument("--threads", type=at_least_one, default=2, help="of torch; they change the last bits")
    add_debug(fit)
    catalogue.add_command(commands)
    return parser


def add_teacher_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--teacher", default="demo", help="demo, xclip, clip, ...")
    parser.add_argument("--checkpoint", type=Path, help="file with the teacher's weights")
    parser.add_argument("--architecture", help="for teacher clip: a name of open_clip, e.g. ViT-B-32")
    parser.add_argument(
        "--pretrained", help="for teacher clip: a tag of open_clip or a file; none = random weights"
    )
    parser.add_argument(
        "--layers", help="ViT blocks to store, from 0, separated by commas (default: the teacher's own)"
    )
    parser.add_argument("--frames", type=at_least_one, help="frames of a video (default: the teacher's own)")
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

    encodings = {}
    for words in arguments.encoding:
        signal, equals, encoding = words.partition("=")
        if not equals or encoding not in FEATURES:
            raise InputError(
                f"--encoding wants SIGNAL=ENCODING with one of {', '.join(FEATURES)}, "
                f"e.g. vit_layers=int8, not {words!r}"
            )
        encodings[signal] = encoding
    pixels = KeptPixels.parse(arguments.keep_pixels) if arguments.keep_pixels else None
    return StorageOptions(encodings, arguments.tokens, arguments.project, pixels)


def run_dump(arguments: argparse.Namespace) -> int:
    data = arguments.data or Path("data") / arguments.dataset
    cache_path = arguments.cache or Path("caches") / f"{arguments.dataset}.zarr"
    check_name("teacher", arguments.teacher, plugin_names(teachers))
    layers, settings = parse_layers(arguments.layers), dump_settings(arguments)
    prepared = prepare_dataset(arguments.dataset, data)
    samples = load_dataset(arguments.dataset, data, arguments.allow_missing)

    from teacher_dump.dump import dump
    from teacher_dump.jobs import load_teacher

    teacher = load_teacher(arguments.teacher, teacher_options(arguments, layers))
    cache = dump(cache_path, samples, teacher, settings, prepared, extend=arguments.extend)
    return summarise(cache, teacher.name, arguments.max_failures)


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
    )


def teacher_options(arguments: argparse.Namespace, layers: tuple[int, ...] | None) -> TeacherOptions:
    from teacher_dump.teachers.base import TeacherOptions

    return TeacherOptions(
        checkpoint=arguments.checkpoint,
        architecture=arguments.architecture,
        pretrained=arguments.pretrained,
        layers=layers,
        frames=arguments.frames,
        words=arguments.words,
        dtype=arguments.dtype,
        device=arguments.device,
        variant=tuple(word for word in arguments.variant.split(",") if word),
        vocabulary=arguments.vocabulary,
        classes=arguments.classes,
        features=arguments.features,
        prompts=tuple(arguments.prompt),
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


def summarise(cache: Cache, teacher: str, max_failures: int | None) -> int:
    """Print what is in the cache and which videos failed; the exit status."""
    from store.info import describe

    print(describe(cache.path))
    failures = cache.teacher(teacher).failures
    videos = len(cache.video_ids)
    if failures:
        print(f"\n{len(failures)} of {videos} videos failed and are left out:")
        for row, reason in failures.items():
            print(f"  {cache.video_ids[row]}: {reason}")
        print("To try them again (mended, or with a longer --time-limit), delete the cache and dump anew.")
    if len(failures) == videos:
        raise CacheError("not one video could be decoded; nothing can be trained from this cache")
    return 1 if max_failures is not None and len(failures) > max_failures else 0


def run_fit(arguments: argparse.Namespace) -> int:
    from teacher_dump.fit import FitSettings, fit_demo

    told = fit_demo(
        arguments.data, arguments.out, FitSettings(seed=arguments.seed, threads=arguments.threads)
    )
    print(f"{arguments.out}: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(build_parser()))
