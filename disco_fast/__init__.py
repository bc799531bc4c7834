"""disco_fast."""
from ._version import __version__
from .model import DISCO, DISCOOutput
