"""The ops, `torch.ops.disco_fast.*`, behind typed wrappers that check every argument first.

Each schema stands here, once. The specification (`reference/`) is registered for every device; a
native half that is loaded takes its device over. So an installation without any compiler has the
same ops, and torch.compile, torch.export and autograd see one opaque node either way. (The schemas
stand in Python and not in C++ because that installation has no C++.)
"""

import torch

from .. import _library
from .anchors import anchor_bins, choose_anchors, select_anchors
from .clustering import SEEDINGS, kmeans, kmeans_init
from .color import lab_to_rgb, rgb_to_l
from .convolutions import bias_act, convolve, quantize
from .schemas import SCHEMAS
from .superpixels import associate, sp_diffuse, sp_pool, sp_pool_with_size, superpixel_size
from .transformer import encoder

torch.library.define("disco_fast::_instruction_set", "() -> str")
_library.halves()

__all__ = [
    "SCHEMAS",
    "SEEDINGS",
    "anchor_bins",
    "associate",
    "bias_act",
    "choose_anchors",
    "convolve",
    "encoder",
    "kmeans",
    "kmeans_init",
    "lab_to_rgb",
    "quantize",
    "rgb_to_l",
    "select_anchors",
    "sp_diffuse",
    "sp_pool",
    "sp_pool_with_size",
    "superpixel_size",
]
