"""Random crops of a student's frames, and where they are allowed.

A teacher saw the whole frame. What it says of a video, a frame or a pair as a whole stays true of a crop;
what it says of a place in the picture (granularity "token" in `store.signals`) does not.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from store.errors import InputError
from store.signals import TOKEN, kind_of
from student_train.needs import NOT_SIGNALS, OF_CLASSES, PLANNED_TOPK, split_role


def random_resized_crops(pixels_BMCYX: Tensor, least_area: float) -> Tensor:
    """RandomResizedCrop of every video, one box for all of its frames, of the same size [B, M, C, Y, X].

    least_area: the smallest share of the frame that is kept; sides between 3 : 4 and 4 : 3. Draws from
    torch's generator of the CPU, which a checkpoint keeps.
    """
    from torchvision.transforms import RandomResizedCrop

    crop = RandomResizedCrop(pixels_BMCYX.shape[-2:], (least_area, 1.0), antialias=True)
    return torch.stack([crop(video) for video in pixels_BMCYX])


def refuse_where_places_count(needs: Iterable[str]) -> None:
    """Raise InputError if one of `needs` tells of places in a frame, which a crop would move."""
    for need in needs:
        name = split_role(need)[0].removeprefix(OF_CLASSES)
        if name in NOT_SIGNALS or name.startswith(PLANNED_TOPK):
            continue
        if kind_of(name).granularity == TOKEN:
            raise InputError(
                f"{need} tells of places in a frame, so the student's frames can't be cropped at random; "
                "leave out that loss, or train without crops"
            )
