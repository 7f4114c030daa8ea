"""Ways to store less of the same dump, each with its bytes: fewer layers, int8, pooling, planned pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from store.errors import InputError
from store.signals import ALL_TOKENS, TOKEN, SignalSpec
from teacher_dump.estimates.planned_bytes import readable
from teacher_dump.pairs.layouts import LOGITS
from teacher_dump.plan import StorageOptions
from teacher_dump.teachers.base import Teacher

POOLED, INT8 = "pool2x2", "int8"
SizeOf = Callable[[Sequence[SignalSpec], StorageOptions], int]
"""Bytes of a dump that stores these specs."""


@dataclass(frozen=True)
class Alternative:
    """options: as they are given on the command line, in words. bytes: of the whole cache."""

    options: str
    bytes: int

    def fits(self, free_bytes: int) -> bool:
        return self.bytes <= free_bytes


def alternatives(
    teacher: Teacher,
    stored: Sequence[SignalSpec],
    storage: StorageOptions,
    size_of: SizeOf,
    planned_bytes: int,
) -> list[Alternative]:
    """Those that are smaller than what was asked for, the largest first.

    stored: the specs that were asked for. size_of: the bytes of a dump of other ones. planned_bytes: of
    pair scores of a batch plan, instead of dense ones.
    """
    asked = size_of(stored, storage)
    found: dict[str, int] = {}
    for options, specs, chosen in variants(teacher, stored, storage):
        found[options] = size_of(specs, chosen)
    dense = next((spec for spec in stored if spec.name == LOGITS), None)
    if dense is not None:
        for options, specs, chosen in [("", list(stored), storage), *variants(teacher, stored, storage)]:
            without = [spec for spec in specs if spec.name != LOGITS]
            words = " ".join(filter(None, (options, "--plan batch=240,epochs=5")))
            found[words] = size_of(without, chosen) + planned_bytes
    smaller = [Alternative(options, size) for options, size in found.items() if size < asked]
    return sorted(smaller, key=lambda alternative: -alternative.bytes)


def variants(
    teacher: Teacher, stored: Sequence[SignalSpec], storage: StorageOptions
) -> Iterator[tuple[str, list[SignalSpec], StorageOptions]]:
    """(options, specs, storage) of every way that this teacher allows."""
    layers = [spec for spec in stored if spec.kind.granularity == TOKEN]
    if storage.pixels is not None:
        yield "without --keep-pixels", list(stored), replace(storage, pixels=None)
    if not layers:
        return
    last = layers[-1].name
    encoding, tokens = layers[0].encoding, storage.tokens
    choices = product(
        (False, True) if len(layers) > 1 else (False,),
        dict.fromkeys((encoding, INT8)),
        dict.fromkeys((tokens, POOLED if tokens == ALL_TOKENS else tokens)),
    )
    for fewer, other_encoding, other_tokens in choices:
        words = [f"--layers {last.rpartition('/')[2]}"] * fewer
        words += [f"--encoding vit_layers={INT8}"] * (other_encoding != encoding)
        words += [f"--tokens {POOLED}"] * (other_tokens != tokens)
        encodings = {**storage.encodings, "vit_layers": other_encoding}
        chosen = replace(storage, tokens=other_tokens, encodings=encodings)
        try:
            specs = chosen.applied(teacher.signals, teacher.pair_inputs) if words else ()
        except InputError:
            continue  # pairs are scored from all of these tokens
        left_out = {spec.name for spec in layers[:-1]} if fewer else set()
        kept = {spec.name for spec in stored} - left_out
        if words:
            yield " ".join(words), [spec for spec in specs if spec.name in kept], chosen


def told(found: Sequence[Alternative], free_bytes: int) -> str:
    """For a refusal: those that fit, or that none does and which is the smallest."""
    fitting = [alternative for alternative in found if alternative.fits(free_bytes)]
    if fitting:
        return "these would fit: " + "; ".join(f"{a.options} ({readable(a.bytes)})" for a in fitting)
    if found:
        return f"nothing would fit, the smallest is {found[-1].options} ({readable(found[-1].bytes)})"
    return "nothing of it can be stored smaller"
