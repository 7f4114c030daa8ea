"""What losses are computed on and what they give: strips of pairs in, a number for every row out.

this process's rows of a global batch of B pairs:  own = [start, ..., start + b - 1]

             texts                      rows     [b, B]   its videos against all texts
          . . o o . .                   columns  [B, b]   all videos against its texts
 videos   o o x x o o    <- own
          o o x x o o                   in one process both are the whole block [B, B]
          . . o o . .
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from student_train.distributed import sum_over_processes, world_size


@dataclass(frozen=True)
class PairBlock:
    """A value of every pair that has a part in this process's losses, [video, text].

    rows [b, B], columns [B, b], see above. start: place of its first pair in the global batch.
    """

    rows: Tensor
    columns: Tensor
    start: int = 0

    @classmethod
    def whole(cls, block_BB: Tensor) -> PairBlock:
        """Of one process that has all pairs."""
        return cls(block_BB, block_BB)

    @property
    def own(self) -> Tensor:
        """[b] int64: where each own pair stands in the global batch."""
        return torch.arange(self.start, self.start + len(self.rows), device=self.rows.device)

    def map(self, function: Callable[[Tensor], Tensor]) -> PairBlock:
        """`function` of both strips, called once where they are the same."""
        rows = function(self.rows)
        columns = rows if self.columns is self.rows else function(self.columns)
        return PairBlock(rows, columns, self.start)


@dataclass(frozen=True)
class PerRow:
    """What a loss says of this process's rows; the loss is its mean over the rows of the global batch.

    values: [b], or [b, P] for P parts that are averaged by themselves and added, e.g. two directions.
    counts: bool of the same shape, False for a row about which the teacher said nothing (its value has to
    be finite all the same); None if all count.
    """

    values: Tensor
    counts: Tensor | None = None

    def __truediv__(self, divisor: float) -> PerRow:
        return PerRow(self.values / divisor, self.counts)

    def mean(self) -> Tensor:
        """This process's part of the loss, a scalar: all processes' parts add up to it."""
        if self.counts is None:
            return (self.values.sum(0) / (len(self.values) * world_size())).sum()
        counted = sum_over_processes(self.counts.sum(0)).clamp(min=1)
        return ((self.values * self.counts).sum(0) / counted).sum()

    def share(self) -> Tensor:
        """This process's part of the share of rows that count, a scalar: all parts add up to it."""
        if self.counts is None:
            return torch.full((), 1 / world_size(), device=self.values.device)
        return self.counts.float().mean() / world_size()


def both_ways(one_way: Callable[..., Tensor | PerRow], *blocks: PairBlock | Tensor | None) -> PerRow:
    """`one_way` for the own videos among all texts and for the own texts among all videos: two parts.

    blocks: arguments of `one_way`; a PairBlock reaches it as [b, B], first its rows, then its columns
    transposed; anything else as it is.
    """
    found = []
    for side in (lambda block: block.rows, lambda block: block.columns.T):
        result = one_way(*(side(block) if isinstance(block, PairBlock) else block for block in blocks))
        found.append(result if isinstance(result, PerRow) else PerRow(result))
    values = torch.stack([part.values for part in found], dim=1)
    if all(part.counts is None for part in found):
        return PerRow(values)
    counts = [
        torch.ones_like(part.values, dtype=torch.bool) if part.counts is None else part.counts
        for part in found
    ]
    return PerRow(values, torch.stack(counts, dim=1))
