"""The card for machines: Croissant 1.1, JSON-LD over schema.org (http://mlcommons.org/croissant/1.1).

Croissant knows no Zarr: the arrays are given as sets of files, and what each signal is as records in the
document itself, which a Croissant reader yields without fetching any of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from store.inputs.protocol import RECOGNITION
from store.layout import plan_path, teacher_path, view_path
from store.manifest import MANIFEST
from store.untrusted import printable, printable_values

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
SPDX = "https://spdx.org/licenses/"
LICENCES = (
    "CC0-1.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0",
    "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-NC-ND-4.0", "MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause",
    "PDDL-1.0", "ODbL-1.0", "ODC-By-1.0", "Unlicense",
)  # fmt: skip
"""SPDX's names of licences that data come under."""
ZARR = "https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html"
JSON = "application/json"
OWN_TERMS = (
    "annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "excludes",
    "extract", "field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray",
    "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "readLines", "recordSet",
    "references", "regex", "repeated", "replace", "samplingRate", "sdVersion", "separator", "source",
    "subField", "transform", "unArchive", "value",
)  # fmt: skip
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "name": {"@container": "@language"},
    "description": {"@container": "@language"},
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in OWN_TERMS},
}
SIGNAL_FIELDS = {
    "name": ("sc:Text", "path of the signal in the cache"),
    "teacher": ("sc:Text", "the frozen model whose output it is"),
    "meaning": ("sc:Text", "what one number or vector of it is"),
    "axes": ("sc:Text", "V videos, T texts, S steps, R renditions, M frames, W words, L tokens, D width"),
    "shape": ("sc:Text", "lengths of the axes"),
    "encoding": ("sc:Text", "how it is stored"),
    "bytes": ("sc:Integer", "on disk"),
    "relative_l2_error": ("sc:Float", "of the encoding, on all that was written"),
}
SPLIT_FIELDS = {
    "name": ("sc:Text", "of the split"),
    "videos": ("sc:Integer", "rows of the video table in it"),
    "texts": ("sc:Integer", "rows of the text table in it"),
}


def croissant(root: Path, found: Mapping[str, Any], description: str, date: str) -> dict[str, Any]:
    """The document for the finished cache at `root`, of which `store.info.gather` tells `found`.

    description: one sentence. date: when the card was first written, YYYY-MM-DD.
    """
    dataset, terms = found["dataset"], found["terms"]
    document = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": f"teacher-signals-{slug(dataset['name'])}",
        "description": description,
        "url": homepage(dataset["source"]) or f"urn:sha256:{found['digest']}",
        "license": spdx_url(terms["licence"]) or {"@type": "sc:CreativeWork", "name": terms["licence"]},
        "usageInfo": {"@type": "sc:CreativeWork", "name": f"share: {terms['share']} ({terms['reason']})"},
        "creator": {"@type": "sc:Organization", "name": "not named: a cache keeps no personal names"},
        "datePublished": date,
        "version": f"1.{len(found['earlier_digests'])}.0",
        "identifier": f"sha256:{found['digest']}",
        "keywords": keywords(dataset),
        "isLiveDataset": False,
        "distribution": list(_files(root, found)),
        "recordSet": [
            _records("splits", "cr:Split", SPLIT_FIELDS, list(_splits(dataset))),
            _records("signals", None, SIGNAL_FIELDS, list(_signals(found))),
        ],
    }
    return dict(printable_values(document))


def slug(text: str) -> str:
    """`text` as small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower(), flags=re.ASCII).strip("-") or "unnamed"


def homepage(source: str) -> str | None:
    """`source`, if it is an address that can be linked as it is."""
    return source if re.fullmatch(r"https?://[A-Za-z0-9][\w.~%/?=&:+-]*", source, re.ASCII) else None


def spdx_name(licence: str) -> str | None:
    """SPDX's name of a licence spelt "CC BY 4.0" or "cc-by-4.0"; None if it is none that is known here."""
    spelt = re.sub(r"[\s_]+", "-", licence.strip().lower())
    return next((name for name in LICENCES if name.lower() == spelt), None)


def spdx_url(licence: str) -> str | None:
    name = spdx_name(licence)
    return None if name is None else f"{SPDX}{name}.html"


def keywords(dataset: Mapping[str, Any]) -> list[str]:
    """What the cache is to be found under."""
    task = "video recognition" if dataset["protocol"] == RECOGNITION else "video-text retrieval"
    return [task, "knowledge distillation", "teacher signals", "zarr"]


def _files(root: Path, found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    digest = hashlib.sha256((root / MANIFEST).read_bytes()).hexdigest()
    yield {
        "@type": "cr:FileObject",
        "@id": MANIFEST,
        "name": MANIFEST,
        "description": "the tables by size and sha256, and the digests of all other manifests",
        "contentUrl": MANIFEST,
        "encodingFormat": JSON,
        "sha256": digest,
    }
    yield _file_set("tables", "ids, texts, splits", [f"{kind}/**" for kind in ("videos", "texts", "splits")])
    views = sorted({teacher["view"]["name"] for teacher in found["teachers"].values()})
    for view in views:
        yield _file_set(view_path(view), "which frames were seen, and their thumbnails", [view_path(view)])
    for name, teacher in found["teachers"].items():
        for signal, told in teacher["signals"].items():
            path = f"{teacher_path(name)}/{signal}"
            yield _file_set(path, told["meaning"], [path])
    for plan in sorted({plan for teacher in found["teachers"].values() for plan in _plans(teacher)}):
        yield _file_set(plan_path(plan), "which rows meet in which batch", [plan_path(plan)])


def _plans(teacher: Mapping[str, Any]) -> Iterator[str]:
    for signal in teacher["signals"]:
        if signal.startswith(("planned_scores/", "planned_topk/")):
            yield signal.split("/")[1]


def _file_set(name: str, description: str, paths: list[str]) -> dict[str, Any]:
    includes = [path if path.endswith("**") else f"{path}/**" for path in paths]
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "description": description,
        "encodingFormat": ZARR,
        "includes": [*includes, *(f"segment-*/{path}" for path in includes)],
    }


def _records(
    name: str, kind: str | None, fields: Mapping[str, tuple[str, str]], data: list[dict[str, Any]]
) -> dict[str, Any]:
    described = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{field}",
            "name": field,
            "description": meaning,
            "dataType": data_type,
        }
        for field, (data_type, meaning) in fields.items()
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        **({} if kind is None else {"dataType": kind}),
        "key": {"@id": f"{name}/name"},
        "field": described,
        "data": [{f"{name}/{field}": value for field, value in record.items()} for record in data],
    }


def _splits(dataset: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, count in dataset["splits"].items():
        yield {"name": name, **count}


def _signals(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for teacher, told in found["teachers"].items():
        for signal, is_ in told["signals"].items():
            yield {
                "name": f"{teacher_path(teacher)}/{signal}",
                "teacher": teacher,
                "meaning": printable(is_["meaning"]),
                "axes": ",".join(is_["axes"]),
                "shape": ",".join(map(str, is_["shape"])),
                "encoding": is_["encoding"],
                "bytes": is_["bytes"],
                "relative_l2_error": is_["errors"]["relative_l2"],
            }
