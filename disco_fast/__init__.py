"""disco_fast: DISCO image colorization through global anchors, fast.

    import disco_fast
    color = disco_fast.colorize(gray)  # (..., 1 or 3, H, W), uint8 or floating

Layers, each importing only those after it: command line -> colorizer -> analysis -> engine ->
model -> ops -> native library.
"""

from ._version import __version__
from .analysis import Analysis
from .anchors import Anchor
from .checkpoints import CheckpointError, load_checkpoint
from .colorizer import Colorizer, colorize
from .engine.memory import keep_memory
from .model import DISCO, DISCOOutput
from .options import ColorizeOptions

__all__ = [
    "DISCO",
    "Analysis",
    "Anchor",
    "CheckpointError",
    "ColorizeOptions",
    "Colorizer",
    "DISCOOutput",
    "__version__",
    "colorize",
    "keep_memory",
    "load_checkpoint",
]
