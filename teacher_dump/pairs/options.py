"""The options of `dump` that say which pairs are scored and how the scores are stored."""

from __future__ import annotations

import argparse

from store.cli import at_least_one
from teacher_dump.pairs.layouts import CHOICES, BatchOptions, PairOptions


def add_pair_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", choices=CHOICES,
                        help="layout of pair scores (default: as the other options and the teacher "
                        "have it)")  # fmt: skip
    parser.add_argument("--plan", metavar="batch=B,epochs=E[,seed=S][,k=K]",
                        help="draw batches and score exactly those, or with k= the best K of each row of "
                        "one; also split= (default: train) and name=")  # fmt: skip
    parser.add_argument("--topk", type=at_least_one, metavar="K",
                        help="of every video and text the K best of its split, re-ranked by this "
                        "teacher")  # fmt: skip
    parser.add_argument("--topk-splits", metavar="SPLIT,...", help="of these splits alone (default: all)")
    parser.add_argument("--shortlist", metavar="TEACHER", default="",
                        help="a dual encoder in the same cache whose ranking chooses the best K "
                        "(default: the teacher's own embeddings)")  # fmt: skip
    parser.add_argument("--fused-cls", action="store_true",
                        help="store the fused [CLS] of the pairs that --plan with k= chooses")  # fmt: skip
    parser.add_argument("--pair-memory-mb", type=at_least_one, metavar="MB",
                        help="memory of scoring pairs, fixed in the plan (default: of what is free, "
                        "up to 1024)")  # fmt: skip


def pair_options(arguments: argparse.Namespace) -> PairOptions:
    """What those say; raises InputError for what contradicts itself."""
    return PairOptions(
        arguments.pairs,
        BatchOptions.parse(arguments.plan) if arguments.plan is not None else None,
        arguments.topk,
        tuple(arguments.topk_splits.split(",")) if arguments.topk_splits else (),
        arguments.shortlist,
        arguments.fused_cls,
        arguments.pair_memory_mb,
    )
