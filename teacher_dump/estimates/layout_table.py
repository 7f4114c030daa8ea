"""What each layout takes for datasets of three sizes: counted by the code that plans a dump."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from store.encodings import INT8
from store.info import table
from store.inputs.view import View
from store.kept_pixels import RAW, KeptPixels
from store.layout import TableCounts
from store.signals import POOLED_TOKENS, Reduction, SignalSpec
from teacher_dump.estimates.planned_bytes import readable, signal_bytes, view_bytes
from teacher_dump.pairs.costs import PlanSize, layout_costs, steps_of

FRAMES, SIZE, WIDTH, WORDS = 12, 224, 512, 32
TOKENS, LAYER_WIDTH, LAYERS = 50, 768, 2
FUSED_WIDTH, SHORTLIST = 768, 128
SHARD_ROWS = 1 << 12


@dataclass(frozen=True)
class DatasetSize:
    """Videos, captions, and captions of the train split."""

    name: str
    videos: int
    texts: int
    train_texts: int


SIZES = (
    DatasetSize("MSR-VTT (9k split)", 10_000, 200_000, 180_000),
    DatasetSize("VATEX (English)", 34_991, 349_910, 259_910),
    DatasetSize("WebVid-10M", 10_732_602, 10_732_602, 10_727_582),
)


def layout_rows(size: DatasetSize) -> Iterator[tuple[str, int]]:
    """(what, bytes) of everything that a ViT-B/32 teacher with 12 frames may store."""
    counts, plan = TableCounts(size.videos, size.texts), PlanSize()
    frames = {"R": 1, "M": FRAMES}

    def bytes_of(spec: SignalSpec, of: TableCounts = counts) -> int:
        return signal_bytes(spec, of, SHARD_ROWS)

    def layers(encoding: str, tokens: int, reduction: Reduction) -> int:
        sizes = {**frames, "L": tokens, "D": LAYER_WIDTH}
        return LAYERS * bytes_of(SignalSpec("vit_layers/0", sizes, encoding, {}, reduction))

    embeddings = [
        SignalSpec("frame_embedding", {**frames, "D": WIDTH}),
        SignalSpec("text_embedding", {"D": WIDTH}),
    ]
    yield "factored: frame and text embeddings", sum(map(bytes_of, embeddings))
    yield "word embeddings", bytes_of(SignalSpec("word_embedding", {"W": WORDS, "D": WIDTH}))
    yield "frame relevance", bytes_of(SignalSpec("frame_relevance", frames))
    dense, planned, kept = layout_costs(size.videos, size.texts, size.train_texts, plan)
    name = f"b={plan.batch}, E={plan.epochs}"
    yield "dense logits", dense.bytes
    yield f"planned logits, {name}", planned.bytes
    yield f"planned top-k, {name}, K={plan.kept}", kept.bytes
    steps = TableCounts(size.videos, size.texts, {"p": steps_of(size.train_texts, plan)})
    fused = {"B": plan.batch, "K": plan.kept, "D": FUSED_WIDTH}
    yield (
        "    and fused [CLS], float16",
        sum(
            bytes_of(SignalSpec(f"planned_topk/p/{way}_fused_cls", fused), steps) for way in ("text", "video")
        ),
    )
    yield (
        f"global top-k, K={SHORTLIST}",
        sum(
            bytes_of(SignalSpec(f"topk_scores/{way}_{part}", {"K": SHORTLIST}, encoding))
            for way in ("text", "video")
            for part, encoding in (("index", "int32"), ("score", "float16"))
        ),
    )
    yield f"{LAYERS} ViT layers, float16", layers("float16", TOKENS, Reduction())
    yield f"{LAYERS} ViT layers, int8", layers(INT8, TOKENS, Reduction())
    pooled = 1 + 16
    yield f"{LAYERS} ViT layers, int8, pooled 2 x 2", layers(INT8, pooled, Reduction(POOLED_TOKENS))
    view = View("uniform_12x224", FRAMES, SIZE)
    seen = view_bytes(view, size.videos, SHARD_ROWS, None)
    yield "frame times and thumbnails", seen
    yield "kept pixels, raw", view_bytes(view, size.videos, SHARD_ROWS, KeptPixels(RAW)) - seen


def layout_lines() -> list[str]:
    """The table, one column a dataset."""
    columns = [list(layout_rows(size)) for size in SIZES]
    rows = [("stored", *(size.name for size in SIZES))]
    for place, (what, _) in enumerate(columns[0]):
        rows.append((what, *(readable(column[place][1]) for column in columns)))
    told = (
        f"ViT-B/32: {FRAMES} frames of {SIZE} x {SIZE}, {TOKENS} tokens of {LAYER_WIDTH}, "
        f"embeddings of {WIDTH}, texts of {WORDS} words"
    )
    counts = (f"{s.name}: {s.videos:,} videos, {s.texts:,} texts ({s.train_texts:,} train)" for s in SIZES)
    return [told, *counts, "", *table(rows, right_from=1)]
