"""The engine: a network prepared once for the machine it runs on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..model import DISCO, DISCOOutput, assemble
from .folding import fold_spectral_norm
from .precision import Reduced, resolve


class Engine(nn.Module):
    """Runs a DISCO network for inference.

    Args:
        network: the network as published; it is copied, not changed.
        precision: "auto", "fp32", "bf16" or "fp16", see `precision.py`.
        device: where to run; the CPU if None.

    Attributes:
        network: the prepared copy.
        precision: what `precision` was resolved to.
        device: where it runs.
    """

    def __init__(
        self, network: DISCO, precision: str = "auto", device: torch.device | str | None = None
    ):
        super().__init__()
        self.device = torch.device("cpu" if device is None else device)
        self.precision = resolve(precision, self.device)
        # Not copy.deepcopy, which refuses the weights that spectral norm computed in an earlier
        # forward pass.
        weights = {key: value.clone() for key, value in network.state_dict().items()}
        prepared = assemble(weights, network.width, network.cell_size)
        prepared.requires_grad_(False).to(self.device)
        fold_spectral_norm(prepared)
        if self.precision != "fp32":
            prepared.repnet = Reduced(prepared.repnet, self.precision)
            prepared.enhanceNet = Reduced(prepared.enhanceNet, self.precision)
        self.network = prepared

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
