"""Losses against plain NumPy statements in float64, by gradient check, and at their edges."""

import numpy as np
import pytest
import torch

from student_train.losses.teachclip import (
    coarse_cross_entropy,
    coarse_huber,
    coarse_pearson,
    fine_cross_entropy_mean,
    fine_cross_entropy_sum,
    fine_huber,
    fine_pearson,
    info_nce,
    pearson_distance,
)
from student_train.rows import PairBlock


def logits(seed: int, size: int = 5) -> torch.Tensor:
    return 3 * torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def whole(loss, *blocks) -> torch.Tensor:
    """A loss of pair blocks, of one process that has all pairs: the mean over the batch."""
    return loss(*(block if block is None else PairBlock.whole(block) for block in blocks)).mean()


def softmax(row: np.ndarray) -> np.ndarray:
    return np.exp(row) / np.exp(row).sum()


def test_info_nce_is_the_mean_of_both_directions() -> None:
    matrix = logits(0).numpy()
    terms = [-np.log(softmax(side[i])[i]) for side in (matrix, matrix.T) for i in range(5)]
    assert whole(info_nce, torch.tensor(matrix)).item() == pytest.approx(np.mean(terms))


def test_an_ignored_pair_is_no_negative() -> None:
    ignored = torch.zeros(5, 5, dtype=torch.bool)
    ignored[0, 3] = True
    matrix = logits(1)
    loud = matrix.clone()
    loud[0, 3] = 50.0
    assert whole(info_nce, loud, ignored) == whole(info_nce, matrix, ignored)
    assert whole(info_nce, loud) > whole(info_nce, matrix) + 5


def plain_pearson(student: np.ndarray, teacher: np.ndarray, known: np.ndarray) -> float:
    total = 0.0
    for s, t, k in ((student, teacher, known), (student.T, teacher.T, known.T)):
        distances = [
            1 - np.corrcoef(softmax(s[i][k[i]]), softmax(t[i][k[i]]))[0, 1]
            for i in range(len(s))
            if k[i].sum() >= 2
        ]
        total += np.mean(distances)
    return total


def test_coarse_pearson_sums_both_directions() -> None:
    student, teacher = logits(2), logits(3)
    everything = np.ones((5, 5), bool)
    expected = plain_pearson(student.numpy(), teacher.numpy(), everything)
    assert whole(coarse_pearson, student, teacher).item() == pytest.approx(expected)
    assert whole(coarse_pearson, student, teacher, torch.tensor(everything)).item() == pytest.approx(expected)


def test_unknown_pairs_take_no_part_even_if_nan_stands_there() -> None:
    known = torch.rand(5, 5, generator=torch.Generator().manual_seed(4)) > 0.4
    known[2] = False
    student, teacher = logits(2).requires_grad_(), logits(3)
    expected = plain_pearson(student.detach().numpy(), teacher.numpy(), known.numpy())
    loss = whole(coarse_pearson, student, teacher.masked_fill(~known, torch.nan), known)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert torch.equal(student.grad[~known], torch.zeros(int((~known).sum()), dtype=torch.float64))


def test_a_teacher_that_knows_nothing_teaches_nothing() -> None:
    student = logits(2).requires_grad_()
    loss = whole(coarse_pearson, student, torch.full((5, 5), torch.nan), torch.zeros(5, 5, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not student.grad.any()


def test_a_teacher_without_any_preference_leaves_distance_one_and_no_gradient() -> None:
    student = logits(2).requires_grad_()
    loss = whole(coarse_pearson, student, torch.zeros(5, 5, dtype=torch.float64))
    loss.backward()
    assert loss.item() == pytest.approx(2)
    assert torch.isfinite(student.grad).all()


def test_pearson_distance_ignores_scale_and_location() -> None:
    first, second = logits(5), logits(6)
    assert torch.allclose(pearson_distance(first, second), pearson_distance(first, 4 * second + 3))
    assert torch.allclose(pearson_distance(first, 2 * first - 1), torch.zeros(5, dtype=torch.float64))


def test_fine_cross_entropy_is_summed_in_the_paper_and_averaged_over_frames_in_the_code() -> None:
    log_weight, relevance = logits(7).log_softmax(-1), logits(8).softmax(-1)
    plain = -np.mean([np.sum(relevance[i].numpy() * log_weight[i].numpy()) for i in range(5)])
    assert fine_cross_entropy_sum(log_weight, relevance).mean().item() == pytest.approx(plain)
    assert fine_cross_entropy_mean(log_weight, relevance).mean().item() == pytest.approx(plain / 5)


def test_a_missing_frame_is_not_taught_even_if_its_weight_is_zero() -> None:
    valid = torch.ones(5, 5, dtype=torch.bool)
    valid[0, 4] = False
    score = logits(9).masked_fill(~valid, -torch.inf).requires_grad_()
    relevance = logits(8).masked_fill(~valid, -torch.inf).softmax(-1)
    loss = fine_cross_entropy_mean(score.log_softmax(-1), relevance, valid).mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert score.grad[0, 4] == 0


@pytest.mark.parametrize("known", [None, torch.rand(4, 4, generator=torch.Generator().manual_seed(1)) > 0.2])
def test_gradients_agree_with_finite_differences(known: torch.Tensor | None) -> None:
    teacher, relevance = logits(10, 4), logits(11, 4).softmax(-1)
    student = logits(12, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: whole(coarse_pearson, x, teacher, known), student)
    assert torch.autograd.gradcheck(
        lambda x: fine_cross_entropy_sum(x.log_softmax(-1), relevance).mean(), student
    )
    assert torch.autograd.gradcheck(lambda x: whole(info_nce, x), student)


def huber(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    apart = np.abs(first - second)
    return np.where(apart < 1, apart**2 / 2, apart - 0.5)


KNOWN = torch.rand(5, 5, generator=torch.Generator().manual_seed(4)) > 0.3


@pytest.mark.parametrize("known", [None, KNOWN])
def test_coarse_cross_entropy_is_averaged_over_entries_and_summed_over_directions(known) -> None:
    student, teacher = logits(2).numpy(), logits(3).numpy()
    there = np.ones((5, 5), bool) if known is None else known.numpy()
    expected = 0.0
    for s, t, k in ((student, teacher, there), (student.T, teacher.T, there.T)):
        rows = [
            -np.mean(softmax(t[i][k[i]]) * np.log(softmax(s[i][k[i]]))) for i in range(5) if k[i].sum() >= 2
        ]
        expected += np.mean(rows)
    blind = logits(3) if known is None else logits(3).masked_fill(~known, torch.nan)
    assert whole(coarse_cross_entropy, logits(2), blind, known).item() == pytest.approx(expected)


@pytest.mark.parametrize("known", [None, KNOWN])
def test_coarse_huber_compares_raw_logits_once_a_pair(known) -> None:
    entries = huber(logits(2).numpy(), logits(3).numpy())
    there = np.ones((5, 5), bool) if known is None else known.numpy()
    expected = np.mean([entries[i][there[i]].mean() for i in range(5) if there[i].any()])
    blind = logits(3) if known is None else logits(3).masked_fill(~known, torch.nan)
    assert whole(coarse_huber, logits(2), blind, known).item() == pytest.approx(expected)


def test_fine_pearson_and_huber_compare_frame_weights_of_frames_that_exist() -> None:
    weight, relevance = logits(7).softmax(-1), logits(8).softmax(-1)
    valid = torch.ones(5, 5, dtype=torch.bool)
    valid[0, 3:] = False
    valid[1, 1:] = False
    w, r, v = weight.numpy(), relevance.numpy(), valid.numpy()
    distances = [1 - np.corrcoef(w[i][v[i]], r[i][v[i]])[0, 1] for i in (0, 2, 3, 4)]
    assert fine_pearson(weight, relevance, valid).mean().item() == pytest.approx(np.mean(distances))
    expected = (huber(w, r) * v).mean()
    assert fine_huber(weight, relevance, valid).mean().item() == pytest.approx(expected)
    full = [1 - np.corrcoef(w[i], r[i])[0, 1] for i in range(5)]
    assert fine_pearson(weight, relevance).mean().item() == pytest.approx(np.mean(full))
    assert fine_huber(weight, relevance).mean().item() == pytest.approx(huber(w, r).mean())


def test_a_video_with_one_frame_tells_pearson_nothing() -> None:
    weight = logits(7)[:1].softmax(-1).requires_grad_()
    valid = torch.tensor([[True, False, False, False, False]])
    found = fine_pearson(weight, logits(8)[:1].softmax(-1), valid)
    found.mean().backward()
    assert found.counts.tolist() == [False]
    assert not weight.grad.any()


@pytest.mark.parametrize("known", [None, torch.rand(4, 4, generator=torch.Generator().manual_seed(1)) > 0.2])
def test_gradients_of_the_other_methods_agree_with_finite_differences(known) -> None:
    student, teacher = logits(12, 4).requires_grad_(), logits(10, 4)
    relevance = logits(11, 4).softmax(-1)
    for coarse in (coarse_cross_entropy, coarse_huber):
        assert torch.autograd.gradcheck(lambda x, f=coarse: whole(f, x, teacher, known), student)
    for fine in (fine_pearson, fine_huber):
        assert torch.autograd.gradcheck(lambda x, f=fine: f(x.softmax(-1), relevance).mean(), student)
