"""The network as published, with the official state_dict keys."""

from .disco import DISCO, DISCOOutput, assemble

__all__ = ["DISCO", "DISCOOutput", "assemble"]
