"""Text4Vis, temporal transformer on a ResNet, against the official code's numbers."""

from tests.student_train.golden_text4vis import outputs

__all__ = ["outputs"]
