"""Convolutions on a GPU: cuDNN multiplies, and what follows is one pass of `bias_act`.

torch passes over the result of cuDNN once for the bias, once for the activation and three times for
a batch norm in bf16, which together take longer than the products in bf16. `convolve` has both in
one kernel and needs no pass at all, but multiplies more slowly than cuDNN on some GPUs: a search
says for each shape which is faster.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..model import DISCO
from ..model.backbone import Backbone
from ..model.efficientnet import InvertedResidual
from ..model.refinenet import ResidualBlock
from ..model.spixnet import SPixNet
from .between import Between
from .convolutions import Convolution, MergedUpBlock
from .precision import InFormat
from .search import is_faster, is_time_to_search

_LEAST_CONVOLUTION = (1, 8, 1, 1), (8, 8, 3, 3)  # input and weight
_ALIGNED_CANDIDATES = 12  # channels of the logits: 48 bytes, which neither cuDNN nor a load splits


class FusedConvolution(nn.Module):
    """A convolution, and what follows it.

    Args:
        convolution: keeps its weight, which alone takes part in changes of the format.
        between: what follows.

    Attributes:
        tf32: whether fp32 may be rounded to 10 bits for tensor cores.
        slope: of the activation; 0 is a ReLU, 1 none.
        searches: whether `at_once` is tried out.
    """

    def __init__(self, convolution: Convolution, between: Between):
        super().__init__()
        self.weight = convolution.weight
        transposed = isinstance(convolution, nn.ConvTranspose2d)
        self._geometry = (
            convolution.stride,
            convolution.padding,
            convolution.dilation,
            transposed,
            convolution.output_padding,
            convolution.groups,
        )
        self.tf32, self.slope, self.searches = False, between.slope, False
        self._at_once: dict[torch.Size, bool] = {}  # by the shape of x: whether that is faster
        # Plain attributes, which stay fp32 whatever the network's format is.
        bias = convolution.bias
        self._bias = None if bias is None else bias.detach().float().clone()
        self._scale: Tensor | None = None
        self._shift: Tensor | None = None
        if between.has_norm:
            self._scale, self._shift = between.scale_and_shift(convolution.out_channels)

    def forward(
        self, x: Tensor, residual: Tensor | None = None, lead: Tensor | None = None
    ) -> Tensor:
        """[N,I,H,W] to [N,O,h,w].

        Args:
            x: in the dtype of the weight.
            residual: like the result, added before the activation; or None.
            lead: [N,L,h,w], put in front of the result; or None.
        """
        if lead is None and self._prefers_one_kernel(x, residual):
            return self.at_once(x, residual)
        return self._in_two(x, residual, lead)

    def at_once(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """The same without `lead` in one kernel, of what `fits`."""
        others = self._bias, residual, self.slope, self._scale, self._shift
        return ops.convolve(x, self.weight, *others)

    @property
    def fits(self) -> bool:
        """Whether `at_once` can do it."""
        same = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1)  # a border of one, nothing else
        outputs, inputs, *sides = self.weight.shape
        rounded = self.weight.dtype in (torch.float16, torch.bfloat16)
        rounded |= self.weight.dtype == torch.float32 and self.tf32
        piece = 16 // self.weight.element_size()
        aligned = outputs % piece == 0 and inputs % piece == 0
        return rounded and aligned and sides == [3, 3] and self._geometry == same

    def _prefers_one_kernel(self, x: Tensor, residual: Tensor | None) -> bool:
        unknown = self.searches and x.shape not in self._at_once
        if unknown and is_time_to_search(x.device) and self.fits:
            ways = partial(self.at_once, x, residual), partial(self._in_two, x, residual)
            self._at_once[x.shape] = is_faster(*ways)
        return self._at_once.get(x.shape, False)

    def _in_two(
        self, x: Tensor, residual: Tensor | None = None, lead: Tensor | None = None
    ) -> Tensor:
        # Whether to search is said by the capture around; the other settings are of this call.
        x = torch.ops.aten._convolution.default(
            x,
            self.weight,
            None,
            *self._geometry,
            torch.backends.cudnn.benchmark,
            True,  # deterministic
            True,  # cuDNN
            self.tf32,
        )
        others = residual, lead, self._bias, self._scale
        if self.slope == 1 and all(other is None for other in others):
            return x
        return ops.bias_act(x, self._bias, residual, self.slope, self._scale, self._shift, lead)

    def widen(self, inputs: int, outputs: int) -> None:
        """Take `inputs` channels and make `outputs`; what is added to the weights is zero."""
        more = outputs - self.weight.shape[0], inputs - self.weight.shape[1]
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, more[1], 0, more[0]))
        weight = weight.contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight, requires_grad=False)
        for name in ("_bias", "_scale", "_shift"):
            row = getattr(self, name)
            setattr(self, name, None if row is None else F.pad(row, (0, more[0])))

    def give_bias(self, channels: int) -> Tensor | None:
        """Leave adding the bias to the caller, and make `channels` channels, with zeros behind."""
        bias, self._bias = self._bias, None
        self.widen(self.weight.shape[1], channels)
        return bias


class FirstChannels(nn.Module):
    """The first channels of a map, which are the result where a convolution makes more."""

    def __init__(self, channels: int):
        super().__init__()
        self._channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] to [N,channels,H,W]."""
        return x[:, : self._channels]


class FusedSum(nn.Module):
    """A block whose input is added to its result by the last convolution's pass.

    Args:
        layers: the last is a `FusedConvolution` without activation.
        slope: of the activation after the sum.
    """

    def __init__(self, layers: nn.Sequential, slope: float):
        super().__init__()
        last = layers[-1]
        assert isinstance(last, FusedConvolution)
        last.slope = slope
        self.layers, self.last = layers[:-1], last

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] to the same."""
        return self.last(self.layers(x), x)


class FusedUpBlock(nn.Module):
    """A `MergedUpBlock` that adds and activates in the transposed convolution's pass."""

    def __init__(self, block: MergedUpBlock):
        super().__init__()
        self.conv1, self.up, self.skip, self.conv2 = block.conv1, block.up, block.skip, block.conv2
        _activate(self.up)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """As `UpBlock`."""
        return self.conv2(self.up(self.conv1(x), self.skip(skip)))


class FusedBackbone(Backbone):
    """A `Backbone` that adds and activates in the passes of its transposed convolutions."""

    def __init__(self, backbone: Backbone):
        nn.Module.__init__(self)
        _take_children(self, backbone)
        # Each of these stages begins with a ReLU, which goes to the end of the one before.
        _activate(self.conv8up)
        _activate(self.conv10up)
        self.conv8_3 = nn.Sequential(*list(self.conv8_3)[1:])
        self.conv10_2 = nn.Sequential(*list(self.conv10_2)[1:])

    def forward(self, gray: Tensor) -> Tensor:
        """As `Backbone`."""
        x3, x7 = self.encode(gray)
        x8 = self.conv8_3(self.conv8up(x7, self.conv3short8(x3)))
        return self.conv10_2(self.conv10up(self.conv9_2(self.conv9up(x8))))


class FusedSPixNet(SPixNet):
    """An `SPixNet` whose transposed convolutions' passes join the skip connections.

    One more pass takes the logits from channels-last to a planar association.
    """

    def __init__(self, network: SPixNet):
        nn.Module.__init__(self)
        _take_children(self, network)
        last = network.pred_mask0
        assert isinstance(last, FusedConvolution)
        self._bias = last.give_bias(_ALIGNED_CANDIDATES)

    def joined(self, skip: Tensor, deconv: nn.Module, x: Tensor) -> Tensor:
        """As `SPixNet.joined`."""
        return deconv.get_submodule("0")(x, lead=skip)

    def associated(self, x: Tensor) -> Tensor:
        """As `SPixNet.associated`."""
        return ops.associate(self.pred_mask0(x), self._bias)


def _take_children(fused: nn.Module, network: nn.Module) -> None:
    """Have a fused network consist of the parts of the one that it replaces. In place."""
    for name, child in network.named_children():
        setattr(fused, name, child)


def _activate(convolution: nn.Module) -> None:
    """Have a convolution end in a ReLU. In place."""
    assert isinstance(convolution, FusedConvolution)
    convolution.slope = 0.0


def has_convolve(device: torch.device) -> bool:
    """Whether a GPU can run `ops.convolve`: some are too old, and so may be the library's code."""
    x, weight = (
        torch.zeros(shape, dtype=torch.bfloat16, device=device) for shape in _LEAST_CONVOLUTION
    )
    try:
        ops.convolve(x, weight, None, None, 0.0)
    except RuntimeError:
        return False
    return True


def align_channels(network: DISCO) -> None:
    """Have fused convolutions in their formats move whole packs of 16 bytes. In place.

    SPixNet and the published backbone get lightness repeated to four and eight channels, and
    weights of zero ignore the copies. RefineNet's last convolution makes eight channels, of which
    two are the colors.
    """
    for network_in_format, first, inputs in (
        (network.segnet[0], "conv0a.0", 4),  # fp32
        (network.repnet, "conv1_2.0", 8),
    ):
        if isinstance(network_in_format, InFormat):
            network_in_format.repeats = inputs
            convolution = network_in_format.network.get_submodule(first)
            assert isinstance(convolution, FusedConvolution)
            convolution.widen(inputs, len(convolution.weight))
    refinenet = network.enhanceNet.get_submodule("network")
    last = refinenet.get_submodule("outConv")
    assert isinstance(last, FusedConvolution)
    outputs, inputs = last.weight.shape[:2]
    last.widen(inputs, 8)
    refinenet.outConv = nn.Sequential(last, FirstChannels(outputs))


def fuse_convolutions(network: nn.Module) -> None:
    """Fuse every convolution with what follows it. In place."""
    for name, child in list(network.named_children()):
        setattr(network, name, _fused(child))


def _fused(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.Sequential):
        return _fused_sequence(module)
    if isinstance(module, Convolution):
        return FusedConvolution(module, Between())
    fuse_convolutions(module)
    if isinstance(module, MergedUpBlock):
        return FusedUpBlock(module)
    if isinstance(module, Backbone) and isinstance(module.conv8up, FusedConvolution):
        return FusedBackbone(module)
    if isinstance(module, SPixNet):
        return FusedSPixNet(module)
    if isinstance(module, ResidualBlock):
        return FusedSum(module.conv, 0.0)
    if isinstance(module, InvertedResidual) and module.adds:
        return FusedSum(module.layers, 1.0)
    return module


def _fused_sequence(sequence: nn.Sequential) -> nn.Sequential:
    done: list[nn.Module] = []
    waiting = list(sequence)
    while waiting:
        module, between = waiting.pop(0), Between()
        if isinstance(module, Convolution):
            while waiting and between.take(waiting[0]):
                waiting.pop(0)
            done.append(FusedConvolution(module, between))
        else:
            done.append(_fused(module))
    return nn.Sequential(*done)
