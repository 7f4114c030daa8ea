"""Text4Vis, convolution over frames of [CLS] in every block, against the official code's numbers."""

from tests.student_train.golden_text4vis import outputs

__all__ = ["outputs"]
