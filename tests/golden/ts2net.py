"""TS2-Net against the official codes' numbers, with the noise that they drew and without any."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor
from torch.nn import functional

from teacher_dump.checkpoints import load_strictly
from teacher_dump.models.clip_towers import encode_words
from teacher_dump.models.ts2net_model import Ts2Net, Ts2NetSizes, frame_cosine, own_state
from tests.golden_case import GoldenCase


def model_of(case: GoldenCase) -> Ts2Net:
    config = case.config
    sizes = Ts2NetSizes.from_state(case.state, config["vision_width"] // config["vision_heads"])
    assert list(sizes.shifted) == config.get("shift_blocks", [])
    sizes = replace(sizes, kept=config["topk"], shift_div=config.get("shift_div", sizes.shift_div))
    model = Ts2Net(sizes)
    load_strictly(model, own_state(case.state), case.name)
    return model.eval().requires_grad_(False)


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    model, noise = model_of(case), case.inputs["topk_noise"] * case.config["perturb_sigma"]
    hard = {
        f"{name}_sigma0": value
        for name, value in computed(case, model, None).items()
        if name in ("logits", "topk_indicator", "relevance_full", "relevance_paired")
    }
    return {**computed(case, model, noise), **hard}


def computed(case: GoldenCase, model: Ts2Net, noise: Tensor | None) -> dict[str, Tensor]:
    video, valid = case.inputs["video"], case.inputs["video_mask"].bool()
    tokens, _ = model.tokens(video.flatten(0, 1), video.shape[1])
    selected, indicator, scores = model.select(tokens, noise)
    selected = selected.unflatten(0, video.shape[:2]).flatten(1, 2)
    temporal = model.temporal_frames(selected, valid)
    sentence, _ = encode_words(model.clip, case.inputs["input_ids"])
    logits, relevance = model.logits(temporal, valid, sentence), frame_cosine(temporal, sentence).softmax(-1)
    pairs = range(min(len(video), len(sentence)))
    return {
        "token_scores": scores,
        "topk_indicator": indicator,
        "selected_tokens": selected,
        "text_features": sentence,
        "frame_features_final": functional.normalize(temporal, dim=-1),
        "frame_mask_effective": model.effective_mask(valid),
        "logits": logits,
        "logits_global_head": logits,
        "relevance_full": relevance,
        "relevance_paired": relevance[pairs, pairs],
    }
