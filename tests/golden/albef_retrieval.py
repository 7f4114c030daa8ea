"""ALBEF's evaluation path against the official code's numbers."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from teacher_dump.checkpoints import load_strictly
from teacher_dump.models.albef_model import MATCH, Albef, AlbefSizes, own_state
from teacher_dump.pairs.shortlist import top_k
from tests.golden_case import GoldenCase


def model_of(case: GoldenCase) -> Albef:
    state, config = own_state(case.state), case.config
    sizes = AlbefSizes.from_state(state, config["vit"]["num_heads"], config["bert"]["num_attention_heads"])
    assert sizes.text.fusion_layer == config["bert"]["fusion_layer"]
    model = Albef(sizes)
    load_strictly(model, state, case.name)
    return model.eval().requires_grad_(False)


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    model = model_of(case)
    text, given = model.text_encoder, case.inputs
    valid = given["attention_mask"].bool()
    seen = watch(model)
    blocks = model.image_blocks(given["image"], list(range(model.sizes.image_layers)))
    image_tokens, text_tokens = model.image_tokens(blocks[-1]), text.text(given["input_ids"], valid)
    image = functional.normalize(model.vision_proj(image_tokens[:, 0]), dim=-1)
    sentence = functional.normalize(model.text_proj(text_tokens[:, 0]), dim=-1)
    pairs = [model.matched(tokens[None], text_tokens, valid) for tokens in image_tokens]
    fused, logits = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    cosine, score, kept = image @ sentence.T, logits[..., MATCH], case.config["k_test"]
    return {
        **seen,
        **{f"vit_block{number}": block for number, block in enumerate(blocks)},
        "image_tokens": image_tokens,
        "text_tokens": text_tokens,
        "image_feat": image,
        "text_feat": sentence,
        "sims_matrix": cosine,
        "fusion_cls": fused,
        "itm_logits": logits,
        "itm_score": score,
        "itm_prob": logits.softmax(-1)[..., MATCH],
        "score_matrix_i2t": top_k_scores(cosine, score, kept),
        "score_matrix_t2i": top_k_scores(cosine.T, score.T, kept),
    }


def watch(model: Albef) -> dict[str, Tensor]:
    """Fills, while the model runs, with what its parts give first: fusion layers for the first image."""
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, name: str) -> None:
        def hook(_: nn.Module, inputs: object, output: Tensor) -> None:
            seen.setdefault(name, output)

        module.register_forward_hook(hook)

    keep(model.visual_encoder.norm_pre, "vit_embed")
    keep(model.text_encoder.embeddings, "text_embed")
    for number, layer in enumerate(model.text_encoder.encoder.layer):
        fuses = number >= model.sizes.text.fusion_layer
        keep(layer, f"fusion_layer{number}_image0" if fuses else f"text_layer{number}")
    return seen


def top_k_scores(cosine_NM: Tensor, score_NM: Tensor, kept: int) -> Tensor:
    """`score_NM` where a row's `kept` highest cosines lie, -100 elsewhere: the official evaluation."""
    index = torch.from_numpy(top_k(cosine_NM.numpy(), kept))
    return torch.full_like(score_NM, -100.0).scatter(1, index, score_NM.gather(1, index))
