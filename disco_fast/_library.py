"""Finds and loads the native halves, and explains the absence of one.

Importing this module never fails: without a library every op runs on its specification.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

MINIMUM_TORCH = (2, 10)
_MEND = "with a compiler, run `pip install --force-reinstall --no-deps .` in the source folder"


@dataclass(frozen=True)
class Half:
    """One half of the native library.

    Attributes:
        name: "cpu" or "cuda".
        active: whether its kernels run.
        why: one sentence: what was loaded, or what is missing and how to mend it.
    """

    name: str
    active: bool
    why: str


def _torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


def _load_cpu(folder: Path) -> Half:
    found = sorted(folder.glob("libdisco_fast_cpu.*"))
    if not found:
        why = "not built: no C++ compiler at install time, or this is an unbuilt source folder"
        return Half("cpu", False, f"{why} ({folder}); {_MEND}")
    if _torch_version() < MINIMUM_TORCH:
        return Half("cpu", False, f"torch {torch.__version__} is older than 2.10; upgrade torch")
    try:
        torch.ops.load_library(str(found[0]))
    except OSError as error:
        return Half("cpu", False, f"{found[0].name} does not load ({error}); {_MEND}")
    isa = torch.ops.disco_fast._instruction_set()
    return Half("cpu", True, f"{found[0].name} is loaded, kernels for instruction set {isa}")


def _load_cuda() -> Half:
    gpu = "a GPU is present" if torch.cuda.is_available() else "no GPU is present"
    return Half(
        "cuda", False, f"this version has no CUDA kernels: on a GPU the specification runs ({gpu})"
    )


@cache
def halves() -> tuple[Half, ...]:
    """Load what can be loaded, once, and say how it went.

    The environment variable `DISCO_FAST_NATIVE=off`, read here and only at import, leaves the
    native library out.
    """
    if os.environ.get("DISCO_FAST_NATIVE", "on").lower() == "off":
        cpu = Half("cpu", False, "switched off by DISCO_FAST_NATIVE=off")
    else:
        cpu = _load_cpu(Path(__file__).parent)
    return cpu, _load_cuda()
