"""Working without the native library, and saying why."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import emulated
import pytest
import torch

from disco_fast import _library

PACKAGE, SOURCE = Path(_library.__file__).parent, Path(__file__).parents[1]

PROGRAM = """
import sys
import torch
import disco_fast
from disco_fast import _library, ops, reference

image = (torch.linspace(0, 3, 48).sin()[:, None] * torch.linspace(0, 5, 64).cos()).abs()[None]
torch.save(disco_fast.colorize(image, working_size=64, precision="fp32"), sys.argv[1])
print(_library.halves()[0].active, _library.halves()[0].why)
features = torch.ones(1, 2, 32, 32, requires_grad=True)
association = torch.full((1, 9, 32, 32), 1 / 9)
ops.sp_pool(features, association, 16)[0].sum().backward()
print(torch.allclose(features.grad.sum(), torch.tensor(8.0)))
compiled = torch.compile(lambda f, a: ops.sp_pool(f, a, 16)[0] * 2, backend="eager", fullgraph=True)
print(torch.equal(compiled(features, association), 2 * ops.sp_pool(features, association, 16)[0]))
"""


def run(path: str, native: str) -> list[str]:
    environment = os.environ | {"DISCO_FAST_NATIVE": native}
    command = [sys.executable, "-c", PROGRAM, path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_everything_works_without_the_library(tmp_path):
    lines = run(str(tmp_path / "without.pt"), "off")
    assert lines == ["False switched off by DISCO_FAST_NATIVE=off", "True", "True"]
    lines = run(str(tmp_path / "with.pt"), "on")
    assert lines[1:] == ["True", "True"]
    without, native = (torch.load(tmp_path / f"{name}.pt") for name in ("without", "with"))
    torch.testing.assert_close(without, native, rtol=0, atol=1e-3)


def test_every_half_explains_itself():
    cpu, cuda = _library.halves()
    assert (cpu.name, cuda.name) == ("cpu", "cuda")
    assert len(cpu.why) > 10
    assert len(cuda.why) > 10


BUILT = '{"cuda": "13.0", "archs": ["75", "90a"]}'


def cuda_half(
    folder: Path, monkeypatch, cuda: str | None, driver: int, built: str = BUILT
) -> _library.Half:
    """What is said of a library built with CUDA 13.0, under a torch with `cuda` and a `driver`."""
    (folder / "libdisco_fast_cuda.so").write_bytes(b"not a library")
    (folder / "libdisco_fast_cuda.json").write_text(built)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(_library, "_driver_version", lambda: driver)
    return _library._load_cuda(folder)


def test_a_cuda_library_that_does_not_fit_is_explained(tmp_path, monkeypatch):
    assert "no nvcc at install time" in _library._load_cuda(tmp_path).why
    half = cuda_half(tmp_path, monkeypatch, None, 13000)
    assert not half.active
    assert half.why.endswith("has no CUDA")
    half = cuda_half(tmp_path, monkeypatch, "12.8", 12080)
    assert not half.active
    assert "built with CUDA 13.0, but the driver knows only 12.8" in half.why
    half = cuda_half(tmp_path, monkeypatch, "13.0", 13000)
    assert not half.active
    assert "does not load" in half.why


@pytest.mark.parametrize(
    "built", ['{"cuda": "13.0", "archs": [90a]}', "{}", "[]", '{"cuda": 13, "archs": []}', ""]
)
def test_a_description_that_cannot_be_read_is_explained(tmp_path, monkeypatch, built: str):
    half = cuda_half(tmp_path, monkeypatch, "13.0", 13000, built)
    assert not half.active
    assert "libdisco_fast_cuda.json does not say what it was built for" in half.why
    (tmp_path / "libdisco_fast_cuda.json").unlink()
    assert "does not say what it was built for" in _library._load_cuda(tmp_path).why


def test_a_missing_description_and_words_for_architectures(tmp_path, monkeypatch):
    monkeypatch.setattr(_library, "_load", lambda *_: None)
    half = cuda_half(tmp_path, monkeypatch, "13.0", 13000, BUILT.replace('"75"', '"120", "native"'))
    assert half.active
    assert half.why.endswith("compute capability 12.0, native, 9.0a and later")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize(
    ("archs", "capabilities", "code"),
    [
        ("90a", "9.0a", {"sm_90a"}),
        ("120;80;90a;100", "8.0, 9.0a, 10.0, 12.0",
         {"sm_80", "sm_90a", "sm_100", "sm_120", "compute_100", "compute_120"}),
    ],
)  # fmt: skip
def test_lists_of_architectures(
    tmp_path, archs: str, capabilities: str, code: set[str], monkeypatch
):
    output = tmp_path / "output"
    options = {
        "OUTPUT_DIR": output,
        "TORCH_DIR": torch.__path__[0],
        "CUDA": "on",
        "CUDA_ARCHS": archs,
    }
    settings = [f"-DDISCO_FAST_{name}={value}" for name, value in options.items()]
    emulated.run("cmake", "-G", "Ninja", "-S", str(SOURCE), "-B", str(tmp_path), *settings)
    (output / "libdisco_fast_cuda.so").touch()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(_library, "_load", lambda *_: None)
    monkeypatch.setattr(_library, "_driver_version", lambda: 0)
    assert f"compute capability {capabilities} and later" in _library._load_cuda(output).why
    flags = re.findall(r",code=\[?([\w,]+)", (tmp_path / "build.ninja").read_text())
    assert {word for flag in flags for word in flag.split(",")} == code


@pytest.mark.skipif(
    not (PACKAGE / "libdisco_fast_cuda.so").exists(), reason="the CUDA half is not built"
)
def test_the_cuda_library_loads_and_registers_without_a_gpu():
    """In a process of its own: under a torch without CUDA the package itself would not load it."""
    program = f"""
import torch
from disco_fast import _library, ops
torch.ops.load_library({str(PACKAGE / "libdisco_fast_cuda.so")!r})
for name in ops.SCHEMAS.keys() - {{"quantize"}}:  # for CPUs only
    assert torch._C._dispatch_has_kernel_for_dispatch_key("disco_fast::" + name, "CUDA"), name
print(ops.superpixel_size(torch.full((1, 9, 16, 16), 1 / 9), 16).item())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "1.0\n", done.stderr


def test_missing_and_broken_libraries_are_explained(tmp_path):
    half = _library._load_cpu(tmp_path)
    assert not half.active
    assert "no C++ compiler at install time" in half.why
    (tmp_path / "libdisco_fast_cpu.so").write_bytes(b"not a library")
    half = _library._load_cpu(tmp_path)
    assert not half.active
    assert "does not load" in half.why
    assert "pip install" in half.why
