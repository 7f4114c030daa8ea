"""What every published dataset must do. Subclass `PublishedContract` and give it `name` and `write_files`
fixtures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from store.errors import CacheError, InputError, MissingFileError
from store.inputs.datasets import find_dataset
from store.inputs.datasets.base import Annotations, Count, FoundFiles, Published
from store.inputs.protocol import PARAGRAPH, RECOGNITION, SINGLE_CAPTION
from store.inputs.published import counts_of, find_files, load_published, locate, read_annotations
from store.inputs.samples import CLASS, Samples

LISTED_BY_FOLDERS_OR_LINES = ("imagenet", "cc3m")
NOT_UTF8 = b"\xff\xfe\x00broken"
OTHER_SHAPES = (b"", b"{}", b"[]", b"[1, 2]", b'{"a": 1}', b'"text"', b"a;b;c\n", b"[", NOT_UTF8)


def annotation_paths(dataset: Published, data: Path) -> list[Path]:
    return [path for file in dataset.files for path in locate(dataset, data, file)]


def one_line(error: Exception) -> str:
    assert "\n" not in str(error).strip()
    return str(error)


class PublishedContract:
    """The dataset `name`; `write_files(folder)` writes a tiny annotation set of it, with videos."""

    @pytest.fixture
    def data(self, write_files: Callable[[Path], None], tmp_path: Path) -> Path:
        folder = tmp_path / "data"
        folder.mkdir()
        write_files(folder)
        return folder

    @pytest.fixture
    def dataset(self, name: str) -> Published:
        found = find_dataset(name)
        assert isinstance(found, Published)
        return found

    @pytest.fixture
    def tiny(self, dataset: Published, data: Path) -> Published:
        """The dataset as if it were published in the size of the tiny files."""
        annotations = read_annotations(dataset, find_files(dataset, data))
        sizes = counts_of(annotations.entries, len(annotations.classes))
        return replace(dataset, counts={split: Count(*sizes[split]) for split in dataset.counts})

    @pytest.fixture
    def samples(self, dataset: Published, data: Path) -> Samples:
        return load_published(dataset, data, allow_missing=True)

    def test_it_says_in_one_line_what_it_needs_and_where_to_get_it(self, dataset, name):
        assert dataset.name == name
        assert "\n" not in dataset.needs
        assert all(file.name in dataset.needs for file in dataset.files if not file.optional)
        assert "http" in dataset.needs

    def test_an_absent_folder_or_empty_one_says_what_to_place_where(self, dataset, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").touch()
        for place in ("absent", "empty", "file"):
            with pytest.raises(MissingFileError) as caught:
                load_published(dataset, tmp_path / place, allow_missing=True)
            assert dataset.needs in one_line(caught.value)

    def test_every_row_is_read_and_lies_in_the_folder(self, dataset, data, samples):
        assert list(samples.splits) == list(dataset.counts)
        assert sum(len(split.video) for split in samples.splits.values()) == len(samples.videos)
        for video in samples.videos:
            assert video.path.is_file()
            assert video.path.is_relative_to(data)
        for split in samples.splits.values():
            assert len(split.video) > 0
            assert len(split.text) > 0

    def test_captions_belong_to_a_video_of_their_split_or_classes_to_every_video(self, dataset, samples):
        if dataset.protocol == RECOGNITION:
            classes = len(samples.texts) // len(dataset.prompts)
            assert all(text.kind == CLASS for text in samples.texts)
            assert {video.label for video in samples.videos} <= set(range(classes))
            for split in samples.splits.values():
                assert split.text.tolist() == list(range(classes))
            return
        for split in samples.splits.values():
            own = {samples.texts[row].video for row in split.text}
            assert own == set(split.video.tolist())
        if dataset.protocol in (SINGLE_CAPTION, PARAGRAPH):
            test = samples.splits["test"]
            assert len(test.text) == len(test.video)

    def test_texts_are_tidy(self, samples):
        assert all(text.text == " ".join(text.text.split()) for text in samples.texts)

    def test_other_counts_than_the_published_ones_are_refused_unless_allowed(self, dataset, data, samples):
        with pytest.raises(InputError, match=r"the published .* has [\d,]+; fetch") as caught:
            load_published(dataset, data)
        assert "--allow-missing" in one_line(caught.value)
        assert samples.missing

    def test_a_complete_dataset_misses_nothing(self, tiny, data, samples):
        whole = load_published(tiny, data)
        assert whole.missing == {}
        assert whole.rows_digest() == samples.rows_digest()

    def test_a_missing_video_is_refused_unless_allowed_and_then_recorded(self, tiny, data, samples):
        gone = samples.videos[-1]
        split = list(samples.splits)[-1]
        gone.path.unlink()
        if not (tiny.missing_is_normal or tiny.name in LISTED_BY_FOLDERS_OR_LINES):
            with pytest.raises(MissingFileError) as caught:
                load_published(tiny, data)
            assert gone.id in one_line(caught.value)
            assert f"python -m store dataset {tiny.name}" in str(caught.value)
        fewer = load_published(tiny, data, allow_missing=True)
        assert gone.id not in {video.id for video in fewer.videos}
        assert fewer.missing[f"{split} videos"] == 1

    def test_without_any_video_it_says_where_they_are_published(self, tiny, data, samples):
        for video in samples.videos:
            video.path.unlink()
        with pytest.raises(CacheError) as caught:
            load_published(tiny, data, allow_missing=True)
        assert tiny.videos in one_line(caught.value)

    def test_rows_do_not_depend_on_where_the_data_lies(self, dataset, write_files, samples, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        write_files(elsewhere)
        assert load_published(dataset, elsewhere, allow_missing=True).rows_digest() == samples.rows_digest()

    def test_a_byte_order_mark_and_other_line_ends_change_nothing(self, dataset, data, samples):
        for path in annotation_paths(dataset, data):
            if path.suffix in (".pkl", ".npy"):
                continue
            content = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            path.write_bytes(b"\xef\xbb\xbf" + content)
        assert load_published(dataset, data, allow_missing=True).rows_digest() == samples.rows_digest()

    @pytest.mark.parametrize("content", OTHER_SHAPES)
    def test_a_file_of_another_kind_is_named_in_one_line(self, tiny, data, content):
        for path in annotation_paths(tiny, data):
            before = path.read_bytes()
            path.write_bytes(content)
            with pytest.raises(CacheError) as caught:
                load_published(tiny, data)
            assert path.name in one_line(caught.value) or "the published" in str(caught.value)
            path.write_bytes(before)

    def test_bytes_that_are_no_text_are_named_with_their_file(self, tiny, data):
        for path in annotation_paths(tiny, data):
            before = path.read_bytes()
            path.write_bytes(before + NOT_UTF8)
            if path.suffix in (".pkl", ".npy"):
                path.write_bytes(NOT_UTF8 + before)
            with pytest.raises(InputError) as caught:
                load_published(tiny, data, allow_missing=True)
            assert path.name in one_line(caught.value)
            path.write_bytes(before)

    @pytest.mark.parametrize("evil", ["../outside", "../../outside", "..", "a/../../outside", "/outside"])
    def test_an_id_never_leads_out_of_the_folder(self, dataset, data, samples, evil):
        (data.parent / "outside").touch()
        for suffix in (".mp4", ".avi", ".jpg", ".webm"):
            (data.parent / f"outside{suffix}").touch()
        victim = samples.videos[0]
        changed = False
        for path in annotation_paths(dataset, data):
            before = content = path.read_bytes()
            for name in {victim.id, victim.path.stem, victim.id.rsplit("_", 2)[0]}:
                content = content.replace(name.encode(), evil.encode()) if len(name) > 6 else content
            path.write_bytes(content)
            changed |= content != before
        assert changed or len(victim.id) <= 6 or dataset.name in LISTED_BY_FOLDERS_OR_LINES
        try:
            read = load_published(dataset, data, allow_missing=True)
        except CacheError as error:
            one_line(error)
            return
        for video in read.videos:
            assert video.path.resolve().is_relative_to(data.resolve())

    def test_a_video_that_comes_twice_is_refused(self, dataset, data):
        def twice(files: FoundFiles) -> Annotations:
            read = dataset.read(files)
            return replace(read, entries=[*read.entries, read.entries[0]])

        with pytest.raises(InputError, match="comes again in"):
            load_published(replace(dataset, read=twice), data, allow_missing=True)

    def test_its_order_is_that_of_the_splits(self, samples):
        rows = np.concatenate([split.video for split in samples.splits.values()])
        assert rows.tolist() == list(range(len(samples.videos)))
