"""A side network for what a cache holds, or a line that says why there is none."""

from __future__ import annotations

from store.errors import InputError
from student_train.clip_towers import TINY, TINY_SIZES
from student_train.feature_reshaping import patch_grid
from student_train.live_layers import LiveLayers
from student_train.needs import CLASS, PIXELS
from student_train.side_blocks import SideSizes
from student_train.side_network_model import (
    CACHED,
    RECOGNITION,
    RETRIEVAL,
    TUNED,
    Config,
    Parts,
    SideStudent,
    layer_need,
)
from student_train.students.base import SignalSizes
from student_train.temporal_transformer import default_heads


def build(config: Config, sizes: SignalSizes) -> SideStudent:
    """The student for a cache of `sizes`.

    Layers may come in any encoding, pooled (the side network then works on the coarser grid) or projected.
    Raises InputError for layers that are [CLS] alone or differ in their patches, for frames that do not
    divide into them, and for heads that do not divide the width.
    """
    backbone = None
    if config.way_in == CACHED:
        found = {
            layer: (sizes[layer_need(layer)]["L"], sizes[layer_need(layer)]["D"])
            for layer in config.read_layers
        }
    else:
        backbone = LiveLayers.of(config.architecture, config.way_in == TUNED)
        if beyond := [layer for layer in config.read_layers if not 0 <= layer < backbone.depth]:
            raise InputError(
                f"no layer {beyond[0]}: {config.architecture} has {backbone.depth} blocks, numbered from 0"
            )
        found = dict.fromkeys(config.read_layers, (backbone.patches + 1, backbone.width))
    width = found[config.last_layer][1] if config.reads_cls else found[config.layers[-1]][1]
    side = side_sizes(config, {layer: found[layer] for layer in config.layers}, sizes)
    classes = sizes[CLASS]["C"] if config.task == RECOGNITION else 0
    return SideStudent(config, Parts(side, width, joint_width(config.architecture), classes, backbone))


def side_sizes(config: Config, layers: dict[int, tuple[int, int]], sizes: SignalSizes) -> SideSizes | None:
    """layers: tokens and width of each that is tapped."""
    if not layers:
        return None
    counts = {tokens for tokens, _ in layers.values()}
    if len(counts) > 1:
        raise InputError(
            f"the layers hold {sorted(counts)} tokens a frame; dump them all with the same --tokens"
        )
    (tokens,) = counts
    grid = patch_grid(tokens, layer_need(config.layers[0]))
    pixels = sizes[PIXELS]
    if pixels["Y"] != pixels["X"] or pixels["X"] % grid:
        raise InputError(
            f"frames of {pixels['Y']} x {pixels['X']} pixels do not divide into {grid} x {grid} patches, "
            "which the layers hold; dump them with --tokens all"
        )
    heads = config.heads or default_heads(config.width)
    if config.width % heads:
        raise InputError(
            f"{heads} attention heads do not divide a width of {config.width}; take another number"
        )
    widths = tuple(width for _, width in layers.values())
    return SideSizes(config.width, heads, grid, pixels["X"] // grid, widths, config.task == RETRIEVAL)


def joint_width(architecture: str) -> int:
    """D of the space that frames and texts of `architecture` share."""
    import open_clip

    if architecture == TINY:
        return int(TINY_SIZES["embed_dim"])
    return int(open_clip.get_model_config(architecture)["embed_dim"])
