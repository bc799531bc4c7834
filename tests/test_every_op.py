"""Every op in every dtype and layout on every backend; on a GPU also under its sanitizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import EncoderCase, OpCase, small_cases
from conftest import OnGPU, need_gpu

from disco_fast import reference


def widened(argument: object) -> object:
    """In fp64; an image of bytes as the floating image that means the same."""
    if not isinstance(argument, torch.Tensor) or argument.dtype in (torch.int64, torch.bool):
        return argument
    return argument.double() / (255 if argument.dtype == torch.uint8 else 1)


def check(namespace: Any, case: OpCase) -> None:
    arguments = case.make(torch.device("cpu"))
    results = case.call(namespace, arguments)
    expected = case.call(reference, tuple(map(widened, arguments)))
    for right, result, bound in zip(expected, results, case.bounds, strict=True):
        torch.testing.assert_close(result.double(), right.double(), rtol=0, atol=bound)


@pytest.mark.parametrize("case", small_cases(), ids=str)
def test_every_op_as_specified(backend: Any, case: OpCase) -> None:
    check(backend, case)


def test_several_tiles_of_tokens_for_a_block_on_cuda() -> None:
    """Where no more than 132 blocks are resident, each with at most 32 tokens."""
    need_gpu()
    (case,) = EncoderCase(1, 43, 100, 2).ops()
    check(OnGPU(), case)
