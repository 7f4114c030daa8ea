"""CLIPPING's losses against plain NumPy statements in float64, by gradient check, and at their edges."""

import numpy as np
import pytest
import torch

from store.errors import InputError
from student_train.losses.clipping import (
    PLACES,
    WIDTH,
    distribution_divergence,
    feature_divergence,
    frame_divergence,
    local_similarity,
)
from student_train.losses.layers import (
    COSINE,
    PRODUCT,
    SCALED,
    LayerOptions,
    even_pairs,
    one_layer_to_one,
    sequential_mask,
    student_as_base,
    teacher_as_base,
)
from student_train.rows import PairBlock

VIDEOS, FRAMES, TEACHER, STUDENT, PATCHES, WIDE = 2, 3, 4, 3, 4, 5
BORDERS = ((1, 1), (3, 2))


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum()


def kl(student: np.ndarray, teacher: np.ndarray) -> float:
    s, t = softmax(student), softmax(teacher)
    return float(np.sum(t * np.log(t / s)))


@pytest.fixture
def valid() -> torch.Tensor:
    return torch.tensor([[True, True, True], [True, False, True]])


def test_a_video_without_difference_costs_nothing_and_any_other_something(valid: torch.Tensor) -> None:
    features = random(0, VIDEOS, FRAMES, WIDE)
    for axis in (WIDTH, PLACES):
        assert frame_divergence(features, features, valid, axis).mean().item() == pytest.approx(0, abs=1e-12)
        assert frame_divergence(features, 2 * features, valid, axis).mean().item() > 1e-3


def test_frames_are_distributions_over_their_width(valid: torch.Tensor) -> None:
    student, teacher = random(1, VIDEOS, FRAMES, WIDE), random(2, VIDEOS, FRAMES, WIDE)
    expected = [
        np.mean([kl(student[b, m].numpy() / 2, teacher[b, m].numpy() / 2) for m in np.flatnonzero(valid[b])])
        for b in range(VIDEOS)
    ]
    assert frame_divergence(student, teacher, valid, temperature=2.0).values.tolist() == pytest.approx(
        expected
    )


def test_the_other_axis_compares_each_channel_over_the_frames_that_exist(valid: torch.Tensor) -> None:
    student, teacher = random(1, VIDEOS, FRAMES, WIDE), random(2, VIDEOS, FRAMES, WIDE)
    expected = [
        np.mean([kl(student[b, valid[b], d].numpy(), teacher[b, valid[b], d].numpy()) for d in range(WIDE)])
        for b in range(VIDEOS)
    ]
    assert frame_divergence(student, teacher, valid, PLACES).values.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("axis", [WIDTH, PLACES])
def test_a_video_without_frames_says_nothing(axis: str, valid: torch.Tensor) -> None:
    student = random(1, VIDEOS, FRAMES, WIDE).requires_grad_()
    valid[1] = False
    found = frame_divergence(student, random(2, VIDEOS, FRAMES, WIDE), valid, axis)
    found.mean().backward()
    assert found.counts.tolist() == [True, False]
    assert found.values[1] == 0
    assert torch.isfinite(student.grad).all()
    assert not student.grad[1].any()


def test_the_axis_of_a_divergence_is_one_that_there_is() -> None:
    with pytest.raises(InputError, match="'width', 'places'"):
        feature_divergence(
            random(0, 1, 1, 2), random(0, 1, 1, 2), torch.ones(1, 1, dtype=torch.bool), "depth"
        )


@pytest.mark.parametrize("known", [None, torch.rand(4, 4, generator=torch.Generator().manual_seed(4)) > 0.3])
def test_global_distributions_are_compared_in_both_directions(known: torch.Tensor | None) -> None:
    student, teacher = 3 * random(3, 4, 4), 3 * random(4, 4, 4)
    there = np.ones((4, 4), bool) if known is None else known.numpy()
    expected = 0.0
    for s, t, k in (
        (student.numpy(), teacher.numpy(), there),
        (student.numpy().T, teacher.numpy().T, there.T),
    ):
        rows = [kl(s[i][k[i]], t[i][k[i]]) for i in range(4) if k[i].sum() >= 2]
        expected += np.mean(rows)
    block = None if known is None else PairBlock.whole(known)
    if known is not None:
        teacher = teacher.masked_fill(~known, torch.nan)
    found = distribution_divergence(PairBlock.whole(student), PairBlock.whole(teacher), block)
    assert found.mean().item() == pytest.approx(expected)


def test_pairs_that_nobody_knows_get_no_gradient() -> None:
    known = torch.ones(4, 4, dtype=torch.bool)
    known[2, :] = known[0, 1] = False
    student = random(3, 4, 4).requires_grad_()
    teacher = random(4, 4, 4).masked_fill(~known, torch.nan)
    blocks = [PairBlock.whole(value) for value in (student, teacher, known)]
    distribution_divergence(*blocks).mean().backward()
    assert torch.isfinite(student.grad).all()
    assert not student.grad[~known].any()


def test_local_similarity_averages_the_best_match_of_what_exists(valid: torch.Tensor) -> None:
    frames, words = random(5, VIDEOS, FRAMES, WIDE), random(6, 3, 4, WIDE)
    word_valid = torch.tensor(
        [[True, True, False, False], [True, True, True, True], [True, False, False, False]]
    )
    to_text, to_video = local_similarity(frames, valid, words, word_valid)
    for v in range(VIDEOS):
        for t in range(3):
            f, w = frames[v, valid[v]].numpy(), words[t, word_valid[t]].numpy()
            f, w = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (f, w))
            assert to_text[v, t].item() == pytest.approx((f @ w.T).max(1).mean())
            assert to_video[v, t].item() == pytest.approx((f @ w.T).max(0).mean())


def test_local_similarity_of_nothing_is_zero(valid: torch.Tensor) -> None:
    valid[0] = False
    nobody = torch.zeros(2, 4, dtype=torch.bool)
    nobody[0] = True
    found = local_similarity(random(5, VIDEOS, FRAMES, WIDE), valid, random(6, 2, 4, WIDE), nobody)
    for similarity in found:
        assert similarity[0].tolist() == [0, 0]
        assert similarity[1, 1] == 0
        assert similarity[1, 0] != 0


def test_the_mask_of_figure_4_is_that_of_equation_7() -> None:
    mask = sequential_mask(4, 4, ((1, 2), (3, 3)))
    assert mask.int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert sequential_mask(3, 2, ()).all()


@pytest.mark.parametrize(
    "borders", [((0, 1),), ((1, 0),), ((4, 1),), ((1, 3),), ((2, 1), (2, 2)), ((2, 2), (3, 1))]
)
def test_borders_that_do_not_ascend_within_the_layers_are_refused(borders: tuple) -> None:
    with pytest.raises(InputError, match="ascend"):
        sequential_mask(TEACHER, STUDENT, borders)


def plain_weights(
    asking: np.ndarray, base: np.ndarray, mask: np.ndarray, options: LayerOptions
) -> np.ndarray:
    """[A, C] of one token: layers asking [A, D], base [C, D]."""
    if options.similarity == COSINE:
        asking, base = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (asking, base))
    similarity = asking @ base.T / (np.sqrt(WIDE) if options.similarity == SCALED else 1)
    weights = np.zeros(mask.shape)
    for a in range(len(mask)):
        if options.masking == PRODUCT:
            weights[a] = softmax(similarity[a] * mask[a])
        else:
            weights[a, mask[a]] = softmax(similarity[a][mask[a]])
    return weights


def plain_layers(student, teacher, valid, mask, options: LayerOptions, teacher_is_base: bool) -> list[float]:
    found = []
    for b in range(VIDEOS):
        terms = []
        for m in np.flatnonzero(valid[b]):
            made, told = [], []
            for p in range(PATCHES):
                s, t = student[b, m, :, p].numpy(), teacher[b, m, :, p].numpy()
                if teacher_is_base:
                    made.append(s)
                    told.append(plain_weights(s, t, mask.T, options) @ t)
                else:
                    made.append(plain_weights(t, s, mask, options) @ s)
                    told.append(t)
            made, told = (np.stack(x) / options.temperature for x in (made, told))
            if options.axis == PLACES:
                made, told = made.transpose(2, 1, 0), told.transpose(2, 1, 0)
            terms += [kl(made[x, y], told[x, y]) for x in range(made.shape[0]) for y in range(made.shape[1])]
        found.append(np.mean(terms))
    return found


@pytest.fixture
def layers() -> tuple[torch.Tensor, torch.Tensor]:
    return random(7, VIDEOS, FRAMES, STUDENT, PATCHES, WIDE), random(
        8, VIDEOS, FRAMES, TEACHER, PATCHES, WIDE
    )


OPTIONS = [
    LayerOptions(),
    LayerOptions(masking=PRODUCT),
    LayerOptions(similarity=SCALED, temperature=2.0),
    LayerOptions(similarity=COSINE, axis=PLACES),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("borders", [(), BORDERS])
def test_layers_are_compared_as_the_equations_say(
    layers, valid, options: LayerOptions, borders: tuple
) -> None:
    mask = sequential_mask(TEACHER, STUDENT, borders)
    for function, teacher_is_base in ((student_as_base, False), (teacher_as_base, True)):
        expected = plain_layers(*layers, valid, mask.numpy(), options, teacher_is_base)
        assert function(*layers, valid, mask, options).values.tolist() == pytest.approx(expected)


def test_one_layer_to_one_compares_the_given_pairs(layers, valid) -> None:
    student, teacher = layers
    pairs = [(3, 2), (0, 1)]
    expected = [
        np.mean(
            [
                kl(student[b, m, j, p].numpy(), teacher[b, m, i, p].numpy())
                for i, j in pairs
                for m in np.flatnonzero(valid[b])
                for p in range(PATCHES)
            ]
        )
        for b in range(VIDEOS)
    ]
    found = one_layer_to_one(student, teacher, valid, pairs, LayerOptions())
    assert found.values.tolist() == pytest.approx(expected)
    with pytest.raises(InputError, match="at least one pair"):
        one_layer_to_one(student, teacher, valid, [], LayerOptions())


def test_even_pairs_end_with_both_towers_last_layers() -> None:
    assert even_pairs(12, 4) == [(2, 0), (5, 1), (8, 2), (11, 3)]
    assert even_pairs(3, 2) == [(0, 0), (2, 1)]


def test_a_teacher_in_the_students_span_is_recovered_by_sab_and_not_one_to_one(valid) -> None:
    """Equation 1 with orthogonal, long layers: each teacher layer finds the student's layer that it is."""
    student = 30 * torch.eye(STUDENT, WIDE, dtype=torch.float64).expand(VIDEOS, FRAMES, PATCHES, -1, -1)
    student = student.transpose(2, 3)
    teacher = student[:, :, [2, 0, 1, 2]]
    mask = sequential_mask(TEACHER, STUDENT, ())
    assert student_as_base(student, teacher, valid, mask, LayerOptions()).mean() < 1e-6
    pairs = even_pairs(TEACHER, STUDENT)
    assert one_layer_to_one(student, teacher, valid, pairs, LayerOptions()).mean() > 1


def test_a_layer_that_may_be_made_of_nothing_is_refused(layers, valid) -> None:
    mask = torch.ones(TEACHER, STUDENT, dtype=torch.bool)
    mask[0] = False
    with pytest.raises(InputError, match="nothing to be made of"):
        student_as_base(*layers, valid, mask, LayerOptions())


@pytest.mark.parametrize(
    "wrong", [{"masking": "some"}, {"similarity": "l2"}, {"axis": "depth"}, {"temperature": 0}]
)
def test_layer_options_without_meaning_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError):
        LayerOptions(**wrong)


@pytest.mark.parametrize(
    "options", [LayerOptions(), LayerOptions(PRODUCT, SCALED), LayerOptions(axis=PLACES)]
)
def test_gradients_of_layer_losses_agree_with_finite_differences(options: LayerOptions) -> None:
    student, teacher = random(9, 1, 2, 2, 2, 3).requires_grad_(), random(10, 1, 2, 3, 2, 3)
    valid, mask = torch.tensor([[True, False]]), sequential_mask(3, 2, ((1, 1),))
    for function in (student_as_base, teacher_as_base):
        assert torch.autograd.gradcheck(
            lambda x, f=function: f(x, teacher, valid, mask, options).mean(), student
        )
    pairs = even_pairs(3, 2)
    assert torch.autograd.gradcheck(
        lambda x: one_layer_to_one(x, teacher, valid, pairs, options).mean(), student
    )


def test_gradients_of_the_other_losses_agree_with_finite_differences() -> None:
    frames = random(11, 2, 2, 3).requires_grad_()
    valid = torch.tensor([[True, True], [True, False]])
    for axis in (WIDTH, PLACES):
        assert torch.autograd.gradcheck(
            lambda x, a=axis: frame_divergence(x, random(12, 2, 2, 3), valid, a).mean(), frames
        )
    known = PairBlock.whole(torch.tensor([[True, True, False], [True, True, True], [False, True, True]]))
    logits, teacher = random(13, 3, 3).requires_grad_(), PairBlock.whole(random(14, 3, 3))
    for there in (None, known):
        assert torch.autograd.gradcheck(
            lambda x, k=there: distribution_divergence(PairBlock.whole(x), teacher, k).mean(), logits
        )
    words, word_valid = random(15, 2, 3, 3), torch.tensor([[True, True, False], [True, True, True]])
    assert torch.autograd.gradcheck(
        lambda x: sum(local_similarity(x, valid, words, word_valid)).sum(), frames
    )
