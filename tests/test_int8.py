"""Convolutions in 8 bits: against the floating ones that they stand for."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disco_fast import Colorizer, ops, reference
from disco_fast.checkpoints import (
    COMPACT,
    CheckpointError,
    load_checkpoint,
    random_network,
    save_checkpoint,
)
from disco_fast.cli import main
from disco_fast.engine import Engine, precision
from disco_fast.engine.calibration import measure_ranges
from disco_fast.engine.convolutions import merged
from disco_fast.engine.int8 import (
    Int8Convolution,
    Int8Upsampling,
    convolve_in_int8,
    levels,
    runs_in_int8,
)
from disco_fast.engine.prepared import PreparedDISCO
from disco_fast.model import DISCO

multiplies_bytes = pytest.mark.skipif(
    not precision.cpu_has_int8(), reason="this processor does not multiply bytes"
)


def smooth(seed: int = 0, size: int = 64) -> Tensor:
    """A gray picture as the network takes it, [1,1,size,size]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 1, 6, 6, generator=generator)
    return F.interpolate(noise, size=(size, size), mode="bicubic").clamp(-1, 1)


@pytest.fixture(autouse=True)
def own_random_state() -> Iterator[None]:
    """Modules draw their first weights from the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def network() -> DISCO:
    found = random_network(0.5)
    found.ranges = measure_ranges(found, [smooth(seed) for seed in range(4)])
    return found


# ---- The op --------------------------------------------------------------------------------------

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((2, 64, 5, 6), (1, 65, 7, 3), (3, 3, 4, 4))  # channels: whole vectors, or some left over


def rows(channels: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    scale, shift = torch.rand(2, channels, generator=generator)
    return 40 * scale, 200 * shift


@pytest.mark.parametrize("namespace", [reference, ops], ids=["specification", "ops"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_quantize(namespace, layout, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = x.to(dtype).to(memory_format=layout)
    scale, shift = rows(shape[1])
    for slope, padding in ((0.0, 0), (0.2, 1), (1.0, 2)):
        value = F.leaky_relu(x.double(), slope) * scale[:, None, None] + shift[:, None, None]
        got = namespace.quantize(x, slope, scale, shift, padding, 77)
        assert got.dtype == torch.uint8
        assert got.is_contiguous(memory_format=torch.channels_last)
        inner = got[..., padding : padding + shape[2], padding : padding + shape[3]]
        # A rounded product may fall on the other side of a half.
        assert (inner.double() - value.clamp(0, 255)).abs().max() <= 0.5 + 1e-4
        border = F.pad(torch.zeros(shape, dtype=torch.bool), [padding] * 4, value=True)
        assert (got[border] == 77).all()


@pytest.mark.parametrize("namespace", [reference, ops], ids=["specification", "ops"])
def test_quantize_rounds_halves_to_even_and_cuts_what_lies_beyond(namespace) -> None:
    values = [0.5, 1.5, 2.5, -3.0, 1e9, float("inf"), float("-inf"), float("nan")]
    for copies in (1, 4):  # more than a vector of channels
        x = torch.tensor(values * copies).view(1, -1, 1, 1)
        one, zero = torch.ones(x.shape[1]), torch.zeros(x.shape[1])
        got = namespace.quantize(x, 1.0, one, zero, 0, 0).flatten().tolist()
        assert got == [0, 2, 2, 0, 255, 255, 0, 0] * copies
    x = torch.full((1, 32, 1, 1), float("-inf"))
    got = namespace.quantize(x, 0.0, torch.ones(32), torch.full((32,), 9.0), 0, 0)
    assert (got == 9).all(), "a ReLU ends minus infinity"


def test_quantize_passes_opcheck() -> None:
    x = smooth(size=4).repeat(1, 24, 1, 1).bfloat16()
    torch.library.opcheck(torch.ops.disco_fast.quantize.default, (x, 0.2, *rows(24), 1, 128))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(3, 4)}, r"quantize: expected x \[N,C,H,W\]"),
        ({"x": torch.ones(1, 3, 2, 2, dtype=torch.float64)}, r"quantize: expected x \[N,C,H,W\]"),
        ({"scale": torch.ones(4)}, r"quantize: expected scale \[3\]"),
        ({"shift": torch.ones(3, dtype=torch.float64)}, r"quantize: expected shift \[3\]"),
        ({"slope": float("inf")}, "quantize: expected slope finite"),
        ({"padding": -1}, "quantize: expected padding not negative"),
        ({"zero": 256}, "quantize: expected zero in 0..255"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change: dict[str, object], message: str) -> None:
    good = {
        "x": torch.ones(1, 3, 2, 2),
        "slope": 0.0,
        "scale": torch.ones(3),
        "shift": torch.ones(3),
        "padding": 0,
        "zero": 0,
    }
    with pytest.raises(ValueError, match=message):
        ops.quantize(**{**good, **change})  # type: ignore[arg-type]


# ---- Convolutions --------------------------------------------------------------------------------


def test_zero_is_a_byte() -> None:
    for low, high in ((-1.0, 3.0), (0.0, 5.0), (-2.0, 0.0), (0.0, 0.0), (1.0, 2.0)):
        step, zero = levels(low, high)
        assert 0 <= zero <= 255
        assert step > 0
        assert step * (255 - zero) >= high - step
        assert -step * zero <= low + step or low > 0


def bytes_between(low: float, high: float, shape: tuple[int, ...]) -> tuple[Tensor, float, int]:
    step, zero = levels(low, high)
    x = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(2))
    return x.to(torch.uint8, memory_format=torch.channels_last), step, zero


def in_whole_steps(module: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Weights that 8 bits hold exactly, so that nothing but the arithmetic is compared."""
    generator = torch.Generator().manual_seed(3)
    whole = torch.randint(-31, 32, module.weight.shape, generator=generator).float()
    one_input = whole[0] if isinstance(module, nn.ConvTranspose2d) else whole[:, 0]
    one_input[:] = 127 / 4  # of every output: the largest tells the step
    module.weight.data = whole * 4 / 1000
    assert module.bias is not None
    module.bias.data = torch.randn(module.bias.shape, generator=generator)


def padded(x: Tensor, zero: int) -> Tensor:
    return F.pad(x, [1] * 4, value=zero).contiguous(memory_format=torch.channels_last)


@multiplies_bytes
@pytest.mark.parametrize("range_", [(0.0, 4.0), (-1.0, 3.0)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution(range_: tuple[float, float], stride: int) -> None:
    x, step, zero = bytes_between(*range_, (2, 16, 10, 12))
    convolution = nn.Conv2d(16, 24, 3, stride, padding=1)
    in_whole_steps(convolution)
    with torch.inference_mode():
        expected = convolution(step * (x.float() - zero))
        int8 = Int8Convolution(convolution, step, zero)
        int8.dtype = torch.float32
        given = padded(x, zero) if zero else x
        torch.testing.assert_close(int8(given), expected, rtol=1e-5, atol=1e-5)
        before = torch.full_like(expected, 0.25)
        int8.relu = True
        added = int8(given, before.clone(memory_format=torch.channels_last))
        torch.testing.assert_close(added, F.relu(expected + before), rtol=1e-5, atol=1e-5)
        int8.dtype, int8.step = torch.uint8, 0.02
        steps = (F.relu(expected) / 0.02).clamp(0, 255)
        assert (int8(given).float() - steps).abs().max() <= 0.5 + 1e-3


@multiplies_bytes
@pytest.mark.parametrize("range_", [(0.0, 4.0), (-1.0, 3.0)], ids=str)
def test_upsampling(range_: tuple[float, float]) -> None:
    x, step, zero = bytes_between(*range_, (2, 16, 5, 6))
    convolution = merged(torch.ones(20, 16, 3, 3), torch.ones(20))
    in_whole_steps(convolution)
    with torch.inference_mode():
        expected = convolution(step * (x.float() - zero))
        int8 = Int8Upsampling(convolution, step, zero)
        got = int8(padded(x, zero) if zero else x).float()
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=2**-8, atol=1e-3)  # bf16


@multiplies_bytes
def test_what_stands_between_convolutions() -> None:
    """Every order of activation, batch norm and convolution that the networks have."""
    sequence = nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, 2, padding=1),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.BatchNorm2d(32),
        nn.Conv2d(32, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 2, 3, padding=1),
    )
    norm = sequence[8]
    norm.running_mean, norm.running_var = torch.randn(32) / 4, torch.rand(32) + 0.5
    holder = nn.Module()
    holder.sequence = sequence.eval().requires_grad_(False)
    x = torch.randn(1, 16, 16, 16).to(memory_format=torch.channels_last)
    ranges, value = {}, x
    with torch.inference_mode():
        for name, module in sequence.named_children():
            if runs_in_int8(module):
                ranges[f"sequence.{name}"] = (float(value.min()), float(value.max()))
            value = module(value)
        before = copy.deepcopy(holder)
        convolve_in_int8(holder, ranges)
        holder.sequence[-1].bfloat16()  # as what stays is
        got = holder.sequence(x)
        error = (got - before.sequence(x)).square().mean().sqrt() / value.std()
    kinds = [type(module).__name__ for module in holder.sequence]
    assert kinds == [
        *("Quantized", "Int8Convolution"),  # the ReLU is in the first pass
        *("Quantized", "Int8Convolution"),
        "Int8Convolution",  # bytes all the way
        *("Quantized", "Int8Convolution"),
        *("Quantized", "Int8Convolution"),
        "Conv2d",  # as narrow as that it stays
    ]
    assert error < 0.03  # six layers of 8 bits


# ---- Networks ------------------------------------------------------------------------------------


def deviation(exact: PreparedDISCO, other: PreparedDISCO) -> float:
    """How far the colors of two engines lie apart, with the same anchors."""
    gray = smooth(9)
    with torch.inference_mode():
        placed = exact.place(exact.superpixels(gray), 4)
        given = gray, placed.index, placed.bins.flatten(0, 1)
        expected, got = (
            net.generate(given[0], net.superpixels(gray), *given[1:]).ab for net in (exact, other)
        )
    return float((expected - got).abs().mean() / expected.std())


# Some fifty layers, each of which rounds its input by up to a hundredth of its deviation.
FARTHEST = 0.1


@multiplies_bytes
def test_a_network_is_that_of_fp32_but_for_rounding(network: DISCO) -> None:
    exact, int8 = PreparedDISCO(network, "fp32"), PreparedDISCO(network, "int8")
    kinds = [type(module) for module in int8.modules()]
    assert kinds.count(Int8Convolution) == len(network.ranges or {}) == 52
    assert kinds.count(Int8Upsampling) == 5
    assert 0 < deviation(exact, int8) < FARTHEST


@multiplies_bytes
@pytest.mark.parametrize("first", range(3))
def test_convolutions_of_unknown_range_stay_in_bf16(network: DISCO, first: int) -> None:
    part = copy.deepcopy(network)
    assert network.ranges is not None
    part.ranges = dict(list(network.ranges.items())[first::3])
    exact, int8 = PreparedDISCO(network, "fp32"), PreparedDISCO(part, "int8")
    kinds = [type(module) for module in int8.modules()]
    assert kinds.count(Int8Convolution) == len(part.ranges) < 20
    assert 0 < deviation(exact, int8) < FARTHEST


@multiplies_bytes
def test_without_ranges_it_says_what_writes_them() -> None:
    with pytest.raises(ValueError, match=r"precision: int8 .* 'disco-fast calibrate'"):
        Engine(DISCO(0.125), "int8")


@multiplies_bytes
def test_ranges_are_kept_with_the_checkpoint(network: DISCO, tmp_path: Path) -> None:
    path = tmp_path / "calibrated.safetensors"
    save_checkpoint(network, path)
    read = load_checkpoint(path).ranges
    assert read is not None
    assert network.ranges is not None
    assert read.keys() == network.ranges.keys()
    for name, ends in read.items():
        assert ends == pytest.approx(network.ranges[name], rel=1e-3)
    image = (smooth(3)[0] + 1) / 2
    colorizer = Colorizer(path, "cpu", "int8")
    colors = colorizer.colorize(image, working_size=64)
    assert torch.equal(copy.deepcopy(colorizer).colorize(image, working_size=64), colors)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": [1]}', '{"a": [0, 1e999]}', '{"a": [1, 2]}'])
def test_other_ranges_are_refused(text: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "wrong.safetensors"
    save_file(load_file(COMPACT), path, {"width": "0.25", "ranges": text} | backbone())
    with pytest.raises(CheckpointError, match="ranges: expected"):
        load_checkpoint(path)


def backbone() -> dict[str, str]:
    return {"backbone": load_checkpoint(COMPACT).backbone}


def test_a_convolution_is_left_out_where_most_pictures_get_few_of_the_256_steps() -> None:
    network, usual = random_network(0.25), [smooth(seed) for seed in range(3)]
    early = "repnet.conv1_2.2"  # before any norm
    assert early in measure_ranges(network, [smooth(3), *usual])
    assert early not in measure_ranges(network, [1000 * smooth(3), *usual])


def test_nothing_to_measure_on() -> None:
    with pytest.raises(ValueError, match="pictures: expected some, got none"):
        measure_ranges(DISCO(0.125).eval(), [])


class TestWhereItRuns:
    def test_not_on_a_gpu(self) -> None:
        with pytest.raises(ValueError, match="precision: int8 runs on CPUs only"):
            precision.resolve("int8", torch.device("cuda"))

    def test_not_on_a_processor_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
        with pytest.raises(ValueError, match="precision: int8 needs a processor with VNNI"):
            precision.resolve("int8", torch.device("cpu"))

    def test_bf16_without_instructions_is_warned_of(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
        with pytest.warns(UserWarning, match='faster in precision="fp32"'):
            assert precision.resolve("bf16", torch.device("cpu")) == "bf16"


# ---- The command ---------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
        large = cv2.resize(pixels, (90, 80), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{seed}.png"), large)
    return folder


def test_calibrate(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    target = tmp_path / "out.safetensors"
    arguments = ["calibrate", str(COMPACT), str(target), "--data", str(photographs)]
    assert main([*arguments, "--pictures", "2"]) == 0
    assert "with what 2 photographs say" in capsys.readouterr().err
    before, after = load_checkpoint(COMPACT), load_checkpoint(target)
    for name, value in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], value), name
    assert after.readout == before.readout
    assert after.ranges  # of RefineNet alone: this backbone stays bf16
    assert all(name.startswith("enhanceNet.") for name in after.ranges)
    assert json.loads(notes(target)["card"]) == json.loads(notes(COMPACT)["card"])
    assert target.stat().st_size < 1.01 * COMPACT.stat().st_size + 10_000, "weights as they were"
    assert main(arguments) == 2, "an existing file is not replaced"
    save_checkpoint(random_network(0.25), tmp_path / "random.safetensors")
    arguments[1] = str(tmp_path / "random.safetensors")
    assert main([*arguments, "--overwrite"]) == 0
    assert len(load_checkpoint(target).ranges or {}) > 20  # its layers have no spots


def notes(path: Path) -> dict[str, str]:
    import safetensors

    with safetensors.safe_open(path, "pt") as file:
        return file.metadata()


def test_calibrate_refuses(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = ["--data", str(photographs)]
    assert main(["calibrate", str(COMPACT), str(tmp_path / "a.pth"), *data]) == 2
    assert "ends in .safetensors" in capsys.readouterr().err
    target = str(tmp_path / "a.safetensors")
    assert main(["calibrate", str(tmp_path / "none.safetensors"), target, *data]) == 1
    assert main(["calibrate", str(COMPACT), target, "--data", str(tmp_path / "none")]) == 1
    assert list(tmp_path.glob("a.*")) == []
