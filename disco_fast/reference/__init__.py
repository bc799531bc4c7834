"""The specification: what every op means, in plain PyTorch, on any device and in any float dtype.

Each op is written as the paper defines it, to be read and to be compared with: every faster form
is tested against it. Where a device has no native library, it also runs instead.

Pixel tensors (features, association) may be half precision; superpixel tensors (tokens, weights,
sizes) are in `wide_dtype`, in which all sums are kept.

Shapes: N images, C channels, H x W pixels, h x w = P superpixels with H = h * cell_size and W = w *
cell_size, K clusters of D-dimensional points.
"""

from .anchors import (
    COLOR_PARTS,
    MAX_VARIANTS,
    SIZE_BONUS,
    TOP_BINS,
    anchor_bins,
    choose_anchors,
    diverse_bins,
    mean_bins,
    select_anchors,
)
from .clustering import kmeans, kmeans_init
from .color import RGB_TO_XYZ, WHITE, XYZ_TO_RGB, lab_to_rgb, rgb_to_l
from .convolutions import bias_act, convolve, quantize, round_to_tf32
from .superpixels import (
    EPSILON,
    associate,
    layout_of,
    neighbour_offsets,
    sp_aggregate,
    sp_correlate,
    sp_diffuse,
    sp_pool,
    sp_pool_with_size,
    superpixel_size,
    wide_dtype,
)
from .transformer import (
    ENCODER_DIM,
    ENCODER_LAYER,
    ENCODER_PARAMETERS,
    HEADS,
    NORM_EPSILON,
    encoder,
    pack_encoder,
    unpack_layer,
)

__all__ = [
    "COLOR_PARTS",
    "ENCODER_DIM",
    "ENCODER_LAYER",
    "ENCODER_PARAMETERS",
    "EPSILON",
    "HEADS",
    "MAX_VARIANTS",
    "NORM_EPSILON",
    "RGB_TO_XYZ",
    "SIZE_BONUS",
    "TOP_BINS",
    "WHITE",
    "XYZ_TO_RGB",
    "anchor_bins",
    "associate",
    "bias_act",
    "choose_anchors",
    "convolve",
    "diverse_bins",
    "encoder",
    "kmeans",
    "kmeans_init",
    "lab_to_rgb",
    "layout_of",
    "mean_bins",
    "neighbour_offsets",
    "pack_encoder",
    "quantize",
    "rgb_to_l",
    "round_to_tf32",
    "select_anchors",
    "sp_aggregate",
    "sp_correlate",
    "sp_diffuse",
    "sp_pool",
    "sp_pool_with_size",
    "superpixel_size",
    "unpack_layer",
    "wide_dtype",
]
