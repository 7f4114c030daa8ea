"""A state of Hugging Face's CLIPModel under OpenAI's names, which the towers here have."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from store.errors import InputError

PREFIXES = {"vision_model.": "visual.", "text_model.": ""}
BLOCK_NAMES = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
OTHER_NAMES = {
    "logit_scale": "logit_scale",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}
TRANSPOSED = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
QUERY_KEY_VALUE = ("q_proj", "k_proj", "v_proj")


def openai_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` (keys of CLIPModel, no prefix) by OpenAI's names; unknown keys keep theirs, to be left over.

    Query, key and value become one matrix. `position_ids`, which older releases stored, must count from 0 and
    is dropped: it says nothing else. Raises InputError where it does not or a third of a matrix is missing.
    """
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith("embeddings.position_ids"):
            if not torch.equal(value.flatten().long(), torch.arange(value.numel())):
                raise InputError(f"{name!r} does not count from 0; these weights are of another model")
        elif name in TRANSPOSED:
            ours[TRANSPOSED[name]] = value.T
        elif ".self_attn.q_proj." in name:
            ours[_own_name(name.replace("self_attn.q_proj.", "attn.in_proj_"))] = _stacked(state, name)
        elif not any(f".self_attn.{part}." in name for part in QUERY_KEY_VALUE):
            ours[OTHER_NAMES.get(name) or _own_name(name)] = value
    return ours


def _own_name(name: str) -> str:
    for theirs, own in PREFIXES.items():
        layers = f"{theirs}encoder.layers."
        if name.startswith(layers):
            rest = name.removeprefix(layers)
            for part, own_part in BLOCK_NAMES.items():
                rest = rest.replace(f".{part}.", f".{own_part}.")
            return f"{own}transformer.resblocks.{rest}"
    return name


def _stacked(state: Mapping[str, Tensor], query: str) -> Tensor:
    names = [query.replace("q_proj", part) for part in QUERY_KEY_VALUE]
    if missing := [name for name in names if name not in state]:
        raise InputError(f"this checkpoint has {query!r} and lacks {missing[0]!r}; give a whole one")
    return torch.cat([state[name] for name in names])
