"""Side4Video's official parameters in our modules, and what the frozen backbone and the side network give."""

from __future__ import annotations

from collections.abc import Mapping

from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

from student_train.live_layers import LiveLayers
from student_train.side_blocks import SideNetwork, SideSizes
from tests.golden_case import GoldenCase

OF_BLOCK = {
    **dict.fromkeys(("norm1", "bn_1"), "time_norm.channels"),
    **dict.fromkeys(("norm2", "bn_2"), "mlp_norm.channels"),
    **dict.fromkeys(("pw_conv1", "conv.0"), "time.enter"),
    **dict.fromkeys(("dw_conv1", "conv.1"), "time"),
    **dict.fromkeys(("pw_conv2", "conv.2"), "time.leave"),
    "ln_1": "attention.norm",
    "attn.in_proj": "attention.query_key_value",
    "attn.out_proj": "attention.out",
    "mlp.fc1": "mlp_in",
    "mlp.fc2": "mlp_out",
}
OF_NETWORK = {
    "transformer.side_spatial_position_embeddings": "position",
    "transformer.side_lns.": "taps.*.norm.",
    "transformer.side_linears.": "taps.*.down.",
    "side_conv1.": "stem.convolution.",
    "side_pre_bn3d.": "stem.norm.channels.",
    "side_post_bn.": "norm.channels.",
}
SIDE_BLOCK = "transformer.side_transformer."


def our_name(name: str) -> str | None:
    """Of a parameter under "visual."; None if it is not the side network's."""
    if name.startswith(SIDE_BLOCK):
        number, _, rest = name.removeprefix(SIDE_BLOCK).partition(".")
        (part,) = (part for part in OF_BLOCK if rest.startswith((part + ".", part + "_")))
        return f"blocks.{number}.{OF_BLOCK[part]}.{rest[len(part) + 1 :]}"
    for official, ours in OF_NETWORK.items():
        if name.startswith(official):
            rest = name.removeprefix(official)
            if "*" in ours:
                number, _, rest = rest.partition(".")
                ours = ours.replace("*", number)
            return ours + rest
    return None


def side_of(case: GoldenCase, visual: Mapping[str, Tensor], cls_has_position: bool) -> SideNetwork:
    config, taps = case.config, case.config["tapped_vit_layers"]
    grid = config["input_resolution"] // config["patch_size"]
    sizes = SideSizes(
        config["side_dim"], config["side_heads"], grid, config["patch_size"],
        (config["vit_width"],) * len(taps), cls_has_position,
    )  # fmt: skip
    side = SideNetwork(sizes)
    found = {our_name(name): value for name, value in visual.items() if our_name(name)}
    shapes = {name: value.shape for name, value in side.state_dict().items()}
    side.load_state_dict({name: value.reshape(shapes[name]) for name, value in found.items()}, strict=True)
    return side.eval()


def backbone_of(case: GoldenCase, visual: Mapping[str, Tensor]) -> LiveLayers:
    config = case.config
    tower = VisionTransformer(
        config["input_resolution"], config["patch_size"], config["vit_width"], config["vit_layers"],
        config["vit_heads"], mlp_ratio=4, act_layer=QuickGELU,
    )  # fmt: skip
    live = LiveLayers(tower, tuned=False)
    own = {name: value for name, value in visual.items() if name in live.visual.state_dict()}
    live.visual.load_state_dict(own, strict=True)
    return live.eval()


def visual_state(case: GoldenCase, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): v for name, v in case.state.items() if name.startswith(prefix)}


def watched(side: SideNetwork, live: LiveLayers) -> dict[str, Tensor]:
    """Fills, while both run, with what the golden cases hold of them; frames of all videos in a row."""
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, name: str, flat: bool) -> None:
        module.register_forward_hook(
            lambda _, inputs, output: seen.__setitem__(name, output.flatten(0, 1) if flat else output)
        )

    keep(live.visual.ln_pre, "vit_ln_pre", flat=False)
    keep(side.stem, "side_embed", flat=False)
    for number, (tap, block) in enumerate(zip(side.taps, side.blocks, strict=True)):
        keep(tap, f"down{number}", flat=True)
        keep(block, f"side_block{number}", flat=True)
    keep(side.norm, "side_post_bn", flat=False)
    return seen


def run_both(
    side: SideNetwork, live: LiveLayers, video_BMCYX: Tensor, taps: list[int]
) -> tuple[dict[str, Tensor], dict[int, Tensor], Tensor]:
    """What was seen on the way, the layers, and the last state."""
    seen = watched(side, live)
    layers = live(video_BMCYX, range(live.depth))
    state = side(video_BMCYX, [layers[tap] for tap in taps])
    blocks = {f"vit_block{number}": tokens.flatten(0, 1) for number, tokens in layers.items()}
    return {**seen, **blocks}, layers, state
