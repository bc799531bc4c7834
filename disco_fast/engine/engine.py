"""The engine: a network prepared once for the machine it runs on."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from ..model import DISCO, DISCOOutput, assemble
from .precision import InFormat, resolve
from .preparation import prepare


class Engine(nn.Module):
    """Runs a DISCO network for inference.

    Args:
        network: the network as published; it is copied, not changed.
        precision: "auto", "fp32", "bf16" or "fp16", see `precision.py`.
        device: where to run; the CPU if None.
        without: names of rewrites to leave out, see `preparation.REWRITES`.

    Attributes:
        network: the prepared copy.
        precision: what `precision` was resolved to.
        device: where it runs.
    """

    def __init__(
        self,
        network: DISCO,
        precision: str = "auto",
        device: torch.device | str | None = None,
        without: Collection[str] = (),
    ):
        super().__init__()
        self.device = torch.device("cpu" if device is None else device)
        self.precision = resolve(precision, self.device)
        # Not copy.deepcopy, which refuses the weights that spectral norm computed in an earlier
        # forward pass.
        weights = {key: value.clone() for key, value in network.state_dict().items()}
        prepared = assemble(weights, network.width, network.cell_size)
        prepared.requires_grad_(False).to(self.device)
        prepare(prepared, without)
        prepared.segnet[0] = InFormat(prepared.segnet[0], "fp32")
        prepared.repnet = InFormat(prepared.repnet, self.precision, self._backbone_layout())
        prepared.enhanceNet = InFormat(prepared.enhanceNet, self.precision)
        self.network = prepared

    def _backbone_layout(self) -> torch.memory_format:
        # Channels-last is faster everywhere; but on a CPU its fp32 convolutions round ten times as
        # much (2e-5 instead of 2e-6 in the tokens), and fp32 is there to stay near the original.
        planar = self.precision == "fp32" and self.device.type == "cpu"
        return torch.contiguous_format if planar else torch.channels_last

    @torch.inference_mode()
    def forward(
        self,
        gray: Tensor,
        n_anchors: int = 8,
        kmeans_init: Tensor | None = None,
        variants: int = 1,
        seed: int = 0,
    ) -> DISCOOutput:
        """As `DISCO.forward`."""
        return self.network(gray, n_anchors, kmeans_init, variants, seed)
