"""Captions cleaned and cut into word pieces as ALBEF does."""

import pytest

from store.errors import InputError, MissingFileError
from teacher_dump.models.wordpiece import SPECIAL, clean, read_vocabulary, wordpiece_tokenizer

WORDS = [*SPECIAL, "red", "circle", "##s", "on", "grass", "person"]
VOCABULARY = {word: number for number, word in enumerate(WORDS)}


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("Red Circles, on grass!", "red circles on grass"),
        ("a so-called red/blue thing\n", "a so called red blue thing"),
        ("  <person>   walks ", "person walks"),
        ("'quoted' (twice) #tag: ~1;2*", "quoted twice tag 12"),
        ("one two three four", "one two three"),
    ],
)
def test_a_caption_is_cleaned_as_the_official_code_does(caption, cleaned):
    assert clean(caption, 3 if caption.startswith("one") else 30) == cleaned


def test_words_become_pieces_between_the_marks_and_padding_follows():
    tokenizer = wordpiece_tokenizer(VOCABULARY, 8)
    ids = tokenizer.ids_of(["Red circles on grass!", "a"])
    assert ids.tolist() == [[2, 4, 5, 6, 7, 8, 3, 0], [2, 1, 3, 0, 0, 0, 0, 0]]
    assert tokenizer.valid_of(ids).sum(1).tolist() == [7, 3]


def test_a_longer_caption_is_cut_and_ends_with_the_mark():
    ids = wordpiece_tokenizer(VOCABULARY, 4).ids_of(["red red red red red red"])
    assert ids.tolist() == [[2, 4, 4, 3]]


def test_another_vocabulary_is_another_identity():
    fewer = wordpiece_tokenizer({word: VOCABULARY[word] for word in WORDS[:-1]}, 8)
    assert fewer.identity != wordpiece_tokenizer(VOCABULARY, 8).identity


def test_a_vocabulary_is_read_by_line(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    assert read_vocabulary(path, None) == VOCABULARY
    assert read_vocabulary(None, tmp_path / "albef.pth") == VOCABULARY
    path.write_text("\n".join([*WORDS, "red"]))
    with pytest.raises(InputError, match="is no vocabulary"):
        read_vocabulary(path, None)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no text file"):
        read_vocabulary(path, None)
    with pytest.raises(MissingFileError, match="--vocabulary"):
        read_vocabulary(tmp_path / "absent.txt", None)
