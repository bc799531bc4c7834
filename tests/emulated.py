"""The CUDA kernels in place of the CPU's: run by the host, through the CUDA half's tensor layer."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock

from disco_fast import ops

SOURCE = Path(__file__).parent / "native"
TOOLS = ("cmake", "ninja", "c++")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
REASON = f"needs {', '.join(MISSING)}"

folder = Path()  # of the library; set by conftest.py, for all processes that test side by side


class Order(IntEnum):
    """In which order the emulated GPU resumes the threads of a block."""

    ASCENDING = 0
    DESCENDING = 1
    SHUFFLED = 2


def run(*command: str) -> None:
    """Run a command.

    Raises:
        RuntimeError: it failed, with the end of what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def build(folder: Path, target: str, **settings: object) -> Path:
    """Build a target of tests/native; returns its file."""
    options = [f"-DDISCO_FAST_{name}={value}" for name, value in settings.items()]
    run("cmake", "-G", "Ninja", "-S", str(SOURCE), "-B", str(folder), *options)
    run("cmake", "--build", str(folder), "--target", target)
    return next(path for path in (folder / target, folder / f"lib{target}.so") if path.exists())


def sanitized(program: str, sanitizer: str) -> Path:
    """A program of tests/native under a sanitizer, built by the first who asks."""
    place = folder / sanitizer.replace(",", "-")
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / "lock"):
        built = place / program
        return built if built.exists() else build(place, program, SANITIZER=sanitizer)


@cache
def library():
    """The namespace `torch.ops.disco_fast_emulated`, loaded once, and built by the first."""
    for name, schema in ops.SCHEMAS.items():
        torch.library.define(f"disco_fast_emulated::{name}", schema)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        built = folder / "disco_fast_emulated.so"
        if not built.exists():
            build(folder, "disco_fast_emulated", TORCH_DIR=torch.__path__[0]).rename(built)
        torch.ops.load_library(str(built))
    return torch.ops.disco_fast_emulated


@contextmanager
def on_emulated_gpu() -> Iterator[None]:
    """Every op of `disco_fast.ops` runs on the emulated kernels."""
    emulated = library()
    override = torch.library.Library("disco_fast", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously")
        for name in ops.SCHEMAS:
            override.impl(name, getattr(emulated, name).default, "CPU", allow_override=True)
    try:
        yield
    finally:
        override._destroy()


@contextmanager
def thread_order(order: Order) -> Iterator[None]:
    """Threads are resumed in that order."""
    library()._set_order(order)
    try:
        yield
    finally:
        library()._set_order(Order.ASCENDING)


@contextmanager
def shared_memory(limit: int) -> Iterator[None]:
    """A block may have so many bytes of shared memory."""
    library()._set_shared_memory_limit(limit)
    try:
        yield
    finally:
        library()._set_shared_memory_limit(227 << 10)  # compute capability 9.0


@contextmanager
def static_shared_memory(size: int) -> Iterator[None]:
    """Every kernel is taken to have so many bytes of static shared memory."""
    library()._set_static_shared_memory(size)
    try:
        yield
    finally:
        library()._set_static_shared_memory(0)


@contextmanager
def multiprocessors(count: int) -> Iterator[None]:
    """The GPU has so many of them: a cooperative grid has at most so many blocks."""
    library()._set_multiprocessors(count)
    try:
        yield
    finally:
        library()._set_multiprocessors(4)


@contextmanager
def architecture(capability: int) -> Iterator[None]:
    """The kernels' code is for that compute capability, as in 75."""
    library()._set_architecture(capability)
    try:
        yield
    finally:
        library()._set_architecture(90)
