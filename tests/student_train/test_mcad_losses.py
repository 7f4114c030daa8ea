"""MCAD's losses and its integration against plain NumPy statements in float64, by gradients, at edges."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import InputError
from student_train.losses import mcad
from student_train.losses.mcad import Shortlist, SingleStream
from student_train.rows import PairBlock
from student_train.teacher_integration import FusedPairs, TeacherIntegration, matched_pairs

PAIRS, K, WIDE = 5, 3, 4


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum()


def kl(target: np.ndarray, output: np.ndarray) -> float:
    return float(sum(t * np.log(t / o) for t, o in zip(target, output, strict=True) if t > 0))


def shortlist(seed: int, scores: torch.Tensor, k: int = K) -> Shortlist:
    probability = torch.sigmoid(2 * random(seed, PAIRS, k))
    return Shortlist(mcad.best_places(scores, k), probability)


@pytest.fixture
def dual() -> torch.Tensor:
    return 3 * random(1, PAIRS, PAIRS)


@pytest.fixture
def single(dual: torch.Tensor) -> SingleStream:
    return SingleStream(shortlist(2, dual), shortlist(3, dual.T))


def of_dual_stream(student: np.ndarray, dual: np.ndarray) -> float:
    return float(np.mean([kl(softmax(t), softmax(s)) for s, t in zip(student, dual, strict=True)]))


def of_shortlist(student: np.ndarray, dual: np.ndarray, probability: np.ndarray) -> float:
    """Equations 1, 5, 11 and 16 word by word: a softmax over all, its k best by the teacher, L1."""
    found = []
    for row, ranked, said in zip(student, dual, probability, strict=True):
        places = np.argsort(-ranked)[: len(said)]
        output = softmax(row)[places]
        found.append(kl(said / said.sum(), output / output.sum()))
    return float(np.mean(found))


def of_multi_teacher(student: np.ndarray, dual: np.ndarray, single: SingleStream) -> float:
    return (
        of_dual_stream(student, dual)
        + of_dual_stream(student.T, dual.T)
        + of_shortlist(student, dual, single.texts.probability.numpy())
        + of_shortlist(student.T, dual.T, single.videos.probability.numpy())
    )


def test_the_ground_truth_is_the_divergence_from_the_identity() -> None:
    student = random(0, PAIRS, PAIRS)
    expected = sum(
        np.mean([kl(one, softmax(row)) for one, row in zip(np.eye(PAIRS), rows, strict=True)])
        for rows in (student.numpy(), student.T.numpy())
    )
    assert mcad.ground_truth(PairBlock.whole(student)).mean().item() == pytest.approx(expected)


def test_dual_stream_distillation_is_equation_15(dual: torch.Tensor) -> None:
    student = random(0, PAIRS, PAIRS)
    expected = of_dual_stream(student.numpy(), dual.numpy()) + of_dual_stream(
        student.T.numpy(), dual.T.numpy()
    )
    found = mcad.dual_stream(PairBlock.whole(student), PairBlock.whole(dual)).mean().item()
    assert found == pytest.approx(expected)


def test_single_stream_distillation_is_equation_16(dual: torch.Tensor, single: SingleStream) -> None:
    student = random(0, PAIRS, PAIRS)
    expected = of_shortlist(student.numpy(), dual.numpy(), single.texts.probability.numpy())
    expected += of_shortlist(student.T.numpy(), dual.T.numpy(), single.videos.probability.numpy())
    assert mcad.single_stream(PairBlock.whole(student), single).mean().item() == pytest.approx(expected)


def test_multi_teacher_distillation_is_equation_10(dual: torch.Tensor, single: SingleStream) -> None:
    student = random(0, PAIRS, PAIRS)
    found = mcad.multi_teacher(PairBlock.whole(student), PairBlock.whole(dual), single)
    assert found.values.shape == (PAIRS, 4)
    assert found.mean().item() == pytest.approx(of_multi_teacher(student.numpy(), dual.numpy(), single))


def test_gradients_of_every_loss_are_those_of_finite_differences(
    dual: torch.Tensor, single: SingleStream
) -> None:
    student = random(4, PAIRS, PAIRS).requires_grad_()
    known = torch.rand(PAIRS, K, generator=torch.Generator().manual_seed(5)) > 0.3
    partly = Shortlist(single.texts.place, single.texts.probability, known)

    def losses(logits: torch.Tensor) -> torch.Tensor:
        block = PairBlock.whole(logits)
        return (
            mcad.multi_teacher(block, PairBlock.whole(dual), single).mean()
            + mcad.single_stream(block, SingleStream(partly, single.videos)).mean()
            + mcad.ground_truth(block).mean()
        )

    assert torch.autograd.gradcheck(losses, (student,))


def test_strips_of_two_processes_add_up_to_the_whole(dual: torch.Tensor, single: SingleStream) -> None:
    student = random(0, PAIRS, PAIRS)
    whole = mcad.multi_teacher(PairBlock.whole(student), PairBlock.whole(dual), single)
    parts = []
    for own in (slice(0, 2), slice(2, PAIRS)):
        block, taught = (PairBlock(b[own], b[:, own], own.start) for b in (student, dual))
        said = (Shortlist(way.place[own], way.probability[own]) for way in (single.texts, single.videos))
        parts.append(mcad.multi_teacher(block, taught, SingleStream(*said)).values)
    assert torch.allclose(torch.cat(parts), whole.values)


def test_the_appendix_c_example_keeps_its_ratios() -> None:
    found, says_something = mcad.shares(torch.tensor([[0.8, 0.4, 0.2]]))
    assert found[0].tolist() == pytest.approx([0.571, 0.286, 0.143], abs=1e-3)
    assert says_something.tolist() == [True]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(1e-4, 1), min_size=2, max_size=6), st.floats(0.01, 100))
def test_shares_sum_to_one_and_do_not_depend_on_the_height_of_the_scores(said: list, factor: float) -> None:
    row = torch.tensor([said], dtype=torch.float64)
    found, _ = mcad.shares(row)
    assert found.sum().item() == pytest.approx(1)
    assert torch.allclose(mcad.shares(factor * row)[0], found)


def test_logits_in_the_place_of_probabilities_are_refused() -> None:
    with pytest.raises(InputError, match="no probability"):
        mcad.shares(torch.tensor([[2.0, -1.0]]))


def test_a_pair_that_was_not_scored_has_no_part_in_the_loss(dual: torch.Tensor) -> None:
    student, places = random(0, PAIRS, PAIRS), mcad.best_places(dual, K)
    probability = torch.sigmoid(random(2, PAIRS, K))
    known = torch.tensor([[True, True, False]] * PAIRS)
    said = mcad.shortlist_divergence(student, Shortlist(places, probability, known))
    of_two = mcad.shortlist_divergence(student, Shortlist(places[:, :2], probability[:, :2]))
    assert torch.allclose(said.values, of_two.values)


def test_a_row_with_fewer_than_two_scored_pairs_says_nothing_and_has_finite_gradients(
    dual: torch.Tensor,
) -> None:
    student = random(0, PAIRS, PAIRS).requires_grad_()
    known = torch.zeros(PAIRS, K, dtype=torch.bool)
    known[0, 0] = True
    known[2, :2] = True
    probability = torch.sigmoid(random(2, PAIRS, K))
    said = mcad.shortlist_divergence(student, Shortlist(mcad.best_places(dual, K), probability, known))
    assert said.counts is not None
    assert said.counts.tolist() == [False, False, True, False, False]
    said.mean().backward()
    assert torch.isfinite(student.grad).all()
    assert not student.grad[[0, 1, 3, 4]].any()


def test_scores_that_are_all_zero_say_nothing() -> None:
    found, says_something = mcad.shares(torch.zeros(2, 3))
    assert torch.isfinite(found).all()
    assert not says_something.any()


def test_more_best_than_pairs_are_refused(dual: torch.Tensor) -> None:
    with pytest.raises(InputError, match="lower k"):
        mcad.best_places(dual, PAIRS + 1)


def test_the_scale_of_two_temperatures_is_that_of_their_mean() -> None:
    found = mcad.mean_temperature_scale(torch.tensor(1 / 0.07), torch.tensor(1 / 0.01))
    assert found.item() == pytest.approx(1 / 0.04)


# The integration module


def relu_mlp(layers: torch.nn.Module, value: np.ndarray) -> np.ndarray:
    first, _, second = layers
    hidden = np.maximum(value @ first.weight.detach().numpy().T + first.bias.detach().numpy(), 0)
    return hidden @ second.weight.detach().numpy().T + second.bias.detach().numpy()


@pytest.fixture
def integration() -> TeacherIntegration:
    torch.manual_seed(0)
    module = TeacherIntegration(WIDE, 2, 3, logit_scale=10.0).double()
    torch.nn.init.constant_(module.alpha, 0.7)
    return module


def test_integrated_vectors_are_those_of_equations_12_and_13(integration: TeacherIntegration) -> None:
    video, text, fused = random(0, PAIRS, WIDE), random(1, PAIRS, WIDE), random(2, PAIRS, K, 2)
    there = torch.tensor([[True, True, False]] * (PAIRS - 1) + [[False] * 3])
    found = integration(video, text, FusedPairs(fused, there), FusedPairs(2 * fused, there))
    ways = (
        (video, fused, integration.video, integration.video_of_pair),
        (text, 2 * fused, integration.text, integration.text_of_pair),
    )
    for ours, (own, pairs, of_row, of_pair) in zip(found, ways, strict=True):
        for row in range(PAIRS):
            expected = relu_mlp(of_row, own[row].numpy())
            if there[row].any():
                expected += 0.7 * relu_mlp(of_pair, pairs[row, :2].numpy()).mean(0)
            expected /= np.linalg.norm(expected)
            np.testing.assert_allclose(ours[row].detach().numpy(), expected)


def test_gradients_reach_both_sides_and_alpha(integration: TeacherIntegration) -> None:
    video, text = (random(seed, 2, WIDE).requires_grad_() for seed in (0, 1))
    fused = random(2, 2, 1, 2).requires_grad_()
    there = torch.ones(2, 1, dtype=torch.bool)

    def run(
        video: torch.Tensor, text: torch.Tensor, fused: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return integration(video, text, FusedPairs(fused, there), FusedPairs(fused, there))

    assert torch.autograd.gradcheck(run, (video, text, fused))
    sum(side.sum() for side in run(video, text, fused)).backward()
    assert integration.alpha.grad.abs() > 0


def test_a_matched_pair_is_found_in_either_direction_and_missed_in_neither() -> None:
    own = torch.tensor([2, 3, 4])
    texts = torch.tensor([[2, 0], [1, 0], [0, 1]]), torch.arange(6.0).view(3, 2, 1)
    videos = torch.tensor([[9, 2], [0, 3], [0, 1]]), 10 + torch.arange(6.0).view(3, 2, 1)
    found = matched_pairs(own, texts, videos)
    assert found.there[:, 0].tolist() == [True, True, False]
    assert found.features[:, 0, 0].tolist() == [0.0, 13.0, 0.0]
