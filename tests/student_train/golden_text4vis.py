"""The golden Text4Vis vectors: official names become ours here, nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from torch import Tensor, nn

from student_train.temporal_transformer import BLOCK_NAMES
from student_train.text4vis_model import (
    CLASS_ROWS,
    FRAMES,
    T_TRANS,
    TAP,
    Config,
    ModelSizes,
    Text4VisStudent,
)
from student_train.visual_tower import PLAIN, TOKEN_T1D, VisualTower
from tests.golden_case import GoldenCase

BLOCK, SHIFT = "visual.transformer.resblocks.", ".control_point.conv.weight"
TEMPORAL, POSITION = "fusion_model.transformer.resblocks.", "fusion_model.frame_position_embeddings.weight"


def student_of(case: GoldenCase) -> Text4VisStudent:
    """The student with the official parameters."""
    config = case.config
    is_resnet = isinstance(config["visual_layers"], list)
    head_width = config["visual_width"] * (32 if is_resnet else 1) // config["visual_heads"]
    vision = CLIPVisionCfg(
        layers=config["visual_layers"],
        width=config["visual_width"],
        head_width=head_width,
        patch_size=config.get("patch_size"),
        image_size=config["input_resolution"],
    )
    visual = _build_vision_tower(config["embed_dim"], vision, quick_gelu=True)
    options = config["network_options"]
    inside = TOKEN_T1D if options["tm"] == "tokent1d" else PLAIN
    made_of = Config(
        temporal=T_TRANS if options["sim_header"] == "Transf" else TAP,
        temporal_layers=config.get("temporal_layers", 1),
        heads=config.get("temporal_heads"),
        projection=False,
        way_in=FRAMES,
        inside=inside,
    )
    sizes = ModelSizes(config["context_length"], config["embed_dim"], config["embed_dim"])
    student = Text4VisStudent(made_of, sizes, VisualTower(visual, case.name, inside))
    student.load_state_dict(own_parameters(case.state), strict=True)
    return student.eval()


def own_parameters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters of the official ones."""
    ours = {}
    for name, value in state.items():
        if name == "logit_scale":
            ours["log_logit_scale"] = value
        elif name == POSITION:
            ours["temporal.position"] = value
        elif name.endswith(SHIFT):
            ours[f"tower.shifts.{name.removeprefix(BLOCK).removesuffix(SHIFT)}.weight"] = value
        elif name.startswith(TEMPORAL):
            number, _, rest = name.removeprefix(TEMPORAL).partition(".")
            ours[f"temporal.blocks.{number}.{BLOCK_NAMES[rest]}"] = value
        else:
            ours[f"tower.{name}"] = value
    return ours


def watch(student: Text4VisStudent) -> dict[str, Tensor]:
    """Fills, while the student runs, with what goes in and out of its parts."""
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, out: str, given: str = "") -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[out] = output
            if given:
                seen[given] = inputs[0]

        module.register_forward_hook(hook)

    assert student.tower is not None
    visual: Any = student.tower.visual
    if hasattr(visual, "layer1"):
        for number in range(1, 5):
            keep(getattr(visual, f"layer{number}"), f"rn_layer{number}")
    else:
        keep(visual.ln_pre, "vit_ln_pre")
        for number, block in enumerate(visual.transformer.resblocks):
            keep(block, f"vit_block{number}")
    for number, block in enumerate(getattr(student.temporal, "blocks", ())):
        keep(block, f"temporal_block{number}", "" if number else "temporal_in")
    return seen


def watch_shifted_blocks(student: Text4VisStudent, seen: dict[str, Tensor]) -> None:
    """The same of blocks that the tower itself puts together of their parts."""
    assert student.tower is not None
    tower, of_block = student.tower, student.tower.shifted_block

    def shifted_block(block: Any, shift: nn.Module, tokens: Tensor) -> Tensor:
        number = list(tower.shifts).index(shift)
        seen[f"vit_block{number}"] = of_block(block, shift, tokens)
        return seen[f"vit_block{number}"]

    tower.shifted_block = shifted_block  # type: ignore[method-assign]


def outputs(case: GoldenCase) -> dict[str, Tensor]:
    """Every output of a case; views are clips of a video, which follow one another."""
    student, config = student_of(case), case.config
    seen = watch(student)
    assert student.tower is not None
    if student.tower.inside == TOKEN_T1D:
        watch_shifted_blocks(student, seen)
    clips = case.inputs["frames"].unflatten(0, (-1, config["T"]))
    frames = student.tower.encode_pixels(clips)
    video = student.pool(frames, torch.ones(clips.shape[:2], dtype=torch.bool))
    batch = {CLASS_ROWS: case.inputs["text_emb"][None]}
    of_views = video.unflatten(0, (config["videos"], config["views"])).mean(1)
    return {
        **seen,
        "frame_emb": frames,
        "clip_emb": video,
        "video_probs": student.classify(of_views, batch).softmax(-1),
        "clip_logits": student.train().classify(video, batch),
    }
