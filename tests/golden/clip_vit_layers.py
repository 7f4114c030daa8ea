"""The towers against OpenAI's CLIP code, part by part."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from teacher_dump.checkpoints import load_strictly
from teacher_dump.models.clip_towers import TowerSizes, build_towers, encode_frames, encode_words
from tests.golden_case import GoldenCase


def towers_of(case: GoldenCase) -> nn.Module:
    config = case.config
    head_width = config["vit_width"] // config["vit_heads"]
    towers = build_towers(TowerSizes.from_state(case.state, head_width))
    load_strictly(towers, case.state, case.name)
    return towers.eval().requires_grad_(False)


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    towers = towers_of(case)
    seen = watch(towers)
    image, taps = encode_frames(
        towers.visual, case.inputs["image"], range(len(towers.visual.transformer.resblocks))
    )
    sentence, words = encode_words(towers, case.inputs["input_ids"])
    last = towers.visual.ln_post(taps[max(taps)])
    ours = {
        "image_emb": image,
        "text_emb": sentence,
        "text_hidden_proj": words,
        "image_hidden_proj": last @ towers.visual.proj,
        "vit_ln_post": last[:, 0],
        "logits_per_image": towers.logit_scale.exp()
        * functional.normalize(image, dim=-1)
        @ functional.normalize(sentence, dim=-1).T,
    }
    return {**seen, **ours, **{f"vit_block{block}": value for block, value in taps.items()}}


def watch(towers: nn.Module) -> dict[str, Tensor]:
    """Fills, while the towers run, with what goes in and out of their parts."""
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, out: str, given: str = "") -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[out] = output
            if given:
                seen[given] = inputs[0]

        module.register_forward_hook(hook)

    keep(towers.visual.ln_pre, "vit_ln_pre", "vit_embed")
    for number, block in enumerate(towers.visual.transformer.resblocks):
        keep(block.ln_1, f"vit_block{number}_ln1")
        keep(block.ln_2, f"vit_block{number}_ln2", f"vit_block{number}_after_attn")
    for number, block in enumerate(towers.transformer.resblocks):
        keep(block, f"text_block{number}", "" if number else "text_embed")
    keep(towers.ln_final, "text_ln_final")
    return seen
