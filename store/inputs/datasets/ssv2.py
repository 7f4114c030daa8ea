"""Something-Something V2: clips of 174 actions with objects. The validation set is the split `test`.

Goyal et al., ICCV 2017; Mahdisoltani et al., 2018. The variant `challenge` has the official test clips as
well, whose classes were published later, as the split `challenge`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from store.errors import InputError
from store.inputs.annotation_files import check_id, expect, field, read_json, separated_lines
from store.inputs.class_names import PERSON_PROMPT
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import RECOGNITION
from store.inputs.samples import DatasetCard

CLASS_COUNT = 174
LABELS = ("labels.json", "something-something-v2-labels.json")
FILES = {
    "train": ("train.json", "something-something-v2-train.json"),
    "test": ("validation.json", "something-something-v2-validation.json"),
}
CHALLENGE = ("test.json", "something-something-v2-test.json")
ANSWERS = ("test-answers.csv", "something-something-v2-test-answers.csv")
SITE = "published at https://www.qualcomm.com/developer/software/something-something-v-2-dataset"


def read(files: FoundFiles) -> Annotations:
    number = class_numbers(files.one(LABELS[0]))
    entries = []
    for split, names in FILES.items():
        path = files.one(names[0])
        for at, item in enumerate(expect(str(path), read_json(path, "a list of 'id' and 'template'"), list)):
            where = f"{path}: entry {at}"
            template = field(where, item, "template", str)
            id = check_id(where, field(where, item, "id", str))
            entries.append(Entry(id, split, label=number_of(where, template, number)))
    return Annotations(entries, tuple(number))


def read_challenge(files: FoundFiles) -> Annotations:
    """The answers lie in another order than the test's ids, so they are joined by id."""
    annotations = read(files)
    number = {name: place for place, name in enumerate(annotations.classes)}
    path, answers = files.one(CHALLENGE[0]), files.one(ANSWERS[0])
    class_of: dict[str, int] = {}
    for where, (id, template) in separated_lines(answers, ";", ("id", "class")):
        if id in class_of:
            raise InputError(f"{where}: id {id!r} comes twice; restore the published file")
        class_of[id] = number_of(where, template, number)
    for at, item in enumerate(expect(str(path), read_json(path, "a list of 'id'"), list)):
        id = check_id(f"{path}: entry {at}", field(f"{path}: entry {at}", item, "id", str))
        if id not in class_of:
            raise InputError(f"{answers}: no class of {id!r}, which {path.name} lists; fetch it whole")
        annotations.entries.append(Entry(id, "challenge", label=class_of[id]))
    return annotations


def class_numbers(path: Path) -> dict[str, int]:
    """Template without brackets -> number, in the order of the numbers, which the file holds as strings."""
    labels = expect(str(path), read_json(path, "an object, template to number"), dict)
    numbers = {name: expect(f"{path}: {name!r}", number, str) for name, number in labels.items()}
    if sorted(numbers.values()) != sorted(map(str, range(len(numbers)))):
        raise InputError(f"{path}: the numbers are not 0 to {len(numbers) - 1}, each once; restore the file")
    return dict(sorted(((name, int(number)) for name, number in numbers.items()), key=lambda item: item[1]))


def number_of(where: str, template: str, number: dict[str, int]) -> int:
    """The class of a template, whatever its brackets hold."""
    name = template.replace("[", "").replace("]", "")
    if name not in number:
        raise InputError(f"{where}: class {name!r} is not in {LABELS[0]}; restore the published files")
    return number[name]


OWN = Published(
    name="ssv2",
    card=DatasetCard(
        title="Something-Something V2",
        licence="research use, Qualcomm's terms",
        source="https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
    ),
    files=(
        NeededFile(LABELS, "class names and numbers", SITE),
        *(NeededFile(names, f"{split} clips and classes", SITE) for split, names in FILES.items()),
    ),
    videos="the clips as <id>.webm, e.g. in 20bn-something-something-v2 (same page)",
    layouts=(
        Layout("the archives unpacked here", "labels", "20bn-something-something-v2"),
        Layout("labels beside the clips", "", "20bn-something-something-v2"),
        Layout("a folder of videos", "", "videos"),
    ),
    counts={"train": Count(168_913, CLASS_COUNT), "test": Count(24_777, CLASS_COUNT)},
    protocol=RECOGNITION,
    read=read,
    prompts=(PERSON_PROMPT,),
)
VARIANTS = {
    "": OWN,
    "challenge": replace(
        OWN,
        name="ssv2-challenge",
        card=replace(OWN.card, title="Something-Something V2 with the official test"),
        files=(
            *OWN.files,
            NeededFile(CHALLENGE, "ids of the official test", SITE),
            NeededFile(ANSWERS, "classes of the official test", SITE),
        ),
        counts={**OWN.counts, "challenge": Count(27_157, CLASS_COUNT)},
        read=read_challenge,
    ),
}
