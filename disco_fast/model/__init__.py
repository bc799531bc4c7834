"""The network as published, with the official state_dict keys."""

from .disco import DISCO, DISCOOutput, Generated, Superpixels, assemble

__all__ = ["DISCO", "DISCOOutput", "Generated", "Superpixels", "assemble"]
