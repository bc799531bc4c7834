"""The engine: a network prepared once for the machine it runs on."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from ..model import DISCO, DISCOOutput, Placed, Superpixels
from .graphs import CudaGraphs, Replays, settled
from .precision import resolve
from .prepared import PreparedDISCO


class Engine(nn.Module):
    """Runs a DISCO network for inference, from any thread and on any stream.

    Args:
        network: the network as published; it is copied, not changed.
        precision: "auto", "fp32", "bf16", "fp16" or "int8", see `precision.py`.
        device: where to run; the CPU if None.
        without: rewrites to skip, names out of `prepared.REWRITES`.

    Attributes:
        network: the prepared copy.
        precision: what `precision` was resolved to.
        device: where it runs.
    """

    _likely: Tensor
    _vivid: Tensor

    def __init__(
        self,
        network: DISCO,
        precision: str = "auto",
        device: torch.device | str | None = None,
        without: Collection[str] = (),
    ):
        super().__init__()
        self.device = _with_index(torch.device("cpu" if device is None else device))
        self.precision = resolve(precision, self.device)
        self.network = PreparedDISCO(network, self.precision, self.device, without)
        for name, end in zip(("_likely", "_vivid"), network.readout.ends(), strict=True):
            self.register_buffer(name, end.to(self.device), persistent=False)
        self._replays = Replays(self._chroma, CudaGraphs().capture)

    @torch.inference_mode()
    def forward(
        self,
        gray: Tensor,
        n_anchors: int = 8,
        kmeans_init: Tensor | None = None,
        variants: int = 1,
        seed: int = 0,
        offset: Tensor | None = None,
    ) -> DISCOOutput:
        """As `DISCO.forward`: everything there is to know, launched step by step."""
        with settled(self.device):
            return self.network(gray, n_anchors, kmeans_init, variants, seed, offset)

    @torch.inference_mode()
    def offset(self, vividness: float | None = None) -> Tensor:
        """What a vividness adds to the color logits, [313], for the methods below.

        Args:
            vividness: from 0, the most likely colors, to 1, vivid ones; that of the checkpoint if
                None.
        """
        chosen = self.network.readout.vividness if vividness is None else float(vividness)
        return torch.add(self._likely, self._vivid, alpha=chosen)

    @torch.inference_mode()
    def chroma(
        self,
        gray: Tensor,
        n_anchors: int = 8,
        kmeans_init: Tensor | None = None,
        variants: int = 1,
        seed: int = 0,
        offset: Tensor | None = None,
    ) -> Tensor:
        """Only the result, `DISCOOutput.ab`; on a GPU as one launch from the second time on.

        Args and errors: as `DISCO.forward`. What counts as the same again is the shape of `gray`
        and every setting but the values of `offset`.
        """
        with settled(self.device):
            # Within a capture of the caller's own, the steps become part of that.
            if self.device.type != "cuda" or torch.cuda.is_current_stream_capturing():
                return self.network.chroma(gray, n_anchors, kmeans_init, variants, seed, offset)
            given = {"kmeans_init": kmeans_init, "offset": offset}
            extra = {name: tensor for name, tensor in given.items() if tensor is not None}
            inputs = (gray, *extra.values())
            return self._replays(inputs, tuple(extra), n_anchors, variants, seed)

    # The same in parts, launched step by step, for what comes between them.

    @torch.inference_mode()
    def superpixels(self, gray: Tensor) -> Superpixels:
        """As `DISCO.superpixels`."""
        with settled(self.device):
            return self.network.superpixels(gray)

    @torch.inference_mode()
    def place(
        self,
        superpixels: Superpixels,
        n_anchors: int = 8,
        kmeans_init: Tensor | None = None,
        variants: int = 1,
        seed: int = 0,
        offset: Tensor | None = None,
    ) -> Placed:
        """As `DISCO.place`."""
        with settled(self.device):
            return self.network.place(superpixels, n_anchors, kmeans_init, variants, seed, offset)

    @torch.inference_mode()
    def colors(
        self,
        superpixels: Superpixels,
        anchors: Tensor,
        variants: int = 1,
        offset: Tensor | None = None,
    ) -> Tensor:
        """As `DISCO.colors`."""
        with settled(self.device):
            return self.network.colors(superpixels.color_tokens, anchors, variants, offset)

    @torch.inference_mode()
    def color_logits(self, superpixels: Superpixels) -> Tensor:
        """What the color modeler makes of each superpixel's color, [N,P,313]."""
        with settled(self.device):
            return self.network.mid_word_prj(superpixels.color_tokens)

    @torch.inference_mode()
    def generate(
        self, gray: Tensor, superpixels: Superpixels, anchors: Tensor, bins: Tensor
    ) -> Tensor:
        """As `DISCO.generate`, of which only the result, [M,2,H,W] ab/110."""
        with settled(self.device):
            return self.network.generate(gray, superpixels, anchors, bins).ab

    def _chroma(
        self,
        inputs: tuple[Tensor, ...],
        extra: tuple[str, ...],
        n_anchors: int,
        variants: int,
        seed: int,
    ) -> Tensor:
        """What is replayed: the result for the image, and further inputs by these names."""
        named = dict(zip(extra, inputs[1:], strict=True))
        return self.network.chroma(
            inputs[0], n_anchors=n_anchors, variants=variants, seed=seed, **named
        )

    @property
    def launching(self) -> str:
        """How the steps of `chroma` reach the device, and why not otherwise; in words."""
        if self.device.type != "cuda":
            return "step by step: no GPU"
        if self._replays.refusal:
            return f"step by step: {self._replays.refusal}"
        return "as CUDA graphs"


def _with_index(device: torch.device) -> torch.device:
    """The same device even where another one becomes current."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
