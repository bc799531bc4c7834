"""PEP 517 backend: setuptools', with the torch that is already installed in view.

`pip install .` builds in an isolated environment that has no torch. Requiring torch there would
download gigabytes and could build against another torch than the one that will load the library.
The interpreter, however, belongs to the environment that is installed into, so that environment's
packages are appended to the search path instead: behind the isolated ones, so they never shadow a
build tool.
"""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from typing import Any

_OUTER = sysconfig.get_path("platlib")
if _OUTER not in sys.path:
    sys.path.append(_OUTER)

from setuptools import build_meta  # noqa: E402
from setuptools.build_meta import *  # noqa: E402, F403


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """The build requirements: torch only where none is installed."""
    requires = list(build_meta.get_requires_for_build_wheel(config_settings))
    if importlib.util.find_spec("torch") is None:
        requires.append("torch>=2.10")
    return requires
