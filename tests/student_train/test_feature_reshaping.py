"""Feature maps as the teacher's tokens: shapes for the paper's towers, and which pixel goes where."""

import pytest
import torch

from store.errors import InputError
from student_train.feature_reshaping import FeatureReshaping, MapToTokens, patch_grid

MOBILEVIT_AT_224 = ((128, 56), (256, 28), (384, 14), (512, 8))


@pytest.mark.parametrize(("grid", "width"), [(7, 768), (14, 768), (16, 1024)])
def test_every_stage_of_mobilevit_becomes_tokens_of_the_teacher(grid: int, width: int) -> None:
    reshaping = FeatureReshaping(MOBILEVIT_AT_224, grid, width)
    maps = [torch.randn(1, channels, side, side) for channels, side in MOBILEVIT_AT_224]
    assert reshaping(maps).shape == (1, 4, grid * grid, width)


def identity(channels: int, side: int, grid: int, width: int) -> MapToTokens:
    """A map whose linear part copies its channels."""
    reshape = MapToTokens(channels, side, grid, width)
    with torch.no_grad():
        reshape.linear.weight.copy_(torch.eye(*reshape.linear.weight.shape[:2])[..., None, None])
        reshape.linear.bias.zero_()
    return reshape


def test_pixels_of_a_finer_map_become_channels_of_the_token_that_they_lie_in() -> None:
    pixels = torch.arange(16.0).view(1, 1, 4, 4)
    tokens = identity(1, 4, 2, 4)(pixels)
    assert tokens[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_channels_of_a_coarser_map_become_neighbouring_tokens() -> None:
    pixels = torch.arange(4.0).view(1, 4, 1, 1)
    assert identity(4, 1, 2, 1)(pixels)[0].flatten().tolist() == [0, 1, 2, 3]


def test_tokens_are_in_row_major_order() -> None:
    pixels = torch.arange(9.0).view(1, 1, 3, 3)
    assert identity(1, 3, 3, 1)(pixels)[0].flatten().tolist() == list(range(9))


def test_a_map_just_above_the_grid_is_averaged_down_to_it() -> None:
    assert torch.allclose(identity(1, 8, 7, 1)(torch.ones(1, 1, 8, 8)), torch.ones(1, 49, 1))


def test_layers_without_a_square_of_patches_are_refused() -> None:
    assert patch_grid(50, "vit_layers/3") == 7
    for tokens in (1, 12):
        with pytest.raises(InputError, match=f"vit_layers/3 has {tokens} tokens.*--tokens"):
            patch_grid(tokens, "vit_layers/3")
