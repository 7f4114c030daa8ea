"""Text4Vis, six-layer temporal transformer, against the official code's numbers."""

from tests.student_train.golden_text4vis import outputs

__all__ = ["outputs"]
