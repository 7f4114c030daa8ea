"""MCAD's losses: similarity distributions held to a dual-stream teacher's and to a single-stream teacher's.

Lei et al. 2024 (EMNLP), sections 3.1, 3.2 and 4.2. Every function is pure and gives a number a row, see
`student_train.rows`. There is no public code. What the paper leaves open, and what is taken here:

- F_KL(D, D^) is printed as KL(D || D^) with the student first. Equation 14's target is the identity matrix,
  against which that is infinite, so it is read as PyTorch's `kl_div(log D, D^)` computes it: KL(D^ || D).
- F_KL sums over the rows; here it is their mean, as everywhere in the trainer. Directions are summed.
- Equation 11 divides by a sum, so it holds for scores above 0. Appendix C means ALBEF's match probability.
  The score that ALBEF's official code ranks by is the logit before it, which may be negative: normalised so,
  it would give weights below 0 and sums near 0. The functions here take probabilities.
- D^S is a softmax, and a softmax normalised over some places by equation 11 is the softmax over those places,
  which is how the student's side is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from store.errors import InputError
from student_train.losses.clipping import distribution_divergence
from student_train.losses.teachclip import info_nce
from student_train.rows import PairBlock, PerRow


@dataclass(frozen=True)
class Shortlist:
    """What a single-stream teacher said of the k best of each row, one direction of equations 5 and 6.

    place: [b, k] int64, columns of the global batch. probability: [b, k], that the pair matches, from 0 to 1.
    known: [b, k] bool, False for a pair that it was not asked about; None if it was about all.
    """

    place: Tensor
    probability: Tensor
    known: Tensor | None = None

    def __post_init__(self) -> None:
        shapes = {
            tuple(part.shape) for part in (self.place, self.probability, self.known) if part is not None
        }
        if len(shapes) > 1 or self.place.ndim != 2:
            raise InputError(f"a shortlist's places, probabilities and known are all [b, k], got {shapes}")


@dataclass(frozen=True)
class SingleStream:
    """Both directions: `texts` of every own video (P_i2t), `videos` of every own text (P_t2i)."""

    texts: Shortlist
    videos: Shortlist


def best_places(scores_BN: Tensor, k: int) -> Tensor:
    """Equation 5: places [B, k] of the k highest scores of each row, best first.

    The softmax keeps the order, so scores may be logits. Raises InputError for more places than there are.
    """
    if k > scores_BN.shape[-1]:
        raise InputError(f"a row has {scores_BN.shape[-1]} pairs, {k} of them can't be the best; lower k")
    return scores_BN.topk(k, dim=-1).indices


def shares(probability_BK: Tensor, known_BK: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Equation 11: every row divided by its sum [B, K], and whether that row says something [B].

    A pair that is not known gets 0. A row with fewer than two known pairs, or whose sum is 0, says nothing.
    Raises InputError (on a CPU) for a negative number, which is a logit and no probability.
    """
    if known_BK is None:
        known_BK = torch.ones_like(probability_BK, dtype=torch.bool)
    probability_BK = probability_BK.masked_fill(~known_BK, 0)
    # On a GPU the look would hold up every step.
    if probability_BK.device.type == "cpu" and bool((probability_BK < 0).any()):
        raise InputError(
            f"a single-stream score of {probability_BK.min().item():.3g} is below 0 and no probability; "
            "give the softmax of match against mismatch"
        )
    total_B1 = probability_BK.sum(-1, keepdim=True)
    says_something_B = (total_B1.squeeze(-1) > 0) & (known_BK.sum(-1) >= 2)
    return probability_BK / total_B1.masked_fill(total_B1 == 0, 1), says_something_B


def row_divergence(log_output_BN: Tensor, target_BN: Tensor) -> Tensor:
    """Equation 2, a number a row [B]: KL(target || output); see above for the direction.

    Where the target is 0 the output may be 0 too (its log -inf): such a place adds nothing.
    """
    log_output_BN = log_output_BN.masked_fill(target_BN == 0, 0)
    return (torch.special.xlogy(target_BN, target_BN) - target_BN * log_output_BN).sum(-1)


def shortlist_divergence(logits_BN: Tensor, shortlist: Shortlist) -> PerRow:
    """One direction of equation 16: sigma(D[P]) held to sigma(D^SS[P])."""
    target_BK, says_something_B = shares(shortlist.probability, shortlist.known)
    own_BK = logits_BN.gather(-1, shortlist.place)
    if shortlist.known is not None:
        hidden_BK = ~shortlist.known & says_something_B.unsqueeze(-1)
        own_BK = own_BK.masked_fill(hidden_BK, -torch.inf)
    values_B = row_divergence(own_BK.log_softmax(-1), target_BK)
    return PerRow(values_B * says_something_B, says_something_B)


def ground_truth(logits: PairBlock, ignored: PairBlock | None = None) -> PerRow:
    """Equation 14, L_GT: divergence from the identity, which is the cross entropy with the diagonal.

    Both directions are summed: twice `info_nce`. logits: scale included. ignored: bool, pairs that are
    neither positive nor negative.
    """
    return info_nce(logits, ignored) / 0.5


def dual_stream(logits: PairBlock, teacher: PairBlock, known: PairBlock | None = None) -> PerRow:
    """Equation 15, f_DS: softmax rows and columns held to the dual-stream teacher's, equation 4.

    logits, teacher: scale included, so that their softmax is F_D of equation 1.
    """
    return distribution_divergence(logits, teacher, known)


def single_stream(logits: PairBlock, teacher: SingleStream) -> PerRow:
    """Equation 16, L_ALBEF: both directions, each over its own k best."""
    return side_by_side(
        shortlist_divergence(logits.rows, teacher.texts),
        shortlist_divergence(logits.columns.T, teacher.videos),
    )


def multi_teacher(
    logits: PairBlock, dual: PairBlock, single: SingleStream, known: PairBlock | None = None
) -> PerRow:
    """Equation 10, f_MT: the dual-stream and the single-stream targets together, four parts.

    known: bool, False where the dual-stream teacher has no score.
    """
    return side_by_side(dual_stream(logits, dual, known), single_stream(logits, single))


def mean_temperature_scale(first: Tensor, second: Tensor) -> Tensor:
    """What multiplies cosines in equations 3 and 17: 1 / the mean of two temperatures, from their scales."""
    return 2 / (1 / first + 1 / second)


def side_by_side(*losses: PerRow) -> PerRow:
    """Several losses of the same rows as parts of one, which add up; each is averaged over its own rows."""
    values = [loss.values if loss.values.ndim == 2 else loss.values.unsqueeze(-1) for loss in losses]
    if all(loss.counts is None for loss in losses):
        return PerRow(torch.cat(values, dim=1))
    counts = [
        torch.ones_like(value, dtype=torch.bool) if loss.counts is None else loss.counts.view_as(value)
        for loss, value in zip(losses, values, strict=True)
    ]
    return PerRow(torch.cat(values, dim=1), torch.cat(counts, dim=1))
