"""Each encoder of tokens as one op. Exact but for rounding."""

from __future__ import annotations

from torch import Tensor, nn

from .. import ops, reference
from ..model import DISCO
from ..model.transformer import TokenEncoder


class EncoderAtOnce(nn.Module):
    """All layers of a token encoder in one op, whose weights are packed once."""

    def __init__(self, encoder: TokenEncoder):
        super().__init__()
        weights = reference.pack_encoder([layer.state_dict() for layer in encoder.layers])
        self.weights = nn.Parameter(weights, requires_grad=False)

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        """As `TokenEncoder`."""
        return ops.encoder(tokens, position, self.weights)


def encode_at_once(network: DISCO) -> None:
    """Run the color modeler and the color generator as one op each. In place."""
    for name in ("wildpath", "hintpath"):
        encoder = network.get_submodule(name)
        assert isinstance(encoder, TokenEncoder)
        setattr(network, name, EncoderAtOnce(encoder))
