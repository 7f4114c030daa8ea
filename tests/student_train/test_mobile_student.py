"""CLIPPING's student: parameters held to the paper's tables, its parts, and what is refused."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from store.errors import InputError, MissingFileError, UnknownNameError
from store.inputs.preprocess import CLIP_MEAN, CLIP_STD
from student_train.clip_towers import TINY, create
from student_train.frame_encoder import FrameEncoder
from student_train.losses.layers import LayerOptions
from student_train.mobile_student import AFTER_TIME, BEFORE_TIME, FIRST, OWN, Config
from student_train.needs import FRAME_VALID, PIXELS, TEXT
from student_train.students import sab
from student_train.students.base import Task
from student_train.text_towers import TINYBERT, ClipText, TinyBert
from tests.contracts.student_contract import random_batch

FRAMES = 12
SIZES = {PIXELS: {"M": FRAMES, "Y": 224, "X": 224, "C": 3}, "text_embedding": {"D": 512}}
TINY_CONFIG, TINY_SIZES = sab.tiny()


def millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def embeddings(student: torch.nn.Module) -> float:
    """Parameters, in millions, of the tables of words, which the paper's counts leave out."""
    text = student.text
    return millions(text.bert.embeddings if isinstance(text, TinyBert) else text.tower.token_embedding)


def of_recipe(name: str) -> torch.nn.Module:
    """The student of a recipe as it is used, without memory and without what only teaching needs."""
    config = dataclasses.replace(sab.RECIPES[name].model, teacher_layers=(), borders=())
    with torch.device("meta"):
        return sab.build(config, SIZES)


# Table 2 calls 37.8 M the temporal transformer and 12.6 M the language encoder. CLIP's text tower of 12
# blocks, 512 wide, has 37.8 M, a transformer of 4 such blocks 12.6 M: the two rows are exchanged. Their sum,
# and so "CLIPPING", is not touched by that; "*" (here 22.0, there 46.5 = 4.5 + 37.8 + 4.2) and "without T"
# (here 42.8, there 21.3 = 4.5 + 12.6 + 4.2) are. The paper's 21.3 M is what we count for "*".
TABLE_1 = {
    "clipping": (55.0, 55.40),
    "clipping-without-t": (21.3, 42.78),
    "clipping-star": (46.5, 21.995),
    "clipping-star-without-t": (8.7, 9.38),
}


@pytest.mark.parametrize(("name", "counts"), TABLE_1.items())
def test_parameters_of_the_four_variants(name: str, counts: tuple[float, float]) -> None:
    paper, ours = counts
    student = of_recipe(name)
    assert millions(student) - embeddings(student) == pytest.approx(ours, abs=0.01)
    if name in ("clipping", "clipping-star-without-t"):
        assert ours == pytest.approx(paper, rel=0.08)


@pytest.mark.slow
def test_parameters_of_the_modules_are_those_of_table_2() -> None:
    """The frame encoder has a projection to 512 besides (0.26 M), CLIP's tower its projection and positions
    (0.3 M), TinyBERT, of which 4 layers have 4.6 M, its projection (0.16 M)."""
    student, star = of_recipe("clipping"), of_recipe("clipping-star")
    assert millions(student.vision) == pytest.approx(4.5, abs=0.2)
    assert millions(student.text) - embeddings(student) == pytest.approx(37.8, abs=0.4)
    assert millions(student.temporal) == pytest.approx(12.6, abs=0.05)
    assert millions(star.text) - embeddings(star) == pytest.approx(4.2, abs=0.6)


@pytest.mark.slow
def test_two_of_the_papers_totals_are_made_of_other_modules_than_they_name() -> None:
    star, without_t = of_recipe("clipping-star"), of_recipe("clipping-without-t")
    assert millions(star) - embeddings(star) == pytest.approx(TABLE_1["clipping-without-t"][0], rel=0.04)
    assert millions(without_t) - embeddings(without_t) == pytest.approx(4.5 + 37.8, abs=0.6)


@pytest.fixture(scope="module")
def student() -> sab.MobileStudent:
    torch.manual_seed(0)
    return sab.build(TINY_CONFIG, TINY_SIZES).eval()


def test_a_loss_that_is_switched_off_leaves_no_parameter_that_learns_without_a_gradient() -> None:
    """In several processes the others would wait for the gradient of such a one."""
    config, sizes = sab.tiny()
    terms = sab.losses(config)
    for weights in ({"info_nce": 1.0}, {"info_nce": 1.0, "temporal": 1.0}, {"info_nce": 1.0, "sab": 1.0}):
        task = Task(sab.build(config, sizes), terms, weights)
        task.freeze_unread()
        task(random_batch(task.needs, sizes, 4))["loss"].backward()
        idle = [name for name, p in task.student.named_parameters() if p.requires_grad and p.grad is None]
        assert idle == []
        learns = {name for name, p in task.student.named_parameters() if p.requires_grad}
        assert any(name.startswith("reshaping.") for name in learns) == ("sab" in weights)


def test_what_only_teaching_needs_is_not_run_to_encode_a_video(student, monkeypatch) -> None:
    batch = random_batch(student.config.needs, TINY_SIZES, 2)
    monkeypatch.setattr(student.reshaping, "forward", lambda maps: pytest.fail("reshaped for nothing"))
    assert set(student.encode_videos(batch)) == {"video_embedding", BEFORE_TIME, AFTER_TIME}


def test_a_missing_frame_is_not_looked_at(student) -> None:
    batch = random_batch(student.config.needs, TINY_SIZES, 2)
    other = {**batch, PIXELS: batch[PIXELS].clone()}
    other[PIXELS][~batch[FRAME_VALID]] = 255
    first, second = student(batch), student(other)
    assert torch.equal(first["video_embedding"], second["video_embedding"])
    assert not first["layers"][~batch[FRAME_VALID]].any()


def test_without_t_frames_after_time_are_those_before_it() -> None:
    student = sab.build(dataclasses.replace(TINY_CONFIG, temporal_layers=0), TINY_SIZES).eval()
    found = student.encode_videos(random_batch(student.config.needs, TINY_SIZES, 2))
    assert torch.equal(found[BEFORE_TIME], found[AFTER_TIME])


def test_every_choice_that_the_paper_leaves_open_changes_the_loss_it_is_about(student) -> None:
    choices = {
        "feature_axis": ("places", "spatial"),
        "feature_temperature": (4.0, "temporal"),
        "pair_temperature": (4.0, "global"),
        "local_axis": (FIRST, "local"),
        "layers": (LayerOptions(masking="product"), "sab"),
        "borders": ((), "tab"),
    }
    assert TINY_CONFIG.local_axis == OWN
    for field, (value, name) in choices.items():
        config = dataclasses.replace(TINY_CONFIG, **{field: value})
        tasks = [Task(student, sab.losses(made), {name: 1.0}) for made in (TINY_CONFIG, config)]
        batch = random_batch(tasks[0].needs, TINY_SIZES, 4)
        with torch.no_grad():
            first, second = (task(batch)["loss"].item() for task in tasks)
        assert first != pytest.approx(second, rel=1e-6), field


@pytest.mark.parametrize("name", ["temporal", "sab", "tab", "local"])
def test_losses_are_computed_in_float32_under_mixed_precision_too(student, name: str) -> None:
    term = sab.losses(TINY_CONFIG)[name]
    batch = random_batch((*student.config.needs, *term.needs), TINY_SIZES, 3)
    with torch.no_grad():
        outputs = student(batch)
        plain = term.function(outputs, batch).values
        with torch.autocast("cpu", torch.bfloat16):
            mixed = term.function(outputs, batch).values
    assert torch.equal(plain, mixed)


def test_a_cache_whose_layers_have_no_square_of_patches_is_refused() -> None:
    sizes = {**TINY_SIZES, "vit_layers/0": {**TINY_SIZES["vit_layers/0"], "L": 1}}
    with pytest.raises(InputError, match="differ in size"):
        sab.build(TINY_CONFIG, sizes)
    one = dataclasses.replace(TINY_CONFIG, teacher_layers=(0,), borders=())
    with pytest.raises(InputError, match="square of patches"):
        sab.build(one, sizes)


@pytest.mark.parametrize(
    "wrong", [{"text": "gpt"}, {"local_axis": "last"}, {"temporal_layers": -1}, {"feature_axis": "depth"}]
)
def test_a_configuration_without_meaning_is_refused(wrong: dict) -> None:
    with pytest.raises(InputError):
        Config(**wrong)


@pytest.mark.parametrize("weights", ["cvnets_in1k", "mine.safetensors"])
def test_public_weights_of_the_encoder_get_pixels_as_they_were_trained_on_them(weights: str) -> None:
    sizes = {name: size for name, size in TINY_SIZES.items() if not name.startswith("vit_layers/")}
    plain = dataclasses.replace(TINY_CONFIG, teacher_layers=(), borders=())
    assert sab.build(plain, sizes).statistics == (CLIP_MEAN, CLIP_STD)
    public = dataclasses.replace(plain, vision_weights=weights)
    assert sab.build(public, sizes).statistics == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_public_weights_that_timm_has_not_are_refused_with_those_that_it_has() -> None:
    config = dataclasses.replace(TINY_CONFIG, vision_weights="cvnets_in1")
    with pytest.raises(UnknownNameError, match="did you mean 'cvnets_in1k'"):
        sab.build(config, TINY_SIZES)


def test_an_encoder_and_a_stage_that_nobody_has_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="mobilevitv2_050"):
        FrameEncoder("mobilevitv2_05", (1,), 8)
    with pytest.raises(InputError, match="no stage 5: mobilevitv2_050 has 5"):
        FrameEncoder("mobilevitv2_050", (5,), 8)


def test_public_weights_of_clip_start_text_and_time(tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    save_file(
        {name: value.contiguous() for name, value in create(TINY, half=False).state_dict().items()}, path
    )
    wide = {**TINY_SIZES, "text_embedding": {"D": 64}}
    config = dataclasses.replace(TINY_CONFIG, text_weights=str(path), teacher_layers=(), borders=())
    student = sab.build(config, wide)
    told = student.start()
    assert told["text"]["weights"] == "clip.safetensors"
    tower = student.text.tower
    assert torch.equal(
        student.temporal.blocks[0].mlp_in.weight, tower.transformer.resblocks[0].mlp.c_fc.weight
    )


def test_public_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    for name in ("vision_weights", "text_weights"):
        config = dataclasses.replace(TINY_CONFIG, **{name: str(tmp_path / "none.safetensors")})
        with pytest.raises(MissingFileError, match=r"none\.safetensors"):
            sab.build(config, TINY_SIZES).start()


def test_tinybert_reads_the_words_of_its_vocabulary(tmp_path: Path) -> None:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "circle"]) + "\n")
    tower = TinyBert(8, 6, str(vocabulary)).eval()
    with torch.no_grad():
        sentence, words, valid = tower(["red circle", "red"])
        alone, _, _ = tower(["red"])
    assert words.shape == (2, 6, 8)
    assert valid.tolist() == [[True] * 4 + [False] * 2, [True] * 3 + [False] * 3]
    assert torch.equal(sentence, words[:, 0])
    assert torch.allclose(alone[0], sentence[1], atol=1e-5)
    with pytest.raises(MissingFileError, match="vocabulary"):
        TinyBert(8, 6, str(tmp_path / "none.txt"))


def test_tinybert_without_its_vocabulary_takes_no_public_weights(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY_CONFIG, text=TINYBERT, text_weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(InputError, match=r"vocab\.txt"):
        sab.build(config, TINY_SIZES).start()


def test_a_text_tower_unlike_clips_is_refused() -> None:
    with pytest.raises(InputError, match="unlike CLIP"), torch.device("meta"):
        ClipText("ViT-B-16-SigLIP", 512, 32)


def test_captions_are_read_by_the_student_itself(student) -> None:
    batch = {
        TEXT: ["a red circle", "a red circle and much more of it than can be read at once by this tower"]
    }
    found = student.encode_texts(batch)
    assert found["word_valid"].sum(-1).tolist() == [5, 8]
