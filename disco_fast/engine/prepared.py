"""The network as an engine runs it: less work for the same result, one rewrite after the other."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops, reference
from ..color import N_BINS
from ..model import DISCO
from ..model.backbone import Backbone
from ..model.refinenet import RefineNet
from ..model.scale import TOKEN_DIM
from ..model.transformer import TokenEncoder, position_encoding
from .convolutions import (
    fold_batch_norm,
    fold_spectral_norm,
    fold_standardization,
    merge_upsampling,
    pack_convolutions,
    spread_lead,
    widen_kernels,
)
from .fused import FusedConvolution, align_channels, fuse_convolutions, has_convolve
from .graphs import capture_streams, captures_here, keep
from .int8 import Int8Convolution, convolve_in_int8
from .precision import DTYPES, set_formats

REWRITES = {
    "spectral norm": "every normalized weight is divided by its norm once and for all",
    "batch norm": "those after a convolution are folded into it",
    "standardization": "of EfficientNet's scales; the projections after it do its work",
    "padding": "a convolution does the padding before it, with zeros in its kernel",
    "upsampling": "it and the convolution after it are one transposed convolution",
    "alignment": "on a GPU, there are as many channels as make packs of 16 bytes, some of zeros",
    "fusing": "on a GPU, what follows a convolution is one pass over its result",
    "one kernel": "on a GPU, a convolution and that pass, where this is found to be faster",
    "anchor projection": "only the anchors go through the 313-way projection",
    "color look-up": "a one-hot color times a matrix is a row of it",
    "guided logits": "no second 313-way projection, for nothing depends on it",
    "positions": "the position encoding of a grid is computed once",
    "encoders": "each encoder of tokens is one op",
    "branches": "in a CUDA graph SPixNet runs beside the backbone",
    "packing": "oneDNN's order of weights, and activations within convolutions, on x86 CPUs",
}
"""Rewrites by name, with what each does, in the order in which they are applied.

Exact but for rounding.
"""

GRIDS = 8  # whose position encodings are kept: 64 KB each at 256 superpixels, 4 MB at 16,384
ALIGNED_LEAD = 8  # channels: 16 bytes of bf16


class PreparedDISCO(DISCO):
    """A copy of a network in eval mode, rewritten for inference.

    Args:
        network: as published; it is not changed.
        precision: of the convolutions, "fp32", "bf16", "fp16" or "int8".
        device: where it will run.
        without: rewrites to skip, names out of `REWRITES`; without "spectral norm" also those that
            change convolutions.

    Raises:
        ValueError: a name is unknown, or for int8 the network's ranges are.
    """

    _of_token: Tensor
    _of_bin: Tensor

    def __init__(
        self,
        network: DISCO,
        precision: str,
        device: torch.device | str = "cpu",
        without: Collection[str] = (),
    ):
        if precision == "int8" and network.ranges is None:
            raise ValueError(
                "precision: int8 needs a checkpoint that says where its values lie; 'disco-fast"
                " calibrate' writes one"
            )
        if unknown := set(without) - set(REWRITES):
            raise ValueError(
                f"without: expected names out of {', '.join(REWRITES)}, got {', '.join(unknown)}"
            )
        with torch.device("meta"):
            super().__init__(network.width, network.cell_size, network.backbone)
        # Prepared on the given weights and copied afterwards: most are others by then.
        given = network.state_dict()
        self.load_state_dict(given, assign=True)
        self.readout = network.readout
        self.eval().requires_grad_(False).to(device)
        self._rewrites = frozenset(REWRITES).difference(without)
        self._dtype = DTYPES[precision]
        self._encodings = lru_cache(GRIDS)(_encoding)
        self._rewrite_convolutions()
        self._rewrite_tokens()
        self._lead_channels = 1
        if torch.device(device).type == "cuda":
            self._rewrite_for_gpu(tf32=precision != "fp32")
        if precision == "int8":
            convolve_in_int8(self, network.ranges or {})
            self._widen_features()
        set_formats(self, precision)
        fused = torch.device(device).type == "cuda" and "fusing" in self._rewrites
        if fused and "alignment" in self._rewrites and precision != "fp32":
            align_channels(self)  # in fp32 nothing takes packs
        if "packing" in self._rewrites:
            pack_convolutions(self)  # needs every convolution in its final format
        shared = {tensor.data_ptr() for tensor in given.values()}
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.layout == torch.strided and tensor.data_ptr() in shared:
                tensor.data = tensor.data.clone()

    def _rewrite_convolutions(self) -> None:
        # Spectral norm comes first: the others read weights.
        if "spectral norm" in self._rewrites:
            fold_spectral_norm(self)
        if "batch norm" in self._rewrites:
            fold_batch_norm(self)
        if "standardization" in self._rewrites:
            fold_standardization(self)
        if "padding" in self._rewrites:
            widen_kernels(self)
        if "upsampling" in self._rewrites:
            merge_upsampling(self)

    def _rewrite_for_gpu(self, tf32: bool) -> None:
        if "alignment" in self._rewrites:
            assert isinstance(self.enhanceNet, RefineNet)
            self._lead_channels = ALIGNED_LEAD
            spread_lead(self.enhanceNet, ALIGNED_LEAD)
        if "fusing" not in self._rewrites:
            return
        fuse_convolutions(self)
        device = self.mid_word_prj.weight.device
        searches = tf32 and "one kernel" in self._rewrites and has_convolve(device)
        for module in self.modules():
            if isinstance(module, FusedConvolution):
                module.searches = searches
        # SPixNet stays fp32; where the features are rounded more, tensor cores may multiply it.
        for module in self.segnet.modules():
            if isinstance(module, FusedConvolution):
                module.tf32 = tf32

    def _widen_features(self) -> None:
        if isinstance(self.repnet, Backbone):
            last = self.repnet.conv10_2[-1]
            if isinstance(last, Int8Convolution):
                last.dtype = torch.float32  # as they are pooled

    def _rewrite_tokens(self) -> None:
        if "color look-up" in self._rewrites:
            # The color generator's input is Linear(cat(token, mask * one_hot(bin), mask)).
            weight = self.trg_word_emb.weight.detach()
            of_token, of_bin, of_mask = weight.split([TOKEN_DIM, N_BINS, 1], dim=1)
            self.register_buffer("_of_token", of_token.contiguous(), persistent=False)
            self.register_buffer("_of_bin", (of_bin + of_mask).t().contiguous(), persistent=False)
        if "encoders" in self._rewrites:
            self.wildpath = EncoderAtOnce(self.wildpath)
            self.hintpath = EncoderAtOnce(self.hintpath)

    def colors(
        self, color_tokens: Tensor, anchors: Tensor, variants: int = 1, offset: Tensor | None = None
    ) -> Tensor:
        """As `DISCO.colors`."""
        if "anchor projection" not in self._rewrites:
            return super().colors(color_tokens, anchors, variants, offset)
        rows = color_tokens.gather(1, anchors[..., None].expand(-1, -1, color_tokens.shape[-1]))
        own = torch.arange(anchors.shape[1], device=anchors.device).expand_as(anchors)
        return super().colors(rows, own, variants, offset)

    def _choose(
        self,
        color_tokens: Tensor,
        labels: Tensor,
        sizes: Tensor,
        n_anchors: int,
        variants: int,
        offset: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        if "anchor projection" not in self._rewrites:
            return super()._choose(color_tokens, labels, sizes, n_anchors, variants, offset)
        anchors = self.ops.select_anchors(labels, sizes, n_anchors)
        return anchors, self.colors(color_tokens, anchors, variants, offset), None

    def _embed(self, tokens: Tensor, anchors: Tensor, bins: Tensor) -> Tensor:
        if "color look-up" not in self._rewrites:
            return super()._embed(tokens, anchors, bins)
        colors = self._of_bin[bins]
        place = anchors[..., None].expand_as(colors)
        return F.linear(tokens, self._of_token).scatter_add_(1, place, colors)

    def _guided_logits(self, guided_tokens: Tensor, rows: int) -> Tensor | None:
        if "guided logits" not in self._rewrites:
            return super()._guided_logits(guided_tokens, rows)
        return None

    def _position(self, rows: int, columns: int, device: torch.device) -> Tensor:
        # torch.compile cannot look into a cache, and makes a constant of it anyway. A caller's own
        # CUDA graph would go on reading what the cache has dropped.
        capturing = _capturing(device)
        afresh = torch.compiler.is_compiling() or (capturing and not captures_here(device))
        if "positions" not in self._rewrites or afresh:
            return super()._position(rows, columns, device)
        # Another stream would have to wait for the one that computes it.
        stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
        position = self._encodings(rows, columns, device, stream)
        return keep(position) if capturing else position

    def _extract(self, gray: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        # Launched one by one, the host is what they wait for, and a second stream is no help.
        if "branches" not in self._rewrites or not _capturing(gray.device):
            return super()._extract(gray, rows, columns)
        # Neither needs the other, and SPixNet alone does not fill a GPU.
        trunk, (_, branch) = torch.cuda.current_stream(), capture_streams(gray.device.index)
        position = self._position(rows, columns, gray.device)
        branch.wait_stream(trunk)
        with torch.cuda.stream(branch):
            association = self.segnet(gray)
        features = self.repnet(gray)
        trunk.wait_stream(branch)
        return association, features, position

    def _spread(self, tokens: Tensor, association: Tensor, gray: Tensor) -> Tensor:
        # Converts 10 channels in front of SP-Diffusion instead of 65 behind it.
        association = association.to(self._dtype, memory_format=torch.channels_last)
        lead = gray.to(self._dtype)
        return self.ops.sp_diffuse(tokens, association, self.cell_size, lead, self._lead_channels)


class EncoderAtOnce(nn.Module):
    """All layers of a token encoder in one op, whose weights are packed once."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        assert isinstance(encoder, TokenEncoder)
        weights = reference.pack_encoder([layer.state_dict() for layer in encoder.layers])
        self.weights = nn.Parameter(weights, requires_grad=False)

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        """As `TokenEncoder`."""
        return ops.encoder(tokens, position, self.weights)


def _encoding(rows: int, columns: int, device: torch.device, stream: int) -> Tensor:
    """The position encoding of a grid, for one stream."""
    return position_encoding(rows, columns, device)


def _capturing(device: torch.device) -> bool:
    """Whether what is launched on a device becomes a part of a CUDA graph."""
    on_gpu = device.type == "cuda" and not torch.compiler.is_compiling()
    return on_gpu and torch.cuda.is_current_stream_capturing()
