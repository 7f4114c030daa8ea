"""Settings from a file and a command line: typed, layered, refused by name, and fed back unchanged."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import CacheError, InputError, MissingFileError, UnknownNameError
from store.reader import Cache
from student_train.config import Recipe
from student_train.configuration import RunSettings, Told, read_settings
from student_train.typed_fields import overridden, to_plain, updated


@dataclass(frozen=True)
class Inner:
    heads: int | None = None
    name: str = "x"


@dataclass(frozen=True)
class Outer:
    rate: float = 0.1
    flag: bool = False
    pair: tuple[float, float] = (0.9, 0.98)
    many: tuple[int, ...] = (1,)
    weights: dict[str, float] = field(default_factory=lambda: {"a": 1.0})
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("rate", "1e-4", 1e-4),
        ("rate", "3", 3.0),
        ("flag", "true", True),
        ("pair", "0.8,0.9", (0.8, 0.9)),
        ("pair", "[0.8, 1]", (0.8, 1.0)),
        ("many", "3", (3,)),
        ("many", "3,4", (3, 4)),
        ("weights.a", "2", {"a": 2.0}),
        ("weights.b.c@d", "0.5", {"a": 1.0, "b.c@d": 0.5}),
        ("inner.heads", "8", Inner(heads=8)),
        ("inner.heads", "null", Inner()),
        ("inner.name", "3", Inner(name="3")),
    ],
)
def test_words_become_what_their_field_takes(path: str, text: str, value: object) -> None:
    found = overridden(Outer(), path, text)
    assert getattr(found, path.partition(".")[0]) == value


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("rate", "fast", "rate is a number, not 'fast'"),
        ("rate", ".inf", "rate is a number"),
        ("rate", "[", "rate="),
        ("flag", "1", "flag is true or false"),
        ("pair", "1", "pair is 2 values"),
        ("many", "1.5", "many is a whole number"),
        ("weights.a", "x", "weights.a is a number"),
        ("inner", "3", "inner is a group of settings"),
        ("inner.heads", "true", "inner.heads is a whole number, not True"),
        ("inner.haeds", "1", "did you mean 'inner.heads'"),
        ("rat", "1", "did you mean 'rate'"),
        ("rate.x", "1", "rate is a single value"),
    ],
)
def test_what_a_field_does_not_take_is_refused_with_its_path(path: str, text: str, words: str) -> None:
    with pytest.raises(CacheError) as refusal:
        overridden(Outer(), path, text)
    assert words in str(refusal.value)


PLAIN = st.builds(
    Outer,
    rate=st.floats(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
    pair=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    many=st.lists(st.integers()).map(tuple),
    weights=st.dictionaries(st.text(max_size=5), st.floats(-1e9, 1e9), max_size=3),
    inner=st.builds(Inner, heads=st.none() | st.integers(), name=st.text(max_size=5)),
)


@settings(deadline=None)
@given(PLAIN, PLAIN)
def test_what_is_printed_comes_back_whatever_it_is_put_into(told: Outer, other: Outer) -> None:
    printed = yaml.safe_dump(to_plain(told))
    assert updated(other, yaml.safe_load(printed)) == told


def test_a_group_is_updated_by_field_and_a_mapping_replaced() -> None:
    changed = updated(Outer(inner=Inner(8, "y")), {"inner": {"name": "z"}, "weights": {"b": 2}})
    assert changed.inner == Inner(8, "z")
    assert changed.weights == {"b": 2.0}


def test_no_setting_of_a_run_has_the_name_of_one_of_a_recipe() -> None:
    of_run, of_recipe = ({one.name for one in fields(cls)} for cls in (RunSettings, Recipe))
    assert not of_run & of_recipe


def test_the_command_line_goes_over_the_file_and_the_last_word_counts(learnable: Cache) -> None:
    file = {"epochs": 7, "optimizer": {"lr": 0.5, "warmup": 0.2}, "recipe": "demo", "seeds": [4]}
    found = Told(file, [("epochs", "8"), ("optimizer.lr", "0.1"), ("epochs", "9")]).resolve(learnable)
    assert (found.recipe.epochs, found.recipe.optimizer.lr, found.recipe.optimizer.warmup) == (9, (0.1,), 0.2)
    assert found.recipe.optimizer.betas == (0.9, 0.999), "what nobody named stays the recipe's"
    assert found.run.seeds == (4,)
    assert found.run.teacher == "oracle"


def test_arms_are_trained_in_one_order_however_they_are_named(learnable: Cache) -> None:
    assert Told(words=[("arms", "taught,untaught")]).resolve(learnable).run.arms == ("untaught", "taught")


def test_an_unknown_setting_of_a_file_is_refused(learnable: Cache) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'optimizer'"):
        Told({"optimiser": {"lr": 1}}).resolve(learnable)
    with pytest.raises(UnknownNameError, match=r"did you mean .model\.temporal_layers"):
        Told({"model": {"temporal_layer": 1}}).resolve(learnable)
    with pytest.raises(InputError, match="model: aggregation is one of"):
        Told({"model": {"aggregation": "sum"}}).resolve(learnable)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"epochs: 1\nepochs: 2\n", "line 2 sets 'epochs' a second time"),
        (b"optimizer:\n  lr: 1\n  lr: 2\n", "line 3"),
        (b"epochs: [1\n", "line 2 is no YAML"),
        (b"- epochs\n", "holds no settings"),
        (b"\xff\xfe", "UTF-8"),
        (b"a: !!python/object/apply:os.getcwd []\n", "is no YAML"),
    ],
)
def test_a_file_that_is_no_settings_is_refused_with_its_line(
    tmp_path: Path, content: bytes, words: str
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError) as refusal:
        read_settings(file)
    assert words in str(refusal.value)


def test_a_file_that_is_not_there_is_told_with_a_way_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="--print-config"):
        read_settings(tmp_path / "none.yaml")
