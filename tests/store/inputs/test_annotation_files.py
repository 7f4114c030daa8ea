"""Reading annotation files: the place of every complaint, and pickles that may hold nothing but words."""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import InputError
from store.inputs.annotation_files import (
    check_id,
    field,
    id_list,
    lines,
    read_json,
    separated_lines,
    string_list,
    table_rows,
    tidy,
)
from store.inputs.restricted_pickle import read_plain_pickle

WORDS = st.text(max_size=8)
PLAIN = st.recursive(
    WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
)


@pytest.mark.parametrize(
    "id", ["-4wsuPCjDBc_5_15", "--a", "_x", ".a", "a..b", "35@N01_6.mov", "!(HQ) x", "é"]
)
def test_real_ids_are_odd_and_fine(id):
    assert check_id("file:1", id) == id


@pytest.mark.parametrize(
    "id", ["", " ", ".", "..", "a/b", "../a", "/a", "a\\b", "a\0", "a\n", "\ud800", None, 3]
)
def test_what_is_a_path_or_no_name_is_no_id(id):
    with pytest.raises(InputError, match="file:1: "):
        check_id("file:1", id)


@given(st.text())
def test_an_id_that_passes_names_a_file_right_in_its_folder(text):
    try:
        id = check_id("", text)
    except InputError:
        return
    path = os.path.normpath(os.path.join("folder", id))
    assert os.path.dirname(path) == "folder"


@given(st.text())
def test_tidy_texts_have_single_spaces_and_stay_tidy(text):
    assert tidy(text) == tidy(f" {text}\n")
    assert "  " not in tidy(text)
    assert tidy(text) == tidy(text).strip()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1,\n"b": }', ":2: not JSON"),
        (b"\xff\xfe{}", ":1: not UTF-8"),
        (b"{}\n\x00", ":2: a NUL byte"),
        (b'{"a": 1, "a": 2}', "the key 'a' comes twice"),
        (b"[" * 100_000, "expected an object"),
        (b"", ":1: not JSON"),
    ],
)
def test_what_is_not_json_is_told_with_its_line(tmp_path, content, said):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(path, "an object")
    assert said in str(caught.value)
    assert "a.json" in str(caught.value)


def test_a_field_that_is_missing_or_of_another_kind_is_named():
    with pytest.raises(InputError, match=r"f\.json: the key 'id' is missing, there is 'ID'"):
        field("f.json", {"ID": "1"}, "id", str)
    with pytest.raises(InputError, match=r"f\.json, 'id': expected a string, got 1"):
        field("f.json", {"id": 1}, "id", str)
    with pytest.raises(InputError, match=r"expected a whole number, got True"):
        field("f.json", {"id": True}, "id", int)
    with pytest.raises(InputError, match=r"entry 1: expected a string, got None"):
        string_list("f.json", ["a", None])


def test_lists_may_have_a_byte_order_mark_crlf_and_blank_lines_but_no_id_twice(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf-a\r\n\r\n b \r\n")
    assert id_list(path) == ["-a", "b"]
    assert [where for where, _ in lines(path)] == [f"{path}:1", f"{path}:3"]
    path.write_text("a\nb\na\n")
    with pytest.raises(InputError, match=r"list\.txt:3: 'a' stands in .*list\.txt:1 already"):
        id_list(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="the list is empty"):
        id_list(path)


@pytest.mark.parametrize(
    ("separator", "line", "fields"),
    [
        (";", "1;a; b", ["1", "a; b"]),
        ("\t", "a b\tc", ["a b", "c"]),
        (None, "a b.avi 2 ", ["a b.avi", "2"]),
    ],
)
def test_separated_lines_split_where_the_format_says(tmp_path, separator, line, fields):
    path = tmp_path / "list.csv"
    path.write_text(line + "\n")
    assert [line.fields for line in separated_lines(path, separator, ("x", "y"))] == [fields]


def test_a_line_of_fewer_fields_is_told(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("1;a\n2\n")
    with pytest.raises(InputError, match=r"list\.csv:2: expected id, class separated by ';', got '2'"):
        list(separated_lines(path, ";", ("id", "class")))


def test_an_empty_value_of_a_csv_is_told(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"a\nb"\n2, \n')
    with pytest.raises(InputError, match=r"a\.csv:4: text is empty"):
        table_rows(path, ("id", "text"))


@given(PLAIN, st.sampled_from([0, 1, 2, 4, 5]))
def test_a_plain_pickle_is_read_as_it_was_written(tmp_path_factory, value, protocol):
    path = tmp_path_factory.mktemp("pickle") / "a.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert read_plain_pickle(path) == value


def test_strings_of_python_2_are_read(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02}q\x00U\x02idq\x01]q\x02]q\x03(U\x01aq\x04U\x03\xc3\xa9sq\x05eas.")
    assert read_plain_pickle(path) == {"id": [["a", "és"]]}


class Runs:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_a_pickle_that_would_run_something_runs_nothing(tmp_path, protocol):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"id": [Runs(tmp_path / "ran")]}, protocol=protocol))
    with pytest.raises(InputError, match=r"a\.pkl: not a pickle of dict, list and str alone \(it asks for"):
        read_plain_pickle(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1},
        {"a": ("b",)},
        {"a": b"c"},
        {1: "a"},
        {"a": None},
        {"a": {"b"}},
        {"a": [True]},
        collections.OrderedDict(a="b"),
        collections.Counter("a"),
        Path("a"),
    ],
    ids=repr,
)
def test_anything_but_dict_list_and_str_is_refused(tmp_path, value):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(InputError, match="not a pickle of dict, list and str alone"):
        read_plain_pickle(path)


@given(st.binary(max_size=64))
def test_any_bytes_are_plain_or_refused_and_raise_nothing_else(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("pickle") / "a.pkl"
    path.write_bytes(content)
    value: object = ""
    with contextlib.suppress(InputError):
        value = read_plain_pickle(path)
    assert isinstance(value, dict | list | str)


def test_a_list_that_holds_itself_does_not_hang(tmp_path):
    knot: list = []
    knot.append(knot)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(knot))
    assert isinstance(read_plain_pickle(path), list)
