"""Drives CMake, the only description of the native build, and labels the wheel with what was built.

The version carries the built halves as its local label (`0.1.0+cpu.cuda130`, `0.1.0+cpu` without
nvcc, `0.1.0+reference` without a C++ compiler), so the last line of `pip install .` says which they
are. pip shows the notice itself with `-v`. A source distribution, and what is built from one, has
no label: package indexes take none, and pip wants both to have the same version.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "disco_fast/_version.py").read_text())[1]


def has_compiler() -> bool:
    """Whether CMake would find a C++ compiler. MSVC lacks the vector extensions used."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return sys.platform != "win32" and any(shutil.which(name.split()[0]) for name in names)


def find_nvcc() -> str | None:
    """An nvcc that compiles here, unless DISCO_FAST_CUDA=off.

    Raises:
        SystemExit: DISCO_FAST_CUDA=on, and there is none; or it is none of auto, on and off.
    """
    choice = os.environ.get("DISCO_FAST_CUDA", "auto").lower()
    if choice not in ("auto", "on", "off"):
        raise SystemExit(f"disco_fast: DISCO_FAST_CUDA: expected auto, on or off, got '{choice}'")
    if choice == "off":
        return None
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    places = [os.environ.get("CUDACXX"), "nvcc", *(f"{home}/bin/nvcc" for home in homes if home)]
    found = next(filter(None, (shutil.which(place) for place in places if place)), None)
    if found and has_compiler():
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cu")
            source.write_text("__global__ void probe() {}\n")
            command = [found, "-c", str(source), "-o", f"{folder}/probe.o"]
            tried = subprocess.run(command, capture_output=True, text=True)
        if tried.returncode == 0:
            return found
        print(f"disco_fast: {found} does not compile: {tried.stderr[-500:]}", file=sys.stderr)
    if choice == "on":
        raise SystemExit(
            "disco_fast: DISCO_FAST_CUDA=on, but no working nvcc and C++ compiler were found;"
            " put nvcc on PATH or set CUDACXX"
        )
    return None


def cuda_release(nvcc: str) -> str:
    """As in "130" for CUDA 13.0."""
    text = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    return "".join(re.search(r"release (\d+)\.(\d+)", text).groups())


def torch_folder() -> Path:
    """The folder of the installed torch, found without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "disco_fast: no torch found to build against; run: pip install 'torch>=2.10'"
        )
    return Path(spec.origin).parent


class CMakeBuild(build_ext):
    """Configures and builds CMakeLists.txt with ninja, straight into the package folder."""

    def run(self) -> None:
        """Build every half that can be built here."""
        target = ROOT if self.inplace else Path(self.build_lib)
        build = Path(self.build_temp)
        configure = [
            "cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(build),
            f"-DDISCO_FAST_TORCH_DIR={torch_folder()}",
            f"-DDISCO_FAST_OUTPUT_DIR={target / 'disco_fast'}",
            f"-DDISCO_FAST_CUDA={'on' if NVCC else 'off'}",
        ]  # fmt: skip
        if NVCC:
            configure.append(f"-DCMAKE_CUDA_COMPILER={NVCC}")
        if archs := os.environ.get("DISCO_FAST_CUDA_ARCHS"):
            configure.append(f"-DDISCO_FAST_CUDA_ARCHS={archs}")
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)

    def get_outputs(self) -> list[str]:
        """The libraries are package data; setuptools need not track them."""
        return []


class PlatformWheel(bdist_wheel):
    """One wheel for every Python: the library needs no Python.h and only stable parts of torch."""

    def get_tag(self) -> tuple[str, str, str]:
        """`py3-none-<platform>` with a native half, `py3-none-any` without."""
        platform = super().get_tag()[2] if self.distribution.has_ext_modules() else "any"
        return "py3", "none", platform


class NativeDistribution(Distribution):
    """Tells setuptools that the wheel depends on the platform exactly if a compiler is here."""

    def has_ext_modules(self) -> bool:
        """Whether native halves will be built."""
        return has_compiler()


def is_release() -> bool:
    """Whether a source distribution is being made or built from."""
    return "sdist" in sys.argv or (ROOT / "PKG-INFO").exists()


NVCC = find_nvcc()
if has_compiler():
    halves = f"cpu.cuda{cuda_release(NVCC)}" if NVCC else "cpu"
    extensions = [Extension("disco_fast.native", sources=[])]
else:
    halves, extensions = "reference", []
    notice = "no C++ compiler found: installing the PyTorch specification only (works, slower)"
    print(f"disco_fast: {notice}", file=sys.stderr)

# Outside the source tree: what an earlier build left there (another ninja, another torch, removed
# files) would otherwise find its way into this one.
build_folder = tempfile.TemporaryDirectory(prefix="disco_fast-build-")

setup(
    version=VERSION if is_release() else f"{VERSION}+{halves}",
    options={"build": {"build_base": build_folder.name}},
    ext_modules=extensions,
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": PlatformWheel},
    distclass=NativeDistribution,
)
