"""The network as published, with the official state_dict keys."""

from .disco import DISCO, DISCOOutput, Generated, Placed, Superpixels, assemble

__all__ = ["DISCO", "DISCOOutput", "Generated", "Placed", "Superpixels", "assemble"]
