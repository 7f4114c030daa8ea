"""The card tells people, hubs and programs what a cache is; a stranger's string smuggles nothing into it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import DatasetCard as HubCard
from hypothesis import given
from hypothesis import strategies as st

from store.__main__ import build_parser
from store.card import card_files, size_category, write_card
from store.cli import run_cli
from store.croissant import CONFORMS_TO, CONTEXT
from store.durable import canonical_json, write_file
from store.errors import DamagedCacheError, IncompleteCacheError
from store.info import gather
from store.inputs.protocol import RECOGNITION
from store.inputs.samples import CLASS, DatasetCard, Samples, Split, Text
from store.made import Made, merge_reports, read_made, record_made
from store.manifest import CARD, CROISSANT
from store.markdown import escaped, shell, yaml_string
from store.reader import open_cache
from store.verify import verify
from store.writer import CacheWriter
from tests.synthetic_cache import SIGNALS, synthetic_plan, synthetic_samples, write_synthetic_cache

HOSTILE = (
    "<script>alert(1)</script> [link](javascript:x) `code` | cell \n\n# heading ![i](http://e/x)"
    " \x1b[31m\u202e"
)
MADE = Made((("--dataset", "table", "--prompt", "a 'photo' of {}"),), "X-CLIP", "its site", "MIT")


def samples_of(card: DatasetCard) -> Samples:
    return replace(synthetic_samples(8), card=card)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_synthetic_cache(
        tmp_path_factory.mktemp("card") / "c.zarr", synthetic_samples(8), failed=frozenset({1})
    )
    told = {
        "protocol": "every-caption",
        "splits": {"test": {"text_to_video": {"R@1": 46.25, "MdR": 2.0}, "left_out": 0}},
    }
    write_file(root / "reports" / "retrieval.json", canonical_json({"teachers": {"synthetic": told}}))
    record_made(root, "synthetic", MADE)
    write_card(root)
    return root


@pytest.fixture
def cache(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "c.zarr"))


def run_python_of(text: str, root: Path) -> dict[str, Any]:
    """What the names of the card's Python stand for after it ran over the cache at `root`."""
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1].replace('"CACHE"', repr(str(root))), names)
    return names


def front_matter(text: str) -> dict[str, object]:
    _, head, _ = text.split("---\n", 2)
    return dict(yaml.safe_load(head))


def test_the_hub_reads_licence_tasks_and_size(cache):
    card = HubCard((cache / CARD).read_text()).data.to_dict()
    assert card["license"] == "cc0-1.0"
    assert card["size_categories"] == ["n<1K"]
    assert card["task_categories"] == ["feature-extraction"]
    assert card["viewer"] is False


def test_people_read_what_it_is_what_it_holds_and_how_it_was_made(cache):
    text = (cache / CARD).read_text()
    assert f"sha256:{open_cache(cache).digest}" in text
    assert "| licence of the data | CC0-1.0 |" in text
    assert "| licence of the weights | MIT |" in text
    assert "| test | text to video | R@1 46.2, MdR 2.0 |" in text
    assert "7 decoded, 1 failed" in text
    assert "--prompt 'a '\"'\"'photo'\"'\"' of {}'" in text
    for signal, told in gather(cache)["teachers"]["synthetic"]["signals"].items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {signal} |"))
        assert f"| {told['bytes']:,} |" in row


def test_the_python_of_the_card_runs(cache):
    names = run_python_of((cache / CARD).read_text(), cache)
    assert isinstance(names["batch"], dict)
    assert names["known"].all()


def test_the_python_of_the_card_of_a_dataset_of_classes_runs(tmp_path):
    videos = tuple(replace(video, label=row % 2) for row, video in enumerate(synthetic_samples(6).videos))
    classes = (Text("a red thing", -1, CLASS), Text("a blue thing", -1, CLASS))
    splits = {"train": Split(np.arange(4), np.arange(0)), "test": Split(np.arange(4, 6), np.arange(0))}
    card = DatasetCard("classes", "CC0-1.0", "none")
    samples = Samples("classes", card, videos, classes, splits, RECOGNITION, prompts=("{}",))
    root = write_synthetic_cache(tmp_path / "c.zarr", samples, signals=SIGNALS[:3], failed=frozenset({0}))
    text = card_files(root)[CARD]
    assert front_matter(text)["task_categories"] == ["video-classification", "feature-extraction"]
    assert run_python_of(text, root)["scores"].shape == (3, 2)


def test_the_commands_of_the_card_are_commands(cache):
    shown = re.findall(r"^python -m store (.*?)(?:  +#.*)?$", (cache / CARD).read_text(), re.MULTILINE)
    assert len(shown) == 2
    for words in shown:
        assert run_cli(build_parser(), words.replace("CACHE", str(cache)).split()) == 0


def test_programs_read_croissant(cache):
    found = json.loads((cache / CROISSANT).read_text())
    assert found["@context"] == CONTEXT
    assert found["conformsTo"] == CONFORMS_TO
    needed = {"@type", "name", "description", "license", "url", "creator", "datePublished", "version"}
    assert needed <= found.keys()
    ids = [node["@id"] for node in (*found["distribution"], *found["recordSet"])]
    ids += [field["@id"] for records in found["recordSet"] for field in records["field"]]
    assert len(set(ids)) == len(ids)
    for records in found["recordSet"]:
        fields = {field["@id"] for field in records["field"]}
        assert records["data"]
        assert all(record.keys() == fields for record in records["data"])
        assert records["key"]["@id"] in fields
    manifest = found["distribution"][0]
    assert (cache / manifest["contentUrl"]).is_file()


def test_every_object_of_a_signal_is_in_a_set_of_files_of_croissant(cache):
    found = json.loads((cache / CROISSANT).read_text())
    sets = [node["includes"] for node in found["distribution"] if node["@type"] == "cr:FileSet"]
    folders = [pattern.removesuffix("/**") for patterns in sets for pattern in patterns]
    shards = [path.relative_to(cache).as_posix() for path in cache.rglob("c/**/*") if path.is_file()]
    assert shards
    assert [path for path in shards if not any(path.startswith(f"{folder}/") for folder in folders)] == []


def test_the_validator_of_croissant_accepts_it(cache):
    """Where mlcroissant is installed: it is no dependency."""
    if shutil.which("mlcroissant") is None:
        pytest.skip("mlcroissant is not installed: pip install mlcroissant, in an environment on PATH")
    command = ["mlcroissant", "validate", "--jsonld", str(cache / CROISSANT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower()


def test_writing_the_card_changes_no_digest_and_bothers_nobody(cache):
    before = open_cache(cache).digest
    (cache / CARD).unlink()
    write_card(cache)
    assert open_cache(cache).digest == before
    assert verify(cache).faults == []


def test_a_card_that_says_the_same_is_not_written_again(cache):
    before = [(cache / name).stat().st_mtime_ns for name in (CARD, CROISSANT)]
    write_card(cache)
    assert [(cache / name).stat().st_mtime_ns for name in (CARD, CROISSANT)] == before


def test_the_day_it_was_first_written_stays(cache):
    document = json.loads((cache / CROISSANT).read_text())
    (cache / CROISSANT).write_text(json.dumps({**document, "datePublished": "2001-02-03", "name": "old"}))
    write_card(cache)
    found = json.loads((cache / CROISSANT).read_text())
    assert (found["datePublished"], found["name"]) == ("2001-02-03", document["name"])


def test_the_card_follows_a_teacher_that_comes_and_goes(cache, capsys):
    write_synthetic_cache(cache, synthetic_samples(8), teacher="second", failed=frozenset({1}))
    write_card(cache)
    assert "## Teacher second" in (cache / CARD).read_text()
    assert json.loads((cache / CROISSANT).read_text())["version"] == "1.1.0"
    assert run_cli(build_parser(), ["remove", str(cache), "--teacher", "second"]) == 0
    assert "second" not in (cache / CARD).read_text()
    assert "second" not in (cache / CROISSANT).read_text()


def test_the_command_prints_it_writes_it_and_states_terms(cache, capsys):
    assert run_cli(build_parser(), ["card", str(cache)]) == 0
    assert capsys.readouterr().out == (cache / CARD).read_text()
    assert run_cli(build_parser(), ["card", str(cache), "--json"]) == 0
    assert capsys.readouterr().out == (cache / CROISSANT).read_text()
    stated = ["card", str(cache), "--licence", "my own terms", "--share", "no"]
    assert run_cli(build_parser(), stated) == 0
    assert "share: no (so its owner stated)" in capsys.readouterr().out
    card = front_matter((cache / CARD).read_text())
    assert (card["license"], card["license_name"]) == ("other", "my-own-terms")
    assert run_cli(build_parser(), ["info", str(cache)]) == 0
    assert "  share    no: so its owner stated" in capsys.readouterr().out


def test_an_unfinished_cache_has_no_card(tmp_path):
    samples = synthetic_samples()
    with CacheWriter(tmp_path / "c.zarr", samples) as writer:
        writer.plan(synthetic_plan(samples))
    with pytest.raises(IncompleteCacheError, match="has no card yet"):
        card_files(tmp_path / "c.zarr")


def test_strings_of_strangers_stay_strings(tmp_path):
    card = DatasetCard(HOSTILE, f"terms: {HOSTILE}", f"https://example.org/{HOSTILE}")
    root = write_synthetic_cache(tmp_path / "c.zarr", samples_of(card), signals=SIGNALS[:1])
    report = {
        "splits": {HOSTILE: {"not_computable": HOSTILE}, "a": 3, "b": {HOSTILE: {HOSTILE: 1.0, "x": HOSTILE}}}
    }
    write_file(root / "reports" / "retrieval.json", canonical_json({"teachers": {"synthetic": report}}))
    record_made(root, "synthetic", Made(((HOSTILE, "; rm -rf ~", "```"),), HOSTILE, HOSTILE, HOSTILE))
    write_card(root)
    text = (root / CARD).read_text()
    body = text.split("---\n", 2)[2]
    outside = re.sub(r"```.*?^```$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert re.search(r"(?<!\\)<(?!https://spdx)", outside) is None
    assert re.search(r"(?<!\\)[\[\]`]", outside.replace("`CACHE`", "")) is None
    assert not any(letter in text for letter in "\x1b\u202e")
    assert [line for line in outside.splitlines() if line.startswith("#")] == [
        line for line in outside.splitlines() if line.startswith(("# Teacher signals", "## "))
    ]
    assert str(front_matter(text)["pretty_name"]).startswith("Teacher signals: <script>")
    assert "'; rm -rf ~'" in body
    json.loads((root / CROISSANT).read_text())


@given(st.text())
def test_yaml_and_markdown_hold_any_string(text):
    read = yaml.safe_load(f"a: {yaml_string(text)}")
    assert isinstance(read["a"], str)
    assert "\n" not in escaped(text)
    cells = re.split(r"(?<!\\)(?:\\\\)*\|", f"| {escaped(text)} |")
    assert len(cells) == 3


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["C", "Z"])), min_size=1, max_size=30))
def test_a_command_on_several_lines_is_the_same_command(words):
    import shlex

    assert shlex.split("\n".join(shell(words)).replace("\\\n", "")) == words


@pytest.mark.parametrize("told", [None, [], {"commands": 3, "model": 4}, {"commands": [3, [4, None]]}])
def test_a_report_of_how_it_was_made_may_say_anything(cache, told):
    write_file(cache / "reports" / "made.json", canonical_json({"teachers": {"synthetic": told}}))
    assert read_made(cache, "synthetic").model == ""
    write_card(cache)


def test_reports_of_two_copies_are_merged_by_teacher(tmp_path):
    record_made(tmp_path, "mine", MADE)
    theirs = canonical_json({"teachers": {"mine": {"model": "theirs"}, "other": {"model": "CLIP"}}})
    merge_reports(tmp_path, "made.json", theirs)
    assert read_made(tmp_path, "mine") == MADE
    assert read_made(tmp_path, "other").model == "CLIP"
    for content in (b"", b"[]", b'{"teachers": 3}', b"{}"):
        with pytest.raises(DamagedCacheError, match="no report by teacher"):
            merge_reports(tmp_path, "made.json", content)


def test_sizes_are_the_hubs_words():
    words = [size_category(rows) for rows in (0, 999, 1000, 180_000, 10**12)]
    assert words == ["n<1K", "n<1K", "1K<n<10K", "100K<n<1M", "n>1T"]


def test_the_card_needs_no_torch():
    code = "import sys, store.card, store.signing, store.sharing; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
