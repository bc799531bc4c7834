"""DISCO in ComfyUI: put this folder into `custom_nodes`."""

from .nodes import Anchors, Colorize, Load

NODE_CLASS_MAPPINGS = {
    "DiscoFastLoad": Load,
    "DiscoFastAnchors": Anchors,
    "DiscoFastColorize": Colorize,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "DiscoFastLoad": "Load DISCO",
    "DiscoFastAnchors": "DISCO Color Anchors",
    "DiscoFastColorize": "DISCO Colorize",
}
