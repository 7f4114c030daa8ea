"""Side4Video's student: its parts, what it starts from, cached against live, recipes, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from store.errors import CacheError, InputError
from store.signals import VISION_HEAD
from student_train.live_layers import LiveLayers
from student_train.needs import FRAME_VALID, PIXELS
from student_train.side_blocks import SideNetwork, SideSizes, shifted
from student_train.side_network_model import LIVE, MEAN, RECOGNITION, TUNED, Config, Parts, SideStudent
from student_train.side_network_sizes import joint_width, side_sizes
from student_train.side_network_start import openai_names
from student_train.students import side_network
from student_train.students.base import Task
from student_train.token_wise import WeighedTokens, token_wise_similarity
from teacher_dump.models.demo_world import shipped_weights
from teacher_dump.teachers import demo_clip4clip
from teacher_dump.teachers.base import TeacherOptions
from tests.contracts.student_contract import random_batch

CONFIG, SIZES = side_network.tiny()
CAPTIONS = ["a small red circle moves left on the grass", "a large blue square turns"]


def built(config: Config = CONFIG) -> SideStudent:
    torch.manual_seed(0)
    return side_network.build(config, SIZES).eval()


def trained_a_little(student: SideStudent) -> SideStudent:
    """With an up-projection that is not zero any more."""
    with torch.no_grad():
        student.up.normal_(std=0.1)
    return student


def test_an_untrained_student_is_its_frozen_backbone() -> None:
    student = built()
    alone = built(replace(CONFIG, layers=(), cls_layer=1))
    alone.load_state_dict({name: student.state_dict()[name] for name in alone.state_dict()})
    batch = random_batch(student.config.needs, SIZES, 3)
    assert torch.equal(student(batch)["logits"].rows, alone(batch)["logits"].rows)
    assert not torch.allclose(trained_a_little(student)(batch)["logits"].rows, alone(batch)["logits"].rows)


def test_the_frozen_baseline_asks_for_no_pixels_and_for_one_layer() -> None:
    recipe = side_network.RECIPES["retrieval-b16"]
    assert recipe.model.needs == ("pixels", *(f"vit_layers/{layer}" for layer in range(12)), "text")
    assert recipe.untaught_model.needs == ("vit_layers/11", "text")
    assert recipe.model.starts_from == recipe.untaught_model.starts_from == (VISION_HEAD,)
    live = replace(recipe.model, way_in=LIVE)
    assert live.needs == ("pixels", "text")
    assert live.starts_from == ()


@pytest.mark.parametrize("task", ["retrieval", RECOGNITION])
def test_a_missing_frame_is_looked_at_by_nobody(task: str) -> None:
    student = built(replace(CONFIG, task=task))
    if task == "retrieval":
        trained_a_little(student)
    batch = random_batch(student.config.needs, SIZES, 2)
    other = {name: value.clone() if torch.is_tensor(value) else value for name, value in batch.items()}
    for need in (PIXELS, "vit_layers/0", "vit_layers/1"):
        other[need][~batch[FRAME_VALID]] = 7
    first, second = student.encode_videos(batch), student.encode_videos(other)
    seen = batch[FRAME_VALID]
    for name, value in first.items():
        of_frames = name.startswith("frame_")
        found = (value[seen], second[name][seen]) if of_frames else (value, second[name])
        assert torch.allclose(*found, atol=1e-6), name


def test_cls_holds_the_neighbours_and_nothing_of_its_own_frame() -> None:
    frames = torch.tensor([1.0, 2.0, 3.0])[None, :, None].expand(1, 3, 4)
    assert shifted(frames)[0].tolist() == [[2, 2, 0, 0], [3, 3, 1, 1], [0, 0, 2, 2]]


def test_sum_and_half_differ_in_how_a_layer_comes_in() -> None:
    sizes = SideSizes(8, 1, 2, 4, (6,), cls_has_position=True)
    half = SideNetwork(sizes, "half").eval()
    whole = SideNetwork(sizes, "sum").eval()
    whole.load_state_dict(half.state_dict())
    seen: dict[str, torch.Tensor] = {}
    for name, network in (("half", half), ("sum", whole)):
        network.blocks[0].register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
        torch.manual_seed(1)
        network(torch.randn(1, 2, 3, 8, 8), [torch.randn(1, 2, 5, 6)])
    assert torch.allclose(2 * seen["half"], seen["sum"])


@pytest.mark.parametrize("masked", [True, False])
def test_token_wise_matching_word_by_word_in_float64(masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def tokens(rows: int, count: int, valid: list[int]) -> WeighedTokens:
        feature = torch.randn(rows, count, 3, generator=generator, dtype=torch.float64)
        there = torch.arange(count) < torch.tensor(valid)[:, None]
        weight = torch.rand(rows, count, generator=generator, dtype=torch.float64) * there
        unit = feature / feature.norm(dim=-1, keepdim=True)
        return WeighedTokens(unit, weight / weight.sum(-1, keepdim=True), there.double())

    frames, words = tokens(3, 4, [4, 2, 4] if masked else [4, 4, 4]), tokens(2, 5, [5, 3])
    found = token_wise_similarity(frames, words, masked)
    for video in range(3):
        for text in range(2):
            cosine = frames.feature[video] @ words.feature[text].T
            if masked:
                known = cosine[frames.valid[video].bool()][:, words.valid[text].bool()]
                of_frames, of_words = known.max(1).values, known.max(0).values
                by_video = (frames.weight[video][: len(of_frames)] * of_frames).sum()
                by_text = (words.weight[text][: len(of_words)] * of_words).sum()
            else:
                cosine = cosine * words.valid[text]
                by_video = sum(w * max(row) for w, row in zip(frames.weight[video], cosine, strict=True))
                by_text = sum(w * max(col) for w, col in zip(words.weight[text], cosine.T, strict=True))
            assert found[video, text].item() == pytest.approx(float(by_video + by_text) / 2, abs=1e-12)


def test_the_demos_teacher_is_met_by_what_the_student_starts_from() -> None:
    """The head that it stores: the last layer's [CLS] gives its frame features. The text tower of its file:
    captions give its sentence features, whose words it maps onto CLIP's."""
    teacher = demo_clip4clip.load(TeacherOptions())
    frames = torch.randint(256, (2, 8, 32, 32, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    told = teacher.encode_videos(frames, torch.ones(2, 8, dtype=torch.bool))
    layer = {"R": 1, "M": 8, "L": 17, "D": 64}
    model = side_network.RECIPES["demo-mean"].untaught_model
    config = replace(model, weights=str(shipped_weights("demo_clip4clip")))
    student = side_network.build(config, {"vit_layers/2": layer})
    record = {**student.start(), **student.take_over(teacher.of_itself())}
    assert torch.allclose(student.head(told["vit_layers/2"][:, :, 0]), told["frame_embedding"], atol=1e-5)
    sentence = student.encode_texts({"text": CAPTIONS})["text_embedding"]
    assert torch.allclose(sentence, teacher.encode_texts(CAPTIONS)["text_embedding"], atol=1e-5)
    assert student.log_logit_scale.exp().item() == pytest.approx(teacher.identity()["logit_scale"], rel=1e-4)
    assert {len(record[part]["sha256"]) for part in ("head", "text")} == {64}
    assert record["head"]["signal"] == VISION_HEAD
    assert not any(parameter.requires_grad for parameter in student.head.ln_post.parameters())


def test_a_head_of_another_architecture_than_the_students_is_refused() -> None:
    student = built(replace(CONFIG, layers=(), cls_layer=1))
    with pytest.raises(InputError, match=r"64 numbers of \[CLS\] to 32, this student 64 to 64"):
        student.take_over({VISION_HEAD: torch.zeros(2 + 32, 64)})


def test_eva_and_video_models_are_read_by_the_names_that_they_use() -> None:
    head = {"visual.trunk.norm.weight": torch.ones(4), "visual.trunk.head.weight": torch.ones(2, 4)}
    found = openai_names(
        {**head, "visual.trunk.head.bias": torch.ones(2), "text.ln_final.bias": torch.ones(3)}
    )
    assert found["visual.proj"].shape == (4, 2)
    assert {"visual.ln_post.weight", "visual.proj_bias", "ln_final.bias"} <= set(found)
    with pytest.raises(InputError, match=r"weights without visual\.ln_post\.weight"):
        openai_names({"clip.visual.proj": torch.ones(2, 2)})


@pytest.mark.parametrize("way_in", [LIVE, TUNED])
def test_live_and_cached_layers_give_the_same_loss_and_gradients(way_in: str) -> None:
    live = trained_a_little(built(replace(CONFIG, way_in=way_in)))
    cached = built()
    cached.load_state_dict({name: live.state_dict()[name] for name in cached.state_dict()})
    batch = random_batch((PIXELS, "text"), SIZES, 4)
    pixels = torch.zeros(())

    def keep(_: torch.nn.Module, given: tuple) -> None:
        nonlocal pixels
        pixels = given[0]

    live.backbone.register_forward_pre_hook(keep)
    losses = side_network.losses(CONFIG)
    of_live = Task(live, losses, {"info_nce": 1.0})(batch)["loss"]
    of_live.backward()
    layers = live.backbone(pixels, (0, 1)).items()
    stored = {f"vit_layers/{number}": layer.detach().half().float() for number, layer in layers}
    of_cached = Task(cached, losses, {"info_nce": 1.0})({**batch, **stored})["loss"]
    of_cached.backward()
    assert of_cached.item() == pytest.approx(of_live.item(), abs=2e-3)
    for name, parameter in cached.side.named_parameters():
        other = live.side.get_parameter(name).grad
        assert torch.allclose(parameter.grad, other, atol=2e-3, rtol=2e-2), name
    trains = {parameter.grad is not None for parameter in live.backbone.parameters()}
    assert trains == ({True} if way_in == TUNED else {False})


def test_a_live_backbone_that_has_no_such_layer_is_refused() -> None:
    with pytest.raises(InputError, match="no layer 5: tiny has 2 blocks"):
        side_network.build(replace(CONFIG, layers=(0, 5), cls_layer=None, way_in=LIVE), SIZES)
    with pytest.raises(InputError, match="Identity is no vision transformer"):
        LiveLayers(torch.nn.Identity(), tuned=False)


PIXEL_SIZES = {PIXELS: {"M": 3, "Y": 32, "X": 32, "C": 3}}


def test_pooled_layers_make_a_coarser_side_network() -> None:
    whole, pooled = (side_sizes(CONFIG, {0: (tokens, 64)}, PIXEL_SIZES) for tokens in (17, 5))
    assert (whole.grid, whole.patch, whole.patches) == (4, 8, 16)
    assert (pooled.grid, pooled.patch, pooled.patches) == (2, 16, 4)


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ({0: (1, 64)}, "not \\[CLS\\] and a square"),
        ({0: (17, 64), 1: (5, 64)}, "hold \\[5, 17\\] tokens a frame"),
        ({0: (26, 64)}, "do not divide into 5 x 5 patches"),
    ],
)
def test_layers_that_can_not_be_used_are_refused_with_the_way_out(layers: dict, told: str) -> None:
    with pytest.raises(InputError, match=told) as raised:
        side_sizes(CONFIG, layers, PIXEL_SIZES)
    assert "dump" in str(raised.value)


@pytest.mark.parametrize(
    "wrong",
    [{"layers": (1, 0)}, {"layers": ()}, {"way_in": "cache"}, {"fusion": "third"}, {"label_smoothing": 1.0}],
)
def test_a_configuration_without_meaning_is_refused(wrong: dict) -> None:
    with pytest.raises(CacheError):
        Config(**wrong)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(InputError, match="3 attention heads"):
        side_sizes(replace(CONFIG, heads=3), {0: (17, 64)}, PIXEL_SIZES)


# Table 1: layers and width of the ViT, layers and width of the side network; appendix E for retrieval.
TABLE_1 = {
    "recognition-b16-light": (12, 6, 192),
    "recognition-b16": (12, 12, 320),
    "recognition-l14-light": (24, 12, 320),
    "recognition-l14": (24, 24, 512),
    "recognition-e14-light": (64, 32, 576),
    "retrieval-b16": (12, 12, 320),
    "retrieval-l14": (24, 24, 320),
    "retrieval-e14": (64, 32, 320),
}


@pytest.mark.parametrize(("name", "row"), TABLE_1.items())
def test_every_configuration_of_the_paper_is_a_recipe(name: str, row: tuple[int, int, int]) -> None:
    recipe = side_network.RECIPES[name]
    model, frozen = recipe.model, recipe.untaught_model
    assert (model.layers[-1] + 1, len(model.layers), model.width) == row
    assert frozen.architecture == model.architecture
    joint = {"b16": 512, "l14": 768, "e14": 1024}[name.split("-")[1]]
    assert joint_width(frozen.architecture) == joint, "as wide as what the baseline's [CLS] is projected to"
    # What stands behind the layers: of the cache, or of public weights, never random.
    assert frozen.starts_from or frozen.weights


# Table 2, tunable parameters in millions (TP), with SSV2's classifier.
TUNABLE = {
    "recognition-b16-light": (768, 16, 4),
    "recognition-b16": (768, 16, 21),
    "recognition-l14-light": (1024, 14, 22),
    "recognition-l14": (1024, 14, 102),
}


@pytest.mark.parametrize(("name", "told"), TUNABLE.items())
def test_tunable_parameters_are_those_of_table_2(name: str, told: tuple[int, int, int]) -> None:
    width, patch, millions = told
    model = side_network.RECIPES[name].model
    layers = dict.fromkeys(model.layers, (1 + (224 // patch) ** 2, width))
    with torch.device("meta"):
        sizes = side_sizes(model, layers, {PIXELS: {"M": 8, "Y": 224, "X": 224, "C": 3}})
        student = SideStudent(model, Parts(sizes, width, 512, classes=174))
    count = sum(parameter.numel() for parameter in student.parameters() if parameter.requires_grad) / 1e6
    assert count == pytest.approx(millions, abs=max(1, 0.06 * millions))


def test_mean_pooling_compares_the_mean_of_frames_with_the_sentence() -> None:
    student = built(replace(CONFIG, interaction=MEAN))
    found = student(random_batch(student.config.needs, SIZES, 3))
    sides = (found[f"{side}_embedding"] for side in ("video", "text"))
    video, text = (functional.normalize(side, dim=-1) for side in sides)
    assert torch.allclose(found["logits"].rows, 100 * video @ text.T, atol=1e-4)
