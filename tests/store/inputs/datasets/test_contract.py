"""What every dataset of the folder offers (store/inputs/datasets/base.py)."""

from __future__ import annotations

import pytest

from store.errors import MissingFileError
from store.inputs import datasets
from store.lookup import load_plugin, plugin_names


@pytest.fixture(params=plugin_names(datasets))
def dataset(request):
    return load_plugin(datasets, "dataset", request.param)


def test_it_says_in_one_line_what_it_needs(dataset):
    assert dataset.NEEDS.strip()
    assert "\n" not in dataset.NEEDS


def test_without_its_files_it_says_what_to_place_where(dataset, tmp_path):
    with pytest.raises(MissingFileError) as caught:
        dataset.load(tmp_path / "absent")
    assert dataset.NEEDS in str(caught.value)
    assert "\n" not in str(caught.value)
