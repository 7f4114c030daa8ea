"""MCAD's student: its size, what its teachers move, its two layouts of judged pairs, and what is refused."""

from dataclasses import replace

import pytest
import torch

from store.errors import InputError, UnknownNameError
from student_train import dual_student
from student_train.dual_student import FEATURES, FRAMES, PLANNED, TOPK, Config, cosine_block, of_batch
from student_train.losses import mcad as equations
from student_train.needs import FRAME_VALID, PAIR_SCORES, PIXELS, TEXT
from student_train.rows import PairBlock
from student_train.students import mcad
from student_train.students.base import LossTerm, Task
from student_train.teacher_integration import FUSION_PAIRS, MATCHED, MEAN_TOPK
from student_train.text_towers import ALBERT
from tests.contracts.student_contract import random_batch

LIGHT, SIZES = mcad.tiny()
TINY = replace(LIGHT, way_in=FRAMES, integrate=False)
PAIRS = 5


def task_of(config: Config, *losses: str) -> Task:
    torch.manual_seed(0)
    config = mcad.taught_by(replace(mcad.MCAD, model=config), losses).model
    return Task(mcad.build(config, SIZES), mcad.losses(config), dict.fromkeys(losses, 1.0))


def millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def of_recipe(name: str) -> dual_student.DualStudent:
    """As it is used: without the module that only teaching needs, in CLIP ViT-L/14's width."""
    config = replace(mcad.RECIPES[name].model, integrate=False, vocabulary="vocab.txt")
    sizes = {PIXELS: {"M": 1, "Y": 224, "X": 224, "C": 3}, "text_embedding": {"D": 768}}
    with torch.device("meta"):
        return mcad.build(config, sizes)


@pytest.fixture(autouse=True)
def no_vocabulary_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("student_train.text_towers.bert_tokenizer", lambda vocabulary, words: None)


def test_the_towers_have_the_papers_size() -> None:
    """Section 4.3: 11.19 and 14.71 million parameters; Table 3's pair: 5.5 and 12.2 million."""
    student, other = of_recipe("mcad"), of_recipe("mcad-albert")
    assert millions(student.vision) == pytest.approx(11.19, rel=0.1)
    assert millions(student.text) == pytest.approx(14.71, rel=0.02)
    assert millions(other.vision) == pytest.approx(5.5, rel=0.1)
    assert millions(other.text) == pytest.approx(12.2, rel=0.05)


def test_planned_and_looked_up_pairs_teach_the_same_where_all_are_known() -> None:
    """The k best by the dual stream: stored for the batch, or found in it and looked up among all pairs."""
    generator = torch.Generator().manual_seed(0)
    dual, odds = (3 * torch.randn(PAIRS, PAIRS, generator=generator) for _ in range(2))
    batch: dict = {PAIR_SCORES: PairBlock.whole(dual)}
    for of, ranked, said in (("text", dual, odds), ("video", dual.T, odds.T)):
        index = ranked.argsort(-1, descending=True)[:, :4]
        batch[of_batch(f"{of}_index")] = index
        batch[of_batch(f"{of}_score")] = said.gather(-1, index) / 2
        batch[of_batch(f"{of}_mismatch")] = -said.gather(-1, index) / 2
    batch[mcad.JUDGED] = PairBlock.whole(torch.sigmoid(odds))
    batch[mcad.JUDGED_KNOWN] = PairBlock.whole(torch.ones(PAIRS, PAIRS, dtype=torch.bool))
    logits = PairBlock.whole(torch.randn(PAIRS, PAIRS, generator=generator))
    for k in (2, 3, 4):
        first, second = (
            equations.single_stream(logits, mcad.single_stream_of(batch, replace(TINY, k=k, pairs=pairs)))
            for pairs in (PLANNED, TOPK)
        )
        assert torch.allclose(first.values, second.values, atol=1e-6)


@pytest.mark.parametrize("fusion_pairs", FUSION_PAIRS)
def test_the_fused_cls_moves_the_integrated_vectors_and_not_the_students(fusion_pairs: str) -> None:
    task = task_of(replace(LIGHT, fusion_pairs=fusion_pairs), "multi_teacher")
    batch = random_batch(task.needs, SIZES, PAIRS)
    batch[of_batch("text_index")][:, 0] = torch.arange(PAIRS)
    first = task.student(batch)
    for of in ("text", "video"):
        batch[of_batch(f"{of}_fused_cls")] += 1
    second = task.student(batch)
    assert torch.equal(first["video_embedding"], second["video_embedding"])
    assert (first["fused_video"] - second["fused_video"]).norm(dim=-1).min() > 1e-4
    assert (first["fused_text"] - second["fused_text"]).norm(dim=-1).min() > 1e-4


def test_a_pair_that_is_in_no_shortlist_leaves_the_dual_streams_vectors_alone() -> None:
    """Equation 12's gate, of the matched pairs."""
    task = task_of(replace(LIGHT, fusion_pairs=MATCHED), "multi_teacher")
    batch = random_batch(task.needs, SIZES, PAIRS)
    for of in ("text", "video"):
        batch[of_batch(f"{of}_index")] = (torch.arange(PAIRS)[:, None] + torch.arange(1, 5)) % PAIRS
    first = task.student(batch)
    batch[of_batch("text_fused_cls")] += 1
    assert torch.equal(first["fused_video"], task.student(batch)["fused_video"])
    assert torch.equal(first["fused_text"], task.student(batch)["fused_text"])


def test_pairs_beyond_k_teach_nothing() -> None:
    task = task_of(replace(LIGHT, k=2, fusion_pairs=MEAN_TOPK), "multi_teacher", "multi_teacher_features")
    batch = random_batch(task.needs, SIZES, PAIRS)
    loss = task(batch)["loss"]
    for of in ("text", "video"):
        for part in ("score", "fused_cls"):
            batch[of_batch(f"{of}_{part}")][:, 2:] += 1
    assert torch.equal(task(batch)["loss"], loss)
    batch[of_batch("text_score")][:, 1] += 1
    assert not torch.equal(task(batch)["loss"], loss)


def test_features_are_aligned_at_the_mean_temperature_across_both_models() -> None:
    task = task_of(LIGHT, "dual_stream_features")
    batch = random_batch(task.needs, SIZES, PAIRS)
    outputs = task.student(batch)
    scale = 2 / (1 / outputs["logit_scale"][0] + 1 / batch["logit_scale"])
    video, text = dual_student.dual_vectors(batch, LIGHT)
    expected = sum(
        equations.dual_stream(cosine_block(*pair, scale), batch[PAIR_SCORES]).mean()
        for pair in ((outputs["video_embedding"], text), (video, outputs["text_embedding"]))
    )
    assert torch.allclose(task(batch)["dual_stream_features"], expected)


def test_the_regularising_term_trains_the_integration_and_not_the_student() -> None:
    """Equation 8: without its second term nothing of the integration has a gradient."""
    task = task_of(LIGHT, "multi_teacher")
    task(random_batch(task.needs, SIZES, PAIRS))["loss"].backward()
    student, integration = task.student, task.student.integration
    assert integration.alpha.grad.abs() > 0
    with_both = [parameter.grad.clone() for parameter in student.vision.parameters()]
    alone = task_of(LIGHT, "multi_teacher")
    batch = random_batch(alone.needs, SIZES, PAIRS)
    logits = alone.student(batch)["logits"]
    equations.multi_teacher(logits, batch[PAIR_SCORES], mcad.single_stream_of(batch, LIGHT)).mean().backward()
    for found, parameter in zip(with_both, alone.student.vision.parameters(), strict=True):
        assert torch.allclose(found, parameter.grad, atol=1e-6)


def test_a_missing_frame_is_not_looked_at() -> None:
    torch.manual_seed(0)
    student = mcad.build(TINY, SIZES).eval()
    batch = random_batch(student.config.needs, SIZES, 2)
    other = {**batch, PIXELS: batch[PIXELS].clone()}
    other[PIXELS][~batch[FRAME_VALID]] = 255
    assert torch.equal(student(batch)["video_embedding"], student(other)["video_embedding"])


def test_crops_are_drawn_in_training_alone_and_from_the_generator_that_is_saved() -> None:
    torch.manual_seed(0)
    student = mcad.build(replace(TINY, crop_area=0.2), SIZES)
    batch = random_batch(student.config.needs, SIZES, 2)
    student.eval()
    assert torch.equal(
        student.encode_videos(batch)["video_embedding"], student.encode_videos(batch)["video_embedding"]
    )
    student.train()
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append(student.encode_videos(batch)["video_embedding"])
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_crops_are_refused_beside_a_signal_of_places() -> None:
    """By the signal's declaration, so for any loss that somebody adds."""
    student = mcad.build(replace(TINY, crop_area=0.2), SIZES)
    terms = mcad.losses(student.config)
    for signal in ("text_embedding", "frame_embedding", PAIR_SCORES, of_batch("text_fused_cls"), TEXT):
        Task(student, {"other": replace(terms["ground_truth"], needs=(signal,))}, {"other": 1.0})
    of_places = {"other": LossTerm(terms["ground_truth"].function, ("logits",), ("vit_layers/3",))}
    with pytest.raises(InputError, match="cropped"):
        Task(student, of_places, {"other": 1.0})


def test_fewer_judged_pairs_than_k_are_refused() -> None:
    task = task_of(replace(LIGHT, k=5), "single_stream")
    with pytest.raises(InputError, match="k = 5"):
        task(random_batch(task.needs, SIZES, PAIRS))


def test_a_single_stream_teacher_without_fused_cls_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match="--fused-cls"):
        mcad.build(replace(LIGHT, integrate=True), {"text_embedding": {"D": 16}})


@pytest.mark.parametrize(
    "wrong", [{"way_in": "pixels"}, {"text": "bert"}, {"pairs": "all"}, {"fusion_pairs": "first"}]
)
def test_a_choice_that_is_not_there_is_refused(wrong: dict) -> None:
    with pytest.raises(UnknownNameError):
        Config(**wrong)


@pytest.mark.parametrize("wrong", [{"k": 1}, {"crop_area": 0.0}, {"crop_area": 0.5, "way_in": FEATURES}])
def test_a_configuration_without_meaning_is_refused(wrong: dict) -> None:
    with pytest.raises(InputError):
        Config(**wrong)


def test_the_other_pair_of_towers_learns_from_the_same_losses() -> None:
    config = mcad.small(replace(mcad.RECIPES["mcad-albert"].model, crop_area=None))
    assert config.text == ALBERT
    task = task_of(config, "multi_teacher", "multi_teacher_features")
    loss = task(random_batch(task.needs, SIZES, PAIRS))["loss"]
    loss.backward()
    assert torch.isfinite(loss)


def test_the_rows_of_table_1_are_recipes_and_the_k_of_table_4() -> None:
    for row in mcad.ABLATION:
        name = "mcad" if row.label == "MT+MT_FA" else f"mcad-{row.folder}"
        assert set(mcad.RECIPES[name].losses) == set(row.losses)
    assert [mcad.RECIPES[name].model.k for name in ("mcad-k5", "mcad", "mcad-k17")] == [5, 11, 17]
