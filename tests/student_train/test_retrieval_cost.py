"""What a video costs at retrieval: TeachCLIP's Table 3, 2 KB to store and 0.5 k operations a pair."""

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from student_train.needs import PIXELS
from student_train.students import afa
from student_train.students.base import cosine_similarity

PAPER_KB, PAPER_KILO_OPERATIONS = 2, 0.5
FRAMES, WIDTH = 12, 512
SIZES = {
    "frame_embedding": {"M": FRAMES, "D": WIDTH},
    "text_embedding": {"D": WIDTH},
    PIXELS: {"M": FRAMES, "Y": 224, "X": 224, "C": 3},
}


@pytest.mark.parametrize("recipe", ["teachclip", "teachclip-paper-features", "demo"])
def test_a_video_is_one_vector_of_2_kb_whatever_its_frames(recipe: str) -> None:
    student = afa.build(afa.RECIPES[recipe].model, SIZES).eval()
    videos = {
        "frame_embedding": torch.randn(3, FRAMES, WIDTH),
        "frame_valid": torch.ones(3, FRAMES, dtype=torch.bool),
    }
    with torch.no_grad():
        stored = student.encode_videos(videos)["video_embedding"]
    assert set(student.gathers) == {"video_embedding", "text_embedding"}
    assert stored.dtype == torch.float32
    assert stored[0].numel() * stored.element_size() == PAPER_KB * 1024


@pytest.mark.slow
def test_every_setup_of_table_2_stores_vectors_of_clips_width() -> None:
    """ViT-B/32 and ViT-B/16 both project to 512; built without memory."""
    models = [afa.RECIPES[f"setup-{setup}"].model for setup in range(15)]
    for place, model in enumerate(models):
        if model not in models[:place]:
            with torch.device("meta"):
                student = afa.build(model, SIZES)
            assert student.temporal.position.shape == (FRAMES, WIDTH)


def test_a_pair_takes_half_a_thousand_multiplications() -> None:
    """As the paper's counter counts them, a multiplication and an addition are one operation."""
    student = afa.build(afa.RECIPES["teachclip"].model, SIZES)
    videos, texts = (functional.normalize(torch.randn(count, WIDTH), dim=-1) for count in (40, 30))
    with FlopCounterMode(display=False) as counter:
        scores = cosine_similarity(videos, texts)
    assert scores.shape == (40, 30)
    assert counter.get_total_flops() / 2 / scores.numel() / 1000 == pytest.approx(
        PAPER_KILO_OPERATIONS, abs=0.05
    )
    with torch.no_grad():
        scaled = student.similarity({"video_embedding": videos}, {"text_embedding": texts})
    assert torch.allclose(scaled, 100 * scores, atol=1e-3)
