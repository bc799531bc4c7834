"""Backends of the op tests: the specification, and each native half that is here."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from disco_fast import _library, ops, reference


@pytest.fixture
def native() -> ModuleType:
    """The ops on the native library."""
    half = _library.halves()[0]
    if not half.active:
        pytest.skip(half.why)
    return ops


@pytest.fixture(params=["specification", "cpu"])
def backend(request: pytest.FixtureRequest) -> ModuleType:
    """A namespace with every op."""
    return reference if request.param == "specification" else request.getfixturevalue("native")


@pytest.fixture(autouse=True)
def no_global_random_state():
    """Nothing in the package may draw from the global generators or move them."""
    before = torch.get_rng_state()
    yield
    untouched = torch.equal(before, torch.get_rng_state())
    torch.set_rng_state(before)
    assert untouched, "the test or the code under test moved torch's global generator"
