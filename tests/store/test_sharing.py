"""A cache is shared only if its owner says so, or the licence of the data is known to allow it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import NotShareableError
from store.inputs.datasets import dataset_names, find_dataset
from store.inputs.datasets.base import Published
from store.inputs.samples import DatasetCard
from store.reader import open_cache
from store.sharing import STATED, default_terms, require_shareable, state_terms, terms_of
from tests.synthetic_cache import synthetic_samples, write_synthetic_cache

SHARED_BY_DEFAULT = {
    "cc3m", "coco", "coco-lists", "didemo", "hmdb51", "hmdb51-split2", "hmdb51-split3", "kinetics400",
    "kinetics400-prompts", "kinetics400-text4vis", "vatex", "vatex-teachclip",
}  # fmt: skip
"""Those whose annotations have a licence that allows to pass on what is derived from them."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_cache(tmp_path_factory.mktemp("sharing") / "synthetic.zarr")


@pytest.fixture
def cache(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "synthetic.zarr"))


def test_a_licence_that_allows_it_lets_a_cache_be_shared(cache):
    require_shareable(cache)
    assert terms_of(open_cache(cache)).share


def test_what_the_owner_stated_later_goes_before_and_changes_no_digest(cache):
    before = open_cache(cache).digest
    state_terms(cache, None, "no")
    with pytest.raises(NotShareableError, match=r"share: no \(so its owner stated.*--i-may.*--share yes"):
        require_shareable(cache)
    state_terms(cache, "CC-BY-SA-4.0", None)
    terms = terms_of(open_cache(cache))
    assert (terms.licence, terms.share) == ("CC-BY-SA-4.0", False)
    state_terms(cache, None, "yes")
    require_shareable(cache)
    assert open_cache(cache).digest == before


def test_what_was_stated_at_the_dump_lies_under_the_digest(tmp_path):
    samples = synthetic_samples()
    kept = replace(samples, card=replace(samples.card, share="no"))
    root = write_synthetic_cache(tmp_path / "kept.zarr", kept)
    assert open_cache(root).dataset["share"] == "no"
    with pytest.raises(NotShareableError):
        require_shareable(root)


def test_a_statement_nobody_can_read_lets_nothing_out(cache):
    for content in ("{", '{"share": "maybe"}', '{"share": true}', '{"other": "yes"}', "[]"):
        (cache / STATED).parent.mkdir(exist_ok=True)
        (cache / STATED).write_text(content)
        with pytest.raises(NotShareableError, match="says nothing usable"):
            require_shareable(cache)
    state_terms(cache, None, "yes")
    require_shareable(cache)


@pytest.mark.parametrize(
    "licence",
    [
        "CC0-1.0",
        "CC BY 4.0",
        "cc-by-nc-sa-4.0",
        "MIT",
        "MIT License",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSD 3-Clause License",
        "ODC-By-1.0",
        "ODbL-1.0",
        "PDDL-1.0",
        "ISC",
        "Unlicense",
        "CC0",
        "CC BY",
        "CC-BY-SA-3.0",
        "CC-BY-NC-SA-4.0",
        "Apache 2.0",
        "Apache License 2.0",
        "Apache License, Version 2.0",
        "public domain",
        "free for any use",
    ],
)
def test_open_licences_are_known(licence):
    assert default_terms(licence, with_pixels=True).share


@pytest.mark.parametrize(
    "licence",
    [
        "",
        "not stated",
        "CC-BY-ND-4.0",
        "CC BY-NC-ND 4.0",
        "research use",
        "proprietary",
        "mitigated",
        "all MIT",
        "MIT, but not for sharing",
        "MIT or research use",
        "cc-by-4.0 for annotations; video frames research only",
        "CC-BY-4.0 for the captions; the clips are for research only",
        "CC-BY-4.0; the clips belong to their owners, who forbid it",
        "CC-BY-4.0-ND",
        "CC-BY-9.0",
        "cc-by-4.0, see the terms",
        "Apache-2.0 WITH another-exception",
        "free for any use in research",
        "public domain in the EU",
    ],
)
def test_all_others_are_not(licence):
    assert not default_terms(licence, with_pixels=False).share


@given(st.text())
def test_no_licence_is_an_accident(licence):
    terms = default_terms(licence, with_pixels=False)
    assert terms.reason
    assert not terms.share or licence.strip()[0].lower() in "cmbaoiupf"


@pytest.mark.parametrize("more", [", ", " ", "; ", " - ", ""])
@pytest.mark.parametrize("licence", ["MIT", "CC BY 4.0", "CC BY 4.0 for the captions", "free for any use"])
@given(st.text("abcdefghijklmnopqrstuvwxyz "))
def test_a_word_more_may_take_the_licence_back(licence, more, word):
    assert not default_terms(f"{licence}{more}{word}x", with_pixels=False).share


@pytest.mark.parametrize(
    "licence",
    [
        "CC BY 4.0 for the captions; the clips belong to their owners",
        "BSD-2-Clause for the annotations; the videos belong to their owners",
        "CC BY 4.0; The Clips BELONG to their owners",
        "free for any use; the images belong to their owners",
        "CC BY 4.0 for the captions",
    ],
)
def test_kept_frames_of_others_are_not_covered_by_the_licence_of_the_captions(licence):
    assert default_terms(licence, with_pixels=False).share
    assert not default_terms(licence, with_pixels=True).share


def test_of_the_published_datasets_only_those_with_a_licence_are_shared_by_default():
    cards: dict[str, DatasetCard] = {
        name: found.card for name in dataset_names() if isinstance(found := find_dataset(name), Published)
    }
    shared = {name for name, card in cards.items() if default_terms(card.licence, False).share}
    assert shared == SHARED_BY_DEFAULT
    assert not any(default_terms(cards[name].licence, with_pixels=True).share for name in shared)
