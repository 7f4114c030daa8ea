"""Texts to ids: CLIP's byte pairs, and their few that the demo's teacher knows."""

import pytest
import torch

from teacher_dump.models.tokens import FIRST_KNOWN, PADDING, UNKNOWN, CompactVocabulary, byte_pairs, tokenize

TEXTS = ["a small red circle moves left on the grass", "we see a rosy hoop", "!% of it"]
START, END = byte_pairs().sot_token_id, byte_pairs().eot_token_id
OFFICIAL_WORDS = [77, 32, 20]


@pytest.fixture(scope="module")
def vocabulary():
    return CompactVocabulary.of(TEXTS)


@pytest.mark.parametrize("words", OFFICIAL_WORDS)
def test_a_text_stands_between_start_and_end_and_then_comes_padding(words):
    (ids,) = tokenize(["a small red circle"], words).tolist()
    inner = byte_pairs().encode("a small red circle")
    assert ids == [START, *inner, END, *[0] * (words - len(inner) - 2)]


@pytest.mark.parametrize("words", OFFICIAL_WORDS)
def test_a_longer_text_is_cut_to_the_official_limit_and_ends_with_the_end_token(words):
    text = "circle square " * words
    (ids,) = tokenize([text], words).tolist()
    assert ids == [START, *byte_pairs().encode(text)[: words - 2], END]


def test_a_text_that_just_fits_is_not_cut():
    (ids,) = tokenize(["red " * 18], 20).tolist()
    assert ids == [START, *byte_pairs().encode("red " * 18), END]


def test_known_tokens_come_back_from_their_compact_ids(vocabulary):
    for text in TEXTS:
        (ids,) = vocabulary.tokenize([text], 20).tolist()
        inner = ids[1 : ids.index(vocabulary.size - 1)]
        assert vocabulary.known_N[torch.tensor(inner) - FIRST_KNOWN].tolist() == byte_pairs().encode(text)


def test_the_compact_ids_are_the_byte_pairs_in_the_same_order(vocabulary):
    kept = torch.cat([vocabulary.known_N, torch.tensor([START, END])])
    for text in TEXTS:
        (ids,), (compact,) = tokenize([text], 20), vocabulary.tokenize([text], 20)
        length = int(ids.argmax()) + 1
        assert torch.equal(kept[compact[:length] - FIRST_KNOWN], ids[:length])


def test_an_unknown_word_is_1_wherever_its_id_would_fall(vocabulary):
    (ids,) = vocabulary.tokenize(["a zebra circle"], 20).tolist()
    assert ids[0] == vocabulary.size - 2
    assert ids[2] == UNKNOWN == 1
    assert UNKNOWN not in (ids[1], ids[3])
    numbers = set(range(START)) - set(vocabulary.known_N.tolist())
    for number in (min(numbers), max(numbers)):
        text = byte_pairs().decode([number])
        unknown = vocabulary.tokenize([text], 8)[0, 1]
        assert byte_pairs().encode(text)[0] in numbers
        assert unknown == UNKNOWN


def test_padding_is_0_and_nothing_else_is(vocabulary):
    ids = vocabulary.tokenize([*TEXTS, "zebra"], 20)
    after_end = torch.arange(20) > ids.argmax(1, keepdim=True)
    assert torch.equal(ids == PADDING, after_end)


def test_the_end_token_is_the_largest_id_and_stands_once_in_every_text(vocabulary):
    ids = vocabulary.tokenize([*TEXTS, "zebra", "circle " * 40], 12)
    assert ((ids == vocabulary.size - 1).sum(1) == 1).all()
    assert (ids.amax(1) == vocabulary.size - 1).all()


def test_an_exclamation_mark_is_not_taken_for_padding(vocabulary):
    assert 0 in byte_pairs().encode(TEXTS[2])
    (known,) = vocabulary.tokenize([TEXTS[2]], 20).tolist()
    assert known[1] == FIRST_KNOWN
    (unknown,) = CompactVocabulary.of(TEXTS[:2]).tokenize([TEXTS[2]], 20).tolist()
    assert unknown[1] == UNKNOWN


def test_a_longer_text_is_cut_and_ends_with_the_compact_end_token(vocabulary):
    (ids,) = vocabulary.tokenize(["circle " * 40], 12).tolist()
    assert len(ids) == 12
    assert ids[-1] == vocabulary.size - 1
    assert len(set(ids[1:-1])) == 1


def test_the_vocabulary_does_not_depend_on_the_order_of_the_texts(vocabulary):
    again = CompactVocabulary.of(reversed(TEXTS))
    assert torch.equal(again.known_N, vocabulary.known_N)
    assert again.size == vocabulary.size == len(vocabulary.known_N) + 4


def test_a_vocabulary_without_words_knows_none():
    empty = CompactVocabulary.of([])
    assert empty.tokenize(["red"], 5).tolist() == [[2, UNKNOWN, 3, PADDING, PADDING]]
