"""The encoder of tokens on every backend, and its place in a prepared network."""

from __future__ import annotations

from types import ModuleType

import emulated
import pytest
import torch
from cases import ENCODER_CASES, ENCODER_TOLERANCE, EncoderCase
from data.make import SAMPLED
from deterministic_weights import golden_state, untrained
from test_golden import check, run, small_golden
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from disco_fast import DISCO, ops, reference
from disco_fast.engine.prepared import REWRITES, EncoderAtOnce, PreparedDISCO
from disco_fast.model.transformer import TokenEncoder, position_encoding

cases = pytest.mark.parametrize("case", ENCODER_CASES, ids=str)


def expected(case: EncoderCase) -> Tensor:
    return reference.encoder(*(t.double() for t in case.tensors()))


@cases
def test_encoder_matches_specification(backend: ModuleType, case: EncoderCase):
    result = backend.encoder(*case.tensors())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected(case), rtol=0, atol=ENCODER_TOLERANCE)


@pytest.fixture
def published() -> TokenEncoder:
    """Random, norms and biases too."""
    with torch.device("meta"):  # draws nothing
        encoder = TokenEncoder().double().eval().requires_grad_(False)
    encoder = encoder.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(3)
    for parameter in encoder.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    return encoder


def test_specification_is_the_published_encoder(published: TokenEncoder):
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randn(2, 15, 64, generator=generator, dtype=torch.float64)
    position = position_encoding(3, 5).double()
    weights = reference.pack_encoder([layer.state_dict() for layer in published.layers])
    assert tuple(weights.shape) == (6, reference.ENCODER_PARAMETERS)
    result = reference.encoder(tokens, position, weights)
    torch.testing.assert_close(result, published(tokens, position), rtol=0, atol=1e-13)


def test_a_layer_by_hand(backend: ModuleType):
    """Attention with equal scores is the mean of the values; what is not wanted has weight 0."""
    layer = {name: torch.zeros(shape[::-1]) for name, shape in reference.ENCODER_LAYER.items()}
    eye = torch.eye(64)
    layer["self_attn.in_proj_weight"][128:] = eye  # values are the tokens
    layer["self_attn.out_proj.weight"] = eye
    layer["norm1.weight"], layer["norm2.weight"] = torch.ones(64), torch.ones(64)
    tokens = torch.zeros(1, 3, 64)
    tokens[0, :, 0] = torch.tensor([1.0, 2.0, 6.0])
    position = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(0))  # of no effect
    result = backend.encoder(tokens, position, reference.pack_encoder([layer]))
    summed = tokens + tokens.mean(1, keepdim=True)
    once = torch.nn.functional.layer_norm(summed, (64,))
    torch.testing.assert_close(result, torch.nn.functional.layer_norm(once, (64,)))


def test_large_scores_are_stable(backend: ModuleType):
    """Scores of some 1e4: each token attends to one, and nothing overflows."""
    tokens, position, weights = EncoderCase(images=1, rows=5, columns=9, layers=1).tensors()
    to_query_and_key = reference.unpack_layer(weights[0])["self_attn.in_proj_weight"][:, :128]
    to_query_and_key *= 100  # in place
    arguments = tokens, position, weights
    located = (tokens + position)[0] @ to_query_and_key
    scores = located[:, :8] @ located[:, 64:72].t() / 8**0.5
    assert scores.abs().max() > 1e4
    result = backend.encoder(*arguments)
    right = reference.encoder(*(t.double() for t in arguments))
    # A score of 1e4 rounds by 1e-3 in fp32, and with it a share where two are nearly equal.
    torch.testing.assert_close(result.double(), right, rtol=0, atol=1e-3)


def test_a_nan_stays_in_its_image(device: torch.device):
    tokens, position, weights = EncoderCase(rows=3, columns=3).tensors()
    tokens[0, 4, 7] = float("nan")
    result = ops.encoder(tokens.to(device), position.to(device), weights.to(device))
    assert result[0].isnan().all()
    assert result[1].isfinite().all()


@pytest.mark.parametrize("case", [EncoderCase(), EncoderCase(images=9, rows=5, columns=3)], ids=str)
def test_an_image_is_the_same_in_any_batch(device: torch.device, case: EncoderCase):
    tokens, position, weights = (t.to(device) for t in case.tensors())
    together = ops.encoder(tokens, position, weights)
    assert torch.equal(together, ops.encoder(tokens, position, weights))
    for i in range(case.images):
        assert torch.equal(ops.encoder(tokens[i : i + 1], position, weights)[0], together[i])


def test_threads_change_nothing(native: ModuleType):
    tokens, position, weights = EncoderCase().tensors()
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(native.encoder(tokens, position, weights))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("case", [EncoderCase(images=3, rows=7, columns=5, layers=2)], ids=str)
def test_grids_change_nothing(emulated_gpu: ModuleType, case: EncoderCase):
    """Tiles of 32 to 4 tokens, a block with several or one, groups with several images or one."""
    arguments = case.tensors()
    results = []
    for count in (1, 2, 4, 7, 12, 27):
        with emulated.multiprocessors(count):
            results.append(emulated_gpu.encoder(*arguments))
    for order in emulated.Order:
        with emulated.thread_order(order), emulated.multiprocessors(5):
            results.append(emulated_gpu.encoder(*arguments))
    assert all(torch.equal(result, results[0]) for result in results)
    torch.testing.assert_close(results[0].double(), expected(case), rtol=0, atol=ENCODER_TOLERANCE)


def test_any_strides_and_addresses(device: torch.device):
    case = EncoderCase(images=2, rows=3, columns=5, layers=2)
    tokens, position, weights = (t.to(device) for t in case.tensors())
    right = ops.encoder(tokens, position, weights)
    turned = tokens.transpose(1, 2).contiguous().transpose(1, 2)
    shifted = torch.cat([weights.new_zeros(1), weights.flatten()])[1:].view(weights.shape)
    moved = torch.cat([position.new_zeros(1), position.flatten()])[1:].view(position.shape)
    assert torch.equal(ops.encoder(turned, moved, shifted), right)


def test_opcheck():
    arguments = EncoderCase(rows=2, columns=3, layers=1).tensors()
    torch.library.opcheck(torch.ops.disco_fast.encoder.default, arguments)


def test_it_has_no_gradient():
    tokens, position, weights = EncoderCase(rows=2, columns=2, layers=1).tensors()
    assert not ops.encoder(tokens.requires_grad_(), position, weights).requires_grad


TOKENS, POSITION = torch.zeros(2, 5, 64), torch.zeros(1, 5, 64)
WEIGHTS = torch.zeros(1, reference.ENCODER_PARAMETERS)


@pytest.mark.parametrize(
    ("tokens", "position", "weights", "message"),
    [
        (TOKENS[0], POSITION, WEIGHTS, r"tokens \[N,P,64\]"),
        (TOKENS[:0], POSITION, WEIGHTS, r"tokens \[N,P,64\]"),
        (TOKENS[..., :32], POSITION, WEIGHTS, r"tokens \[N,P,64\]"),
        (TOKENS.double(), POSITION, WEIGHTS, "tokens in fp32"),
        (TOKENS.long(), POSITION, WEIGHTS, "tokens floating"),
        (TOKENS, POSITION.half(), WEIGHTS, "position in fp32"),
        (TOKENS, POSITION[:, :4], WEIGHTS, r"position \[1,5,64\]"),
        (TOKENS, POSITION.expand(2, 5, 64), WEIGHTS, r"position \[1,5,64\]"),
        (TOKENS, POSITION, WEIGHTS.double(), "weights in fp32"),
        (TOKENS, POSITION, WEIGHTS[:0], r"weights \[L,49984\], L at least 1"),
        (TOKENS, POSITION, WEIGHTS[0], r"weights \[L,49984\]"),
        (TOKENS, POSITION, WEIGHTS[:, 1:], r"weights \[L,49984\]"),
    ],
)
def test_wrong_arguments(tokens: Tensor, position: Tensor, weights: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        ops.encoder(tokens, position, weights)


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match="weights must be a tensor, got list"):
        ops.encoder(TOKENS, POSITION, [])  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["cpu", "emulated"])
def test_kernels_check_for_themselves(request: pytest.FixtureRequest, where: str):
    """Who calls the op without its wrapper gets an error too."""
    request.getfixturevalue("native" if where == "cpu" else "emulated_gpu")
    encoder = torch.ops.disco_fast.encoder
    for arguments, message in (
        ((TOKENS[..., :32], POSITION, WEIGHTS), "tokens must be"),
        ((TOKENS, POSITION[:, :4], WEIGHTS), "position must be"),
        ((TOKENS, POSITION, WEIGHTS[:, 1:]), "weights must be"),
        ((TOKENS, POSITION, WEIGHTS.double()), "must be fp32"),
    ):
        with pytest.raises(RuntimeError, match=message):
            encoder(*arguments)


# ---- In a network --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rewritten() -> DISCO:
    network = untrained()
    network.load_state_dict(golden_state(), strict=True)
    return PreparedDISCO(network, "fp32", without=set(REWRITES) - {"encoders"})


@pytest.mark.parametrize(
    ("where", "name", "variants"),
    [("native", "square", 1), ("native", "diverse", 3), ("emulated_gpu", "square", 1)],
)
def test_golden_through_the_rewrite(
    request: pytest.FixtureRequest, rewritten: DISCO, where: str, name: str, variants: int
):
    request.getfixturevalue(where)
    gray, golden = small_golden(name)
    check(run(rewritten, gray, golden["kmeans_init"], variants), golden, SAMPLED)


def test_the_rewrite_is_one_graph(published: TokenEncoder):
    module = EncoderAtOnce(published.float())
    tokens, position, _ = EncoderCase(images=1, rows=2, columns=3).tensors()
    result = module(tokens, position)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(tokens, position), result)
    exported = torch.export.export(module, (tokens, position)).module()
    assert torch.equal(exported(tokens, position), result)


def test_the_rewrite_has_the_same_weights_and_work(published: TokenEncoder):
    def weights(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    def work(module: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            module(tokens, position)
        return counter.get_total_flops()

    tokens, position, _ = EncoderCase(rows=2, columns=3).tensors()
    module = EncoderAtOnce(published.float())
    assert weights(module) == weights(published)
    with torch.no_grad():
        assert work(module) == work(published)
