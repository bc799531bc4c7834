"""The network as published, with the official state_dict keys."""

from .disco import (
    BACKBONES,
    DISCO,
    DISCOOutput,
    Generated,
    Placed,
    Ranges,
    Superpixels,
    assemble,
)

__all__ = [
    "BACKBONES",
    "DISCO",
    "DISCOOutput",
    "Generated",
    "Placed",
    "Ranges",
    "Superpixels",
    "assemble",
]
