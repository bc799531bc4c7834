"""The network as published, with the official state_dict keys."""

from .disco import DISCO, DISCOOutput

__all__ = ["DISCO", "DISCOOutput"]
