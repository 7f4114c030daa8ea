"""Small checkpoints in the layouts that the official training codes write, made of our models' weights."""

from __future__ import annotations

import torch
from torch import Tensor

HUGGING_FACE_BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
HUGGING_FACE_OTHERS = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def ts2net_layout(state: dict[str, Tensor], shifted: tuple[int, ...]) -> dict[str, Tensor]:
    """Shifted blocks are wrapped, and two parts lie there that are never used."""
    official = copied(state)
    for block in shifted:
        plain = f"clip.visual.transformer.resblocks.{block}.attn."
        for name in [name for name in official if name.startswith(plain)]:
            official[name.replace(plain, f"{plain}net.")] = official.pop(name)
    official["visual_prompt_encoder.positional_embedding"] = torch.ones(4, 8)
    official["text_token_selector.score_predictor.in_conv.0.weight"] = torch.ones(8)
    return official


def hugging_face_layout(towers: dict[str, Tensor], position_ids: bool = True) -> dict[str, Tensor]:
    """CLIPModel's names for OpenAI's."""
    official: dict[str, Tensor] = {}
    for name, value in towers.items():
        if name in TRANSPOSED:
            official[TRANSPOSED[name]] = value.T.contiguous()
        elif name in HUGGING_FACE_OTHERS:
            official[HUGGING_FACE_OTHERS[name]] = value
        else:
            official |= block_of(name, value)
    if position_ids:
        for side, table in (("text", "positional_embedding"), ("vision", "visual.positional_embedding")):
            official[f"{side}_model.embeddings.position_ids"] = torch.arange(len(towers[table]))[None]
    return official


def block_of(name: str, value: Tensor) -> dict[str, Tensor]:
    side = "vision_model" if name.startswith("visual.") else "text_model"
    number, _, rest = name.removeprefix("visual.").removeprefix("transformer.resblocks.").partition(".")
    prefix = f"{side}.encoder.layers.{number}"
    if rest.startswith("attn.in_proj_"):
        kind = rest.removeprefix("attn.in_proj_")
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{prefix}.self_attn.{letter}_proj.{kind}": part.clone() for letter, part in parts}
    module, _, kind = rest.rpartition(".")
    return {f"{prefix}.{HUGGING_FACE_BLOCK[module]}.{kind}": value}


def xpool_layout(state: dict[str, Tensor]) -> dict[str, object]:
    """The trainer's file: Hugging Face's CLIP and the pooling, beside epoch and optimiser."""
    towers = {name.removeprefix("clip."): v for name, v in state.items() if name.startswith("clip.")}
    others = {name: v for name, v in state.items() if not name.startswith("clip.")}
    official = {f"clip.{name}": v for name, v in hugging_face_layout(copied(towers)).items()} | copied(others)
    return {"arch": "CLIPTransformer", "epoch": 3, "state_dict": official, "optimizer": {"state": {}}}


def albef_layout(
    state: dict[str, Tensor], momentum: dict[str, Tensor], pretraining: bool = False
) -> dict[str, object]:
    """The retrieval script's file, or the one of pre-training, where BERT lies inside another model."""
    official = copied(state)
    for name, value in momentum.items():
        part, _, rest = name.partition(".")
        if part not in ("itm_head", "temp"):
            official[f"{part}_m.{rest}"] = value.clone()
    official |= {"image_queue": torch.ones(4, 8), "text_queue": torch.ones(4, 8)}
    official |= {"idx_queue": torch.full((1, 8), -100), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    for side in ("text_encoder", "text_encoder_m"):
        official[f"{side}.embeddings.position_ids"] = torch.arange(30)[None]
    if pretraining:
        for name in [name for name in official if name.startswith("text_encoder")]:
            side, _, rest = name.partition(".")
            official[f"{side}.bert.{rest}"] = official.pop(name)
        official["text_encoder.cls.predictions.bias"] = torch.ones(8)
        official["text_encoder_m.cls.predictions.bias"] = torch.ones(8)
    return {"model": official, "optimizer": {"state": {}}, "config": {"image_res": 384}, "epoch": 4}
