"""What every dataset of the folder offers (store/inputs/datasets/base.py)."""

from __future__ import annotations

import pytest

from store.errors import MissingFileError, UnknownNameError
from store.inputs import datasets
from store.inputs.datasets import dataset_names, find_dataset, load_dataset
from store.inputs.datasets.base import Published
from store.lookup import plugin_names
from tests.contracts.dataset_contract import PublishedContract
from tests.store.inputs.datasets.official_files import OFFICIAL_FILES

PUBLISHED = [name for name in dataset_names() if isinstance(find_dataset(name), Published)]
OWN = [name for name in dataset_names() if name not in PUBLISHED]


@pytest.mark.parametrize("name", PUBLISHED)
class TestPublished(PublishedContract):
    @pytest.fixture
    def write_files(self, name):
        assert name in OFFICIAL_FILES, f"official_files.py writes no files of {name}: add them"
        return OFFICIAL_FILES[name]


@pytest.mark.parametrize("name", OWN)
def test_a_dataset_of_ones_own_says_in_one_line_what_it_needs(name, tmp_path):
    needs = find_dataset(name).NEEDS
    assert needs.strip()
    assert "\n" not in needs
    with pytest.raises(MissingFileError) as caught:
        load_dataset(name, tmp_path / "absent")
    assert needs in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_module_offers_its_own_name_and_its_variants_begin_with_it():
    for module in plugin_names(datasets):
        assert module in dataset_names()
    for name in dataset_names():
        assert name.split("-")[0] in plugin_names(datasets)


def test_an_unknown_variant_lists_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'msrvtt-7k'"):
        find_dataset("msrvtt-7")
