"""Side4Video, text-video retrieval with token-wise matching, against the official code's numbers.

The official state has the video mask replaced by ones, and zeros in the case's have no effect; so here.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from student_train.clip_towers import word_features
from student_train.side_network_start import FrameHead
from student_train.students.base import cosine_similarity
from student_train.text_towers import TEXT_PARTS, text_transformer
from student_train.token_wise import TokenWeight, WeighedTokens, token_wise_similarity
from tests.golden_case import GoldenCase
from tests.student_train.golden_side_network import backbone_of, run_both, side_of, visual_state


def word_outputs(case: GoldenCase) -> Tensor:
    config = case.config
    sizes = {
        "context_length": config["context_length"], "vocab_size": config["vocab"],
        "width": config["text_width"], "heads": config["text_heads"], "layers": config["text_layers"],
    }  # fmt: skip
    tower = text_transformer(sizes, quick_gelu=True, width=config["embed_dim"])
    state = visual_state(case, "clip.")
    own = {name: value for name, value in state.items() if name.startswith(TEXT_PARTS)}
    tower.load_state_dict(own, strict=True)
    return word_features(tower.eval(), case.inputs["input_ids"], torch.float32)


def token_weight(case: GoldenCase, name: str) -> TokenWeight:
    state = visual_state(case, f"{name}_weight_fc.")
    found = TokenWeight(case.config["embed_dim"])
    names = {"hidden.": "0.", "score.": "2."}
    found.load_state_dict(
        {ours + part: state[theirs + part] for ours, theirs in names.items() for part in ("weight", "bias")}
    )
    return found


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    config = case.config
    visual = visual_state(case, "clip.visual.")
    side, live = side_of(case, visual, cls_has_position=True), backbone_of(case, visual)
    seen, layers, state = run_both(side, live, case.inputs["video"], config["tapped_vit_layers"])
    fused = layers[config["vit_layers"] - 1][:, :, 0] + state.mean(2) @ visual["side_proj"]
    head = FrameHead(config["vit_width"], config["embed_dim"], bias=False)
    head.load_state_dict({name: visual[name] for name in head.state_dict()})
    frames, words = head(fused), word_outputs(case)
    seen_frames = torch.ones(frames.shape[:2], dtype=torch.bool)
    valid = case.inputs["text_mask"].bool()
    frame_weight = token_weight(case, "video")(frames, seen_frames)
    word_weight = token_weight(case, "text")(words, valid)
    similarity = token_wise_similarity(
        WeighedTokens(functional.normalize(frames, dim=-1), frame_weight, seen_frames.float()),
        WeighedTokens(functional.normalize(words, dim=-1), word_weight, valid.float()),
        masked=False,
    )
    scale = case.state["clip.logit_scale"].exp()
    sentence = words[torch.arange(len(words)), case.inputs["input_ids"].argmax(-1)]
    return {
        **seen,
        "fused_frame": fused,
        "video_feat": frames,
        "text_feat": words,
        "sim": similarity,
        "train_logits": scale * similarity,
        "text_weight": word_weight,
        "video_weight": frame_weight,
        "meanp_video_feat": frames.mean(1),
        "meanp_text_feat": sentence,
        "meanp_logits": scale * cosine_similarity(frames.mean(1), sentence),
    }
