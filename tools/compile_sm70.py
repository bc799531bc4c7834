"""Compiles every CUDA kernel for sm_70, the paper's V100, with NVRTC 12. Needs no GPU.

    pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12
    python tools/compile_sm70.py benchmarks/results/ptxas.json

nvcc 13 has dropped this architecture; building with CUDA 12 still supports it. The names of the
kernels come from the table of their resources, so that none is left out.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

KERNELS = Path(__file__).resolve().parent.parent / "csrc" / "kernels"
# NVRTC has no standard library, and what else these headers declare it knows by itself.
HEADERS = {
    "cstdint": """
        typedef signed char int8_t; typedef unsigned char uint8_t; typedef unsigned short uint16_t;
        typedef int int32_t; typedef unsigned uint32_t;
        typedef long long int64_t; typedef unsigned long long uint64_t;
        typedef unsigned long long uintptr_t;""",
    "cmath": """
        #define INFINITY __int_as_float(0x7f800000)
        #define NAN __int_as_float(0x7fffffff)""",
    "cstring": "",
    "type_traits": """
        namespace std {
        template <class A, class B> struct is_same { static constexpr bool value = false; };
        template <class A> struct is_same<A, A> { static constexpr bool value = true; };
        }""",
    "cuda_runtime.h": "",
}
OPTIONS = ("--gpu-architecture=sm_70", "--std=c++17", "--device-as-default-execution-space")


def nvidia_file(pattern: str) -> Path:
    """A file of NVIDIA's Python packages.

    Raises:
        SystemExit: it is not installed.
    """
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else ()
    for folder in folders or ():
        for found in sorted(Path(folder).glob(pattern)):
            return found
    raise SystemExit(f"compile_sm70: no nvidia/{pattern}: {__doc__}")


def _strings(values: Collection[str]) -> ctypes.Array:
    return (ctypes.c_char_p * len(values))(*(value.encode() for value in values))


class Nvrtc:
    """The few calls of NVRTC that are needed."""

    def __init__(self, library: Path):
        self._library = ctypes.CDLL(str(library))

    def __getattr__(self, name: str):
        def call(*arguments) -> int:
            return getattr(self._library, f"nvrtc{name}")(*arguments)

        return call

    def version(self) -> tuple[int, int]:
        """As in (12, 9)."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.Version(ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def compile(self, source: str, names: Sequence[str], options: Sequence[str]) -> int:
        """Bytes of machine code for the kernels named.

        Raises:
            SystemExit: with the compiler's log, or the name that it does not know.
        """
        program = ctypes.c_void_p()
        texts, files = (_strings(part) for part in (HEADERS.values(), HEADERS.keys()))
        self.CreateProgram(
            ctypes.byref(program), source.encode(), b"all.cu", len(HEADERS), texts, files
        )
        for name in names:
            self.AddNameExpression(program, name.encode())
        if self.CompileProgram(program, len(options), _strings(options)):
            size = ctypes.c_size_t()
            self.GetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            self.GetProgramLog(program, log)
            raise SystemExit(log.value.decode())
        for name in names:
            lowered = ctypes.c_char_p()
            if self.GetLoweredName(program, name.encode(), ctypes.byref(lowered)):
                raise SystemExit(f"compile_sm70: {name} was not compiled")
        size = ctypes.c_size_t()
        self.GetCUBINSize(program, ctypes.byref(size))
        return size.value


def main(table: str) -> None:
    """Compile the kernels that a table of `benchmarks/ptxas.py` names."""
    nvrtc = Nvrtc(nvidia_file("cuda_nvrtc/lib/libnvrtc.so.*"))
    include = nvidia_file("cuda_runtime/include/cuda_fp16.h").parent
    names = [f"disco_fast::{name}" for name in json.loads(Path(table).read_text())["kernels"]]
    # Types of their own, in the kernels' arguments.
    names = [re.sub(r"(?<![\w:])([A-Z]\w+)", r"disco_fast::\1", name) for name in names]
    headers = sorted(path.name for path in KERNELS.glob("*.cuh") if path.name != "launch.cuh")
    source = "".join(f'#include "{name}"\n' for name in headers)
    size = nvrtc.compile(source, names, [*OPTIONS, f"-I{KERNELS}", f"-I{include}"])
    release = ".".join(map(str, nvrtc.version()))
    print(f"{len(names)} kernels for sm_70 with NVRTC {release}: {size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
