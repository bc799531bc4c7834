"""The association map of logits: against torch's softmax in double precision."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from disco_fast import ops
from disco_fast.reference import wide_dtype

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["planar", "last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [9, 10, 12, 16])  # whole packs of 16 bytes, or not
def test_it_is_the_softmax_of_the_candidates(
    backend: ModuleType, channels: int, dtype: torch.dtype, layout: torch.memory_format
):
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(2, channels, 13, 11, generator=generator)
    logits = logits.to(dtype).to(memory_format=layout)
    bias = torch.randn(9, generator=generator).to(wide_dtype(dtype))
    for added in (None, bias):
        expected = logits[:, :9].double()
        expected = (expected if added is None else expected + added[:, None, None]).softmax(1)
        found = backend.associate(logits, added)
        assert found.dtype == wide_dtype(dtype)
        assert found.is_contiguous()
        # Rounding of sums and of nine exponentials.
        torch.testing.assert_close(found.double(), expected, rtol=3e-6, atol=1e-7)


def test_logits_of_any_size_are_shares(backend: ModuleType):
    logits = torch.zeros(1, 9, 2, 2)
    logits[0, 3] = torch.tensor([[1e30, -1e30], [200.0, -200.0]])
    found = backend.associate(logits, None)
    expected = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(found[0, 3], expected, rtol=0, atol=1e-30)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 2, 2))


def test_it_passes_opcheck():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 12, 4, 6, generator=generator).to(memory_format=torch.channels_last)
    op = torch.ops.disco_fast.associate.default
    torch.library.opcheck(op, (logits, torch.ones(9)))
    torch.library.opcheck(op, (logits.bfloat16(), None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.ones(1, 8, 2, 2)}, r"associate: expected logits \[N,C,H,W\]"),
        ({"logits": torch.ones(9, 2, 2)}, r"associate: expected logits \[N,C,H,W\]"),
        ({"logits": torch.ones(1, 9, 2, 2).int()}, "associate: expected logits floating"),
        ({"bias": torch.ones(12)}, r"associate: expected bias \[9\]"),
        ({"bias": torch.ones(9).double()}, r"associate: expected bias \[9\] in torch.float32"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change: dict[str, torch.Tensor], message: str):
    good = {"logits": torch.ones(1, 9, 2, 2), "bias": torch.ones(9)}
    with pytest.raises(ValueError, match=message):
        ops.associate(**{**good, **change})
