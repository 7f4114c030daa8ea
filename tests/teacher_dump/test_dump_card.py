"""The licence of the data is asked for once: where nobody knows it, of a person, when a cache is begun."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import pytest

from store.inputs.samples import NOT_STATED
from teacher_dump import dump_card
from teacher_dump.dump_card import with_terms
from tests.synthetic_cache import synthetic_samples, write_synthetic_cache

SAMPLES = synthetic_samples(4)
UNKNOWN = replace(SAMPLES, card=replace(SAMPLES.card, licence=NOT_STATED))
NOTHING = Namespace(licence=None, share=None)


@pytest.fixture
def asked(monkeypatch):
    """The questions that were put to a person in a terminal, who answers CC-BY-4.0."""
    questions = []
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or " CC-BY-4.0 ")
    monkeypatch.setattr(dump_card, "in_a_terminal", lambda: True)
    return questions


def test_a_person_is_asked_for_the_licence_of_a_new_cache_over_data_of_their_own(asked, tmp_path):
    assert with_terms(UNKNOWN, tmp_path / "c.zarr", NOTHING).card.licence == "CC-BY-4.0"
    assert len(asked) == 1


def test_nobody_is_asked_for_what_is_known(asked, tmp_path):
    assert with_terms(SAMPLES, tmp_path / "c.zarr", NOTHING).card == SAMPLES.card
    told = with_terms(UNKNOWN, tmp_path / "c.zarr", Namespace(licence="MIT", share="no")).card
    assert (told.licence, told.share) == ("MIT", "no")
    assert asked == []


def test_a_cache_that_was_begun_keeps_its_terms_and_nobody_is_asked_again(asked, tmp_path):
    stated = replace(UNKNOWN, card=replace(UNKNOWN.card, licence="CC-BY-4.0", share="no"))
    root = write_synthetic_cache(tmp_path / "c.zarr", stated)
    kept = with_terms(UNKNOWN, root, NOTHING).card
    assert (kept.licence, kept.share) == ("CC-BY-4.0", "no")
    assert asked == []


def test_a_script_is_not_asked(tmp_path):
    assert with_terms(UNKNOWN, tmp_path / "c.zarr", NOTHING).card.licence == NOT_STATED
