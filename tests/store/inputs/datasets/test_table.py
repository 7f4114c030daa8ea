"""The user's own table: what it may look like, and one clear line for each way to get it wrong."""

from __future__ import annotations

import json

import pytest

from store.errors import InputError, MissingFileError
from store.inputs.datasets import table

HEADER = "video,text,split"
MOMENTS = HEADER + ",start_s,end_s"


@pytest.fixture
def folder(tmp_path):
    """A folder with clips a.mp4, b.mp4, sub/c d.mp4 and -e.mp4; only their presence counts."""
    (tmp_path / "sub").mkdir()
    for name in ("a.mp4", "b.mp4", "sub/c d.mp4", "-e.mp4"):
        (tmp_path / name).write_bytes(b"clip")
    return tmp_path


def load_csv(folder, *lines, encoding="utf-8", end="\n"):
    path = folder / "clips.csv"
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return table.load(path)


def load_jsonl(folder, *rows):
    path = folder / "clips.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return table.load(path)


def test_rows_become_videos_texts_and_splits_in_order(folder):
    samples = load_csv(
        folder, HEADER, "b.mp4,two,train", "sub/c d.mp4,three,test", "b.mp4,again,train", "a.mp4,one,train"
    )
    assert [video.id for video in samples.videos] == ["b.mp4", "sub/c d.mp4", "a.mp4"]
    assert [video.path for video in samples.videos] == [folder / video.id for video in samples.videos]
    assert [(text.text, text.video) for text in samples.texts] == [
        ("two", 0),
        ("three", 1),
        ("again", 0),
        ("one", 2),
    ]
    assert list(samples.splits) == ["train", "test"]
    assert samples.splits["train"].video.tolist() == [0, 2]
    assert samples.splits["train"].text.tolist() == [0, 2, 3]
    assert samples.splits["test"].video.tolist() == [1]


def test_the_digest_does_not_depend_on_where_the_table_lies(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "a.mp4").write_bytes(b"clip")
    rows = (HEADER, "a.mp4,one,train")
    assert load_csv(folder, *rows).rows_digest() == load_csv(elsewhere, *rows).rows_digest()


def test_a_table_made_by_a_spreadsheet_is_read(folder):
    """Byte order mark, CRLF, quotes, commas, blank lines, outer spaces, columns of one's own, odd names."""
    samples = load_csv(
        folder,
        "split, video ,text,notes",
        'train,a.mp4,"a ""cat"", a dog",x',
        "",
        "val, -e.mp4 , Grüße — 猫 ,",
        encoding="utf-8-sig",
        end="\r\n",
    )
    assert [text.text for text in samples.texts] == ['a "cat", a dog', "Grüße — 猫"]
    assert [video.id for video in samples.videos] == ["a.mp4", "-e.mp4"]


def test_a_caption_may_span_lines_and_later_lines_keep_their_numbers(folder):
    with pytest.raises(InputError, match=r"clips\.csv:4: the caption of 'b.mp4' is empty"):
        load_csv(folder, HEADER, 'a.mp4,"one', 'two",train', "b.mp4,,train")


def test_a_jsonl_means_the_same_as_a_csv(folder):
    rows = [{"video": "a.mp4", "text": "one", "split": "train", "tags": ["x"]}, ""]
    rows.append({"split": "val", "video": "b.mp4", "text": "zwei\u2028drei", "start_s": 1, "end_s": 2.5})
    samples = load_jsonl(folder, *rows)
    assert [(text.text, text.video) for text in samples.texts] == [("one", 0), ("zwei\u2028drei", 1)]
    assert [video.moment_s for video in samples.videos] == [None, (1.0, 2.5)]
    assert list(samples.splits) == ["train", "val"]


def test_a_moment_belongs_to_the_video(folder):
    samples = load_csv(folder, MOMENTS, "a.mp4,one,train,0,2.5", "b.mp4,two,train,,", "a.mp4,uno,train,0,2.5")
    assert [video.moment_s for video in samples.videos] == [(0.0, 2.5), None]


def test_an_id_is_plain_wherever_the_clips_lie(folder):
    inner = folder / "tables"
    inner.mkdir()
    samples = load_csv(inner, HEADER, "../a.mp4,one,train", "../sub/./c d.mp4,two,train")
    assert [video.id for video in samples.videos] == ["a.mp4", "sub/c d.mp4"]
    assert all(video.path.is_file() for video in samples.videos)


BAD_ROWS = {
    "no rows": ([HEADER], "clips.csv: the table has no rows"),
    "an empty file": ([""], "clips.csv: the table has no rows"),
    "a missing column": (
        ["video,caption,split", "a.mp4,one,train"],
        "clips.csv:1: the column 'text' is missing; the table has 'video', 'caption', 'split'",
    ),
    "semicolons": (["video;text;split"], "the column 'video' is missing; the table has 'video;text;split'"),
    "a column twice": ([HEADER + ",text", "a.mp4,one,train,x"], "clips.csv:1: a column comes twice"),
    "too few fields": ([HEADER, "a.mp4,one"], "clips.csv:2: 2 fields, the header has 3"),
    "too many fields": ([HEADER, "a.mp4,one, two,train"], "clips.csv:2: 4 fields, the header has 3"),
    "an open quote": ([HEADER, 'a.mp4,"one,train'], "clips.csv:2: not csv"),
    "an empty caption": ([HEADER, "a.mp4,  ,train"], "clips.csv:2: the caption of 'a.mp4' is empty"),
    "an empty split": ([HEADER, "a.mp4,one, "], "clips.csv:2: split '' is no name"),
    "a split that is a path": ([HEADER, "a.mp4,one,../x"], "clips.csv:2: split '../x' is no name"),
    "an empty video": ([HEADER, ",one,train"], "clips.csv:2: video '' is no path"),
    "an absolute path": ([HEADER, "/clips/a.mp4,one,train"], "is no path relative to the table's folder"),
    "a folder above": ([HEADER, "sub/..,one,train"], "is no path relative to the table's folder"),
    "a path with a tab": ([HEADER, '"a\t.mp4",one,train'], "is no path relative to the table's folder"),
    "a repeated row": (
        [HEADER, "a.mp4,one,train", "b.mp4,one,train", "a.mp4,one ,train"],
        "clips.csv:4: video 'a.mp4' has the same caption as in line 2; remove one",
    ),
    "two splits": (
        [HEADER, "a.mp4,one,train", "a.mp4,two,test"],
        "clips.csv:3: video 'a.mp4' is of split 'test' here and 'train' in line 2",
    ),
    "two moments": (
        [MOMENTS, "a.mp4,one,train,0,1", "a.mp4,two,train,0,2"],
        "clips.csv:3: video 'a.mp4' is of moment (0.0, 2.0) here and (0.0, 1.0) in line 2",
    ),
    "a moment backwards": ([MOMENTS, "a.mp4,one,train,3,1"], "clips.csv:2: start_s '3' and end_s '1'"),
    "half a moment": ([MOMENTS, "a.mp4,one,train,3,"], "clips.csv:2: start_s '3' and end_s ''"),
    "a moment in words": ([MOMENTS, "a.mp4,one,train,0,end"], "clips.csv:2: start_s '0' and end_s 'end'"),
    "an endless moment": ([MOMENTS, "a.mp4,one,train,0,inf"], "clips.csv:2: start_s '0' and end_s 'inf'"),
    "two paths of one id": (
        [HEADER, "a.mp4,one,train", "../a.mp4,two,train"],
        "clips.csv:3: video 'a.mp4' is written as '../a.mp4' here and 'a.mp4' in line 2",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_table_is_refused_in_one_line(folder, name):
    lines, message = BAD_ROWS[name]
    with pytest.raises(InputError) as caught:
        load_csv(folder, *lines)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_JSON = {
    "broken json": ('{"video": "a.mp4",', "clips.jsonl:1: not a line of JSON"),
    "a list": ('["a.mp4", "one", "train"]', "clips.jsonl:1: expected an object"),
    "a missing key": ({"video": "a.mp4", "text": "one"}, "clips.jsonl:1: the column 'split' is missing"),
    "several captions": (
        {"video": "a.mp4", "text": ["one", "two"], "split": "train"},
        'clips.jsonl:1: \'text\' is ["one", "two"], expected a string',
    ),
    "no caption": ({"video": "a.mp4", "text": None, "split": "train"}, "the caption of 'a.mp4' is empty"),
    "half a letter": ('{"video": "a.mp4", "text": "\\ud83d", "split": "train"}', "half of a character"),
    "a nul": ('{"video": "a.mp4", "text": "x\\u0000", "split": "train"}', "holds a NUL"),
    "not a number": (
        '{"video": "a.mp4", "text": "one", "split": "train", "start_s": NaN, "end_s": 1}',
        "start_s 'nan' and end_s '1' are no moment",
    ),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_a_bad_line_of_json_is_refused_in_one_line(folder, name):
    row, message = BAD_JSON[name]
    with pytest.raises(InputError) as caught:
        load_jsonl(folder, row)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"video,text,split\na.mp4,caf\xe9,train\n", "clips.csv:2: not UTF-8"),
        ("video,text,split\na.mp4,one,train\n".encode("utf-16"), "clips.csv:1: a NUL byte"),
        (b"video,text,split\na.mp4,one,train\nb.mp4,t\0wo,train\n", "clips.csv:3: a NUL byte"),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_their_line(folder, content, message):
    (folder / "clips.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        table.load(folder / "clips.csv")


def test_missing_videos_are_counted_and_the_first_are_named(folder):
    lines = [f"gone{number}.mp4,text,train" for number in range(5)]
    with pytest.raises(MissingFileError) as caught:
        load_csv(folder, HEADER, "a.mp4,one,train", *lines)
    assert "5 of 6 video files are missing, first: gone0.mp4, gone1.mp4, gone2.mp4, ..." in str(caught.value)


def test_a_folder_in_place_of_a_video_is_missing(folder):
    with pytest.raises(MissingFileError, match="1 of 1 video files are missing, first: sub"):
        load_csv(folder, HEADER, "sub,one,train")


def test_a_missing_table_says_what_one_looks_like(folder):
    with pytest.raises(MissingFileError, match="a csv or jsonl with the columns video, text, split"):
        table.load(folder / "absent.csv")
    with pytest.raises(MissingFileError, match="a csv or jsonl with the columns video, text, split"):
        table.load(folder)


def test_another_kind_of_file_is_refused(folder):
    (folder / "clips.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"expected a name that ends in \.csv or \.jsonl"):
        table.load(folder / "clips.xlsx")


def test_missing_videos_may_be_left_out_and_are_recorded(folder):
    path = folder / "clips.csv"
    rows = (HEADER, "gone.mp4,one,train", "a.mp4,two,train", "gone.mp4,three,train", "b.mp4,four,test")
    path.write_text("\n".join(rows))
    with pytest.raises(MissingFileError, match="1 of 3 video files are missing, first: gone"):
        table.load(path)
    samples = table.load(path, allow_missing=True)
    assert [(text.text, samples.videos[text.video].id) for text in samples.texts] == [
        ("two", "a.mp4"),
        ("four", "b.mp4"),
    ]
    assert samples.splits["test"].video.tolist() == [1]
    assert samples.missing == {"train videos": 1, "train texts": 2}


def test_a_table_of_which_nothing_is_there_is_refused_all_the_same(folder):
    path = folder / "clips.csv"
    path.write_text(f"{HEADER}\ngone.mp4,one,train\n")
    with pytest.raises(MissingFileError, match="1 of 1 video files"):
        table.load(path, allow_missing=True)


@pytest.mark.parametrize(
    ("rows", "protocol"),
    [
        (["a.mp4,one,train", "b.mp4,two,train"], "every-caption"),
        (["a.mp4,one,train", "b.mp4,one,train"], "equal-captions"),
        (["a.mp4,one,train", "b.mp4,one,test"], "every-caption"),
    ],
)
def test_videos_that_share_a_caption_are_both_right_for_it(folder, rows, protocol):
    assert load_csv(folder, HEADER, *rows).protocol == protocol
