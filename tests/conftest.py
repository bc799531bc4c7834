"""Backends of the op tests: the specification, and each form of the ops that can run here.

`FAIL_WITHOUT_CUDA=1` turns the skipping of what needs a GPU into failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# Processes that test side by side share the cores, and what they start has as many threads as they:
# results depend on how many there are. To be said before torch is loaded.
if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ["OMP_NUM_THREADS"] = str(max(1, (cores or 1) // processes))

import checkout
import emulated
import pytest
import torch
from torch.utils import _pytree

from disco_fast import _library, ops, reference


def pytest_report_header() -> str:
    """What is tested."""
    return checkout.tested()


@pytest.hookimpl(tryfirst=True)  # xdist's own hook reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share what is dear run in one process: Ray, or the fixtures of a file."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        shared = item.path.name != "test_sanitizers.py" and not {"backend", "device"}.intersection(
            fixtures
        )
        if shared:
            group = "ray" if "ray" in fixtures else item.path.name
            item.add_marker(pytest.mark.xdist_group(group))


def need_gpu() -> None:
    """Skip, or fail, where the CUDA kernels cannot run."""
    half = _library.halves()[1]
    if half.active and torch.cuda.is_available():
        return
    refuse = pytest.fail if os.environ.get("FAIL_WITHOUT_CUDA") == "1" else pytest.skip
    refuse(f"cuda: {'no GPU is present' if half.active else half.why}")


class OnGPU:
    """The ops on the CUDA kernels for tensors of the CPU: arguments go there, results come back."""

    def __getattr__(self, name: str):
        function = getattr(ops, name, None) or getattr(torch.ops.disco_fast, name)

        def call(*args, **kwargs):
            args, kwargs = _pytree.tree_map_only(torch.Tensor, torch.Tensor.cuda, (args, kwargs))
            return _pytree.tree_map_only(torch.Tensor, torch.Tensor.cpu, function(*args, **kwargs))

        return call


@pytest.fixture(scope="session", autouse=True)
def emulated_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where the emulated kernels are built, once for all processes that test side by side."""
    own = tmp_path_factory.getbasetemp()
    emulated.folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "emulated"


@pytest.fixture
def native() -> ModuleType:
    """The ops on the CPU library."""
    half = _library.halves()[0]
    if not half.active:
        pytest.skip(half.why)
    return ops


@pytest.fixture
def emulated_gpu() -> Iterator[ModuleType]:
    """The ops on the emulated CUDA kernels."""
    if emulated.MISSING:
        pytest.skip(emulated.REASON)
    with emulated.on_emulated_gpu():
        yield ops


@pytest.fixture(params=["specification", "cpu", "emulated", "cuda"])
def backend(request: pytest.FixtureRequest) -> ModuleType | OnGPU:
    """A namespace with every op, for tensors of the CPU."""
    if request.param == "specification":
        return reference
    if request.param == "cuda":
        need_gpu()
        return OnGPU()
    return request.getfixturevalue("native" if request.param == "cpu" else "emulated_gpu")


@pytest.fixture(params=["cpu", "emulated", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where `disco_fast.ops` runs on kernels."""
    if request.param == "cuda":
        need_gpu()
        return torch.device("cuda")
    request.getfixturevalue("native" if request.param == "cpu" else "emulated_gpu")
    return torch.device("cpu")


@pytest.fixture(scope="session")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Ray, with workers that find what is beside the tests."""
    module = pytest.importorskip("ray")
    here = Path.cwd()
    # Workers look for modules where the driver was started: not in the source folder, which has no
    # kernels.
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    paths = os.environ.get("PYTHONPATH", "")
    module.init(
        num_cpus=3,  # two workers, and one for what reads and splits
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=150 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": f"{Path(__file__).parent}:{paths}"}},
    )
    os.chdir(here)
    yield module
    module.shutdown()


@pytest.fixture(autouse=True)
def no_global_random_state():
    """Nothing in the package may draw from the global generators or move them."""
    before = torch.get_rng_state()
    yield
    untouched = torch.equal(before, torch.get_rng_state())
    torch.set_rng_state(before)
    assert untouched, "the test or the code under test moved torch's global generator"
