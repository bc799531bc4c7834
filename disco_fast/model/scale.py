"""The sizes that every part of the network shares."""

from ..reference import ENCODER_DIM

TOKEN_DIM = ENCODER_DIM  # width of a superpixel's token; independent of the network's width
STRIDE = 16  # the deepest network halves the picture four times


def scaled(channels: int, width: float) -> int:
    """A convolution's channel count at a network width; width 1 is the published network."""
    return max(1, round(channels * width))
