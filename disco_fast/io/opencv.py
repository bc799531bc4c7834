"""OpenCV, where it is needed: for the formats, and the steps, that nothing else here has."""

from __future__ import annotations

from types import ModuleType


def opencv(purpose: str) -> ModuleType:
    """The module ``cv2``, imported when it is first needed: it wants libraries of a desktop.

    Args:
        purpose: what it is needed for.

    Raises:
        ImportError: it cannot be loaded; the message says what helps.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs OpenCV, which cannot be loaded ({error}): install the system "
            "package libgl1 (Debian, Ubuntu) or mesa-libGL (Fedora), or replace the package "
            "opencv-python by opencv-python-headless"
        ) from error
    return cv2
