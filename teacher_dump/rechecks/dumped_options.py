"""What a cache tells of the options of its dump, so that a recheck need not be told again."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from store.identity import PLUGIN
from store.untrusted import is_of

if TYPE_CHECKING:
    from store.reader import TeacherReader

REENCODED = "reencoded_from"
OF_OPEN_CLIP = ("clip", "classes")
WITH_WORDS = ("clip4clip", "ts2net")
CLASSIFIERS = ("random", "orthogonal", "lda")


def plugin_of(reader: TeacherReader) -> str:
    """The plug-in that said what is stored: `dump --name` and `reencode` keep it under names of their own."""
    source = reader.identity.get(REENCODED)
    came_from = source.get("teacher") if isinstance(source, Mapping) else None
    told = (reader.identity.get(PLUGIN), came_from)
    return next((name for name in told if isinstance(name, str)), reader.name)


def as_dumped(arguments: argparse.Namespace, reader: TeacherReader) -> argparse.Namespace:
    """The options, those that were left out being what the cache tells of its teacher.

    Which weights these were is for the user to say: a name in a cache is no file of this machine.
    """
    asked = argparse.Namespace(**vars(arguments))
    asked.teacher = plugin_of(reader)
    told = {name: getattr(reader.view, name) for name in ("frames", "clips", "crops")}
    layers = sorted(int(name.split("/")[1]) for name in reader.signals if name.startswith("vit_layers/"))
    if layers:
        told["layers"] = ",".join(str(layer) for layer in layers)
    told |= told_options(asked.teacher, reader.identity)
    for name, value in told.items():
        if not getattr(asked, name):
            setattr(asked, name, value)
    return asked


def told_options(teacher: str, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the plug-in `teacher` by name, as they are parsed; what the identity does not tell, or
    not soundly, is left out."""
    found: dict[str, Any] = {"dtype": "float32"}
    if is_of(identity.get("dtype"), str):
        found["dtype"] = identity["dtype"]
    architecture = identity.get("architecture")
    if teacher in OF_OPEN_CLIP and isinstance(architecture, Mapping) and is_of(architecture.get("name"), str):
        found["architecture"] = architecture["name"]
    if teacher in WITH_WORDS and is_of(identity.get("context_length"), int):
        found["words"] = identity["context_length"]
    classifier = identity.get("classifier")
    classifier = classifier if isinstance(classifier, Mapping) else {}
    prompts = classifier.get("prompts")
    if isinstance(prompts, list) and all(isinstance(prompt, str) for prompt in prompts):
        found["prompt"] = prompts
    variant = {
        "momentum": teacher == "albef" and identity.get("encoders") == "momentum",
        "noise-free": teacher == "ts2net" and identity.get("noise", {}) is None,
        "no-shift": teacher == "ts2net" and identity.get("shifted_blocks") == [],
        **{kind: classifier.get("kind") == kind for kind in CLASSIFIERS},
    }
    found["variant"] = ",".join(word for word, was in variant.items() if was)
    return found
