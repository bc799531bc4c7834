"""Which number format the convolutions run in.

Whatever the precision, SPixNet, the color modeler, K-Means and everything else that picks anchors
compute in fp32; on a GPU, SPixNet in TF32 unless the precision is fp32. The features that they
start from are rounded, and that can move an anchor; how often is in docs/accuracy.md.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from ..model import DISCO
from ..model.efficientnet import EfficientNetBackbone

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.bfloat16,  # what is not in 8 bits
}


def resolve(precision: str, device: torch.device) -> str:
    """The precision that `precision` means on `device`: "fp32", "bf16", "fp16" or "int8".

    "auto" is bf16 where the hardware multiplies bf16, fp16 on older GPUs, else fp32. It is never
    int8, which differs from fp32 by more than bf16 does. A CPU that only emulates bf16 computes in
    it where asked to, and a warning says what is faster.

    Raises:
        ValueError: unknown name, fp16 on a CPU (where nothing computes in it), or int8 elsewhere
            than on a CPU that multiplies bytes.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision: fp16 runs on GPUs only, on a CPU use bf16 or fp32")
    if precision == "int8" and device.type != "cpu":
        raise ValueError("precision: int8 runs on CPUs only, on a GPU use bf16 or fp16")
    if precision == "int8" and not cpu_has_int8():
        raise ValueError(
            "precision: int8 needs a processor with VNNI or AMX instructions, here use fp32"
        )
    if precision == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        warnings.warn(
            'this processor has no bf16 instructions and is many times faster in precision="fp32"',
            stacklevel=2,
        )
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Whether this processor has bf16 instructions; emulated bf16 is slower than fp32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def cpu_has_int8() -> bool:
    """Whether this processor multiplies bytes (VNNI, AMX), and torch has convolutions that do."""
    convolution = hasattr(torch.ops.onednn, "qconv2d_pointwise")
    return convolution and getattr(torch.cpu, "_is_vnni_supported", lambda: False)()


class InFormat(nn.Module):
    """A convolutional network in a precision and a memory layout, with fp32 inputs and outputs.

    Args:
        network: converted in place.
        precision: as `resolve` gives it.
        layout: of weights and activations.
        widens: whether the output is fp32; else it is as the network gives it.

    Attributes:
        repeats: how many channels the network takes in place of one.
    """

    def __init__(
        self,
        network: nn.Module,
        precision: str,
        layout: torch.memory_format = torch.channels_last,
        widens: bool = True,
    ):
        super().__init__()
        self.dtype, self.layout, self._widens = DTYPES[precision], layout, widens
        self.repeats = 1
        network.to(memory_format=layout)  # type: ignore[call-overload]
        self.network = network.to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] fp32 to fp32, or to the dtype of the network's output.

        A single channel is repeated `repeats` times.
        """
        if self.repeats > 1:
            x = x.expand(-1, self.repeats, -1, -1)
        result = self.network(x.to(self.dtype, memory_format=self.layout))
        return result.float() if self._widens else result


def set_formats(network: DISCO, precision: str) -> None:
    """Run the convolutions in `precision`, and in the layout that suits them. In place."""
    network.segnet[0] = InFormat(network.segnet[0], "fp32")
    if isinstance(network.repnet, EfficientNetBackbone):
        # The curve from lightness to gray stays fp32.
        network.repnet.pyramid = InFormat(network.repnet.pyramid, precision)
    elif precision == "fp32" and network.mid_word_prj.weight.device.type == "cpu":
        for name, stage in list(network.repnet.named_children()):
            setattr(network.repnet, name, InFormat(stage, "fp32", _layout_on_cpu(stage)))
    else:
        network.repnet = InFormat(network.repnet, precision, widens=False)  # SP-Pooling does it
    network.enhanceNet = InFormat(network.enhanceNet, precision)


def _layout_on_cpu(stage: nn.Module) -> torch.memory_format:
    """Channels-last is faster, but rounds more, the longer its sums are; and fp32 is for accuracy.

    Against planar, channels-last has 1.7 times the error with sums of 576 products, where it takes
    half the time, and 3.1 times with 4,608, where it takes 0.85 of it (oneDNN on AVX-512).
    """
    short = all(_products(module) <= 576 for module in stage.modules())
    return torch.channels_last if short else torch.contiguous_format


def _products(module: nn.Module) -> int:
    """How many products an output of a convolution is the sum of; 0 for anything else."""
    if isinstance(module, nn.ConvTranspose2d):
        height, width = module.stride
        return module.weight[:, 0].numel() // (height * width)
    return module.weight[0].numel() if isinstance(module, nn.Conv2d) else 0
