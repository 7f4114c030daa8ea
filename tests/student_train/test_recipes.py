"""Published recipes: what the papers' tables say of each row, and what every recipe says that it needs."""

import pytest

from store.lookup import load_plugin, plugin_names
from store.signals import kind_of
from student_train import students
from student_train.__main__ import main
from student_train.needs import NOT_SIGNALS, PAIR_SCORES, split_role
from student_train.recipe_list import recipe_needs
from student_train.students import afa, sab

CGT, FGT = "coarse_pearson", "fine_cross_entropy_mean"
# Table 2 of TeachCLIP: pooling, backbone, losses beside InfoNCE.
TABLE_2 = {
    0: ("mean", 32, ()),
    1: ("mean", 16, ()),
    2: ("afa", 32, ()),
    3: ("mean", 32, (CGT,)),
    4: ("afa", 32, (CGT,)),
    5: ("afa", 32, ("coarse_huber",)),
    6: ("afa", 32, (FGT,)),
    7: ("afa", 32, (CGT, FGT)),
    8: ("afa", 32, (CGT, FGT)),
    9: ("afa", 32, (CGT, "fine_pearson")),
    10: ("afa", 32, (CGT, "fine_huber")),
    11: ("afa", 32, (CGT, FGT)),
    12: ("afa", 32, (CGT, FGT)),
    13: ("afa", 32, (CGT, FGT, f"{CGT}@second", f"{FGT}@second")),
    14: ("afa", 16, (CGT, FGT)),
}


@pytest.mark.parametrize(("setup", "row"), TABLE_2.items())
def test_every_setup_of_table_2_is_a_recipe(setup: int, row: tuple) -> None:
    pooling, patch, losses = row
    recipe = afa.RECIPES[f"setup-{setup}"]
    assert recipe.model.aggregation == pooling
    assert recipe.model.architecture == f"ViT-B-{patch}-quickgelu"
    assert (recipe.model.way_in, recipe.model.weights) == ("frames", "openai")
    assert set(recipe.losses) == {"info_nce", *losses}
    assert recipe.batch_size == 240


def test_paper_and_code_weigh_and_pool_as_each_says() -> None:
    code, paper = afa.RECIPES["teachclip-code"], afa.RECIPES["teachclip-paper"]
    assert dict(code.losses) == {"info_nce": 0.2, CGT: 1.0, FGT: 2.0}
    assert dict(paper.losses) == {"info_nce": 1.0, CGT: 1.0, "fine_cross_entropy_sum": 1.0}
    assert (code.model.pooling_temperature, paper.model.pooling_temperature) == (0.1, 1.0)
    assert (code.optimizer.name, paper.optimizer.name) == ("bert_adam", "adamw")
    assert (code.optimizer.weight_decay, paper.optimizer.weight_decay) == (0.2, 0.0)


def test_two_teachers_count_as_much_together_as_one_alone() -> None:
    one, two = afa.RECIPES["setup-7"].losses, afa.RECIPES["setup-13"].losses
    for loss in (CGT, FGT):
        assert two[loss] + two[f"{loss}@second"] == one[loss]


def test_every_row_of_clippings_tables_is_a_recipe() -> None:
    base = {"info_nce", "temporal", "spatial"}
    rows = {
        "clipping-none": {"info_nce"},
        "clipping-t": {"info_nce", "temporal"},
        "clipping-ts": base,
        "clipping-ts-ol2ol": {*base, "ol2ol_unmasked"},
        "clipping-ts-tab": {*base, "tab_unmasked"},
        "clipping-ts-sab-unmasked": {*base, "sab_unmasked"},
        "clipping-ts-sab": {*base, "sab"},
        "clipping-ts-sab-global": {*base, "sab", "global"},
        "clipping": {*base, "sab", "global", "local"},
    }
    for name, losses in rows.items():
        recipe = sab.RECIPES[name]
        assert set(recipe.losses) == losses
        assert recipe.epochs == 36
        assert bool(recipe.model.teacher_layers) == any(
            loss.startswith(("sab", "tab", "ol2")) for loss in losses
        )
    assert len(sab.RECIPES["clipping"].model.teacher_layers) == 12
    assert len(sab.RECIPES["clipping"].model.taps) == 4


@pytest.mark.parametrize("student", plugin_names(students))
def test_every_recipe_says_what_it_needs_in_words_that_the_cache_knows(student: str) -> None:
    module = load_plugin(students, "student", student)
    for recipe in module.RECIPES.values():
        needs = recipe_needs(module, recipe)
        assert needs[: len(recipe.model.needs)] == recipe.model.needs
        for name in (split_role(need)[0] for need in needs):
            assert (
                name in NOT_SIGNALS or name.startswith("planned_topk") or kind_of(name.removeprefix("class:"))
            )


def test_needs_follow_from_the_losses_and_tell_the_role() -> None:
    assert recipe_needs(afa, afa.RECIPES["setup-0"]) == ("pixels", "text")
    assert f"{PAIR_SCORES}@second" in recipe_needs(afa, afa.RECIPES["setup-13"])
    assert "vit_layers/11" in recipe_needs(sab, sab.RECIPES["clipping"])
    assert "vit_layers/11" not in recipe_needs(sab, sab.RECIPES["clipping-ts"])


def test_the_list_of_recipes_tells_losses_needs_and_optimiser(capsys) -> None:
    assert main(["recipes", "--student", "afa"]) == 0
    told = capsys.readouterr().out
    assert told.count("needs ") == len(afa.RECIPES)
    assert "bert_adam, official_cosine, 0.0001 (towers.* x 0.001" in told
    assert "sab" not in told
