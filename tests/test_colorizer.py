"""`colorize` and `Colorizer`: tensor contract, sizes, determinism, reference mode, errors."""

from __future__ import annotations

import copy
import mmap
import pickle
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from deterministic_weights import untrained
from torch import Tensor

import disco_fast
from disco_fast import Colorizer, ops
from disco_fast import colorizer as module
from disco_fast.checkpoints import COMPACT, load_checkpoint
from disco_fast.engine.precision import cpu_has_bf16, resolve
from disco_fast.preprocess import working_shape

DATA = Path(__file__).parent / "data"
QUICK = {"working_size": 64}


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    """[3,256,256] uint8."""
    with np.load(DATA / "golden_diverse.npz") as file:
        pixels = cv2.imdecode(file["photograph_png"], cv2.IMREAD_COLOR_RGB)
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.uint8, 0), (torch.float32, 0.01), (torch.float64, 0.01), (torch.float16, 0.02)],
)
@pytest.mark.parametrize("lead", [(), (2,), (2, 1, 3)])
def test_dtype_device_and_leading_dimensions_are_kept(
    colorizer: Colorizer, photograph: Tensor, dtype: torch.dtype, tolerance: float, lead: tuple
):
    small = photograph[:, ::4, ::3]
    image = small if dtype == torch.uint8 else (small / 255).to(dtype)
    result = colorizer.colorize(image.expand(*lead, *image.shape), **QUICK)
    assert result.shape == (*lead, *small.shape)
    assert (result.dtype, result.device) == (dtype, image.device)
    expected = colorizer.colorize(small, **QUICK)
    if dtype != torch.uint8:
        expected = expected / 255
    assert (result.double() - expected.double()).abs().max() <= tolerance + 1e-9


def test_only_the_lightness_is_used(colorizer: Colorizer, photograph: Tensor):
    lightness = ops.rgb_to_l(photograph[None])
    gray = ops.lab_to_rgb(lightness, torch.zeros(1, 2, 1, 1), False)[0, :1]
    from_gray = colorizer.colorize(gray, **QUICK)
    from_color = colorizer.colorize(photograph / 255, **QUICK)
    torch.testing.assert_close(from_gray, from_color, rtol=0, atol=2e-3)


def test_lightness_is_kept(colorizer: Colorizer, photograph: Tensor):
    result = colorizer.colorize(photograph, **QUICK)
    difference = ops.rgb_to_l(result[None]) - ops.rgb_to_l(photograph[None])
    assert difference.abs().median() < 0.3  # rounding to bytes; colors outside sRGB are clamped
    assert result.float().std(0).mean() > 3  # and it did color


def test_variants_come_before_the_channels(colorizer: Colorizer, photograph: Tensor):
    small = photograph[:, ::4, ::4]
    result = colorizer.colorize(small[None, None], variants=3, **QUICK)
    assert result.shape == (1, 1, 3, *small.shape)
    first = colorizer.colorize(small, **QUICK)
    torch.testing.assert_close(result[0, 0, 0].int(), first.int(), rtol=0, atol=1)
    assert not torch.equal(result[0, 0, 0], result[0, 0, 1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_alone_or_in_a_batch(photograph: Tensor, precision: str):
    colorizer = Colorizer(device="cpu", precision=precision)
    images = torch.stack([photograph, photograph.flip(1), photograph.flip(2), 255 - photograph])
    together = colorizer.colorize(images, **QUICK)
    for image, result in zip(images, together, strict=True):
        assert torch.equal(colorizer.colorize(image, **QUICK), result)


def assorted() -> list[Tensor]:
    """Pictures of several sizes, types, channels and leading dimensions; some share a shape."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    return [
        random(3, 70, 70),
        random(2, 1, 40, 90) / 255,
        random(1, 64, 64),
        random(3, 40, 90),
        random(2, 2, 3, 80, 80),
        (random(3, 64, 64) / 255).double(),
        (random(1, 3, 40, 90) / 255).half(),
        random(1, 5, 7),
    ]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "settings", [{}, {"variants": 2, "seed": 5}, {"mode": "reference"}], ids=str
)
def test_many_sizes_at_once_are_each_alone(precision: str, settings: dict):
    colorizer = Colorizer(device="cpu", precision=precision)
    images = assorted()
    alone = [colorizer.colorize(image, **settings, **QUICK) for image in images]
    for order in (range(len(images)), [5, 2, 7, 0, 3, 6, 1, 4]):
        together = colorizer.colorize_all([images[i] for i in order], **settings, **QUICK)
        assert len(together) == len(images)
        for i, result in zip(order, together, strict=True):
            assert result.dtype == images[i].dtype
            assert torch.equal(result, alone[i])
    assert colorizer.colorize_all([]) == []


@pytest.mark.parametrize(
    "settings", [{}, {"variants": 2, "seed": 5}, {"mode": "reference"}], ids=str
)
def test_images_of_one_working_shape_share_passes(
    colorizer: Colorizer, settings: dict, monkeypatch: pytest.MonkeyPatch
):
    """As on a GPU, in powers of two; on a CPU `Colorizer` takes images one by one."""
    images, passes = assorted(), []
    every = {"n_anchors": 4, "mode": "full"} | settings | QUICK
    network = colorizer._engine.network
    first = network.segnet  # every pass begins with it
    hook = first.register_forward_hook(lambda _, inputs, __: passes.append(inputs[0]))
    with hook, monkeypatch.context() as as_on_a_gpu:
        as_on_a_gpu.setattr(module, "enough", lambda device, pixels: 16)
        results = colorizer.colorize_all(images, **every)
    counts: Counter[object] = Counter()
    for image in images:
        full = every["mode"] == "full" and working_shape(*image.shape[-2:], 64, network.stride)
        counts[full] += image.shape[:-3].numel()
    assert len(passes) == sum(count.bit_count() for count in counts.values())
    assert sum(map(len, passes)) == counts.total()
    for image, result in zip(images, results, strict=True):
        alone = colorizer.colorize(image, **every)
        assert (result.dtype, result.shape) == (alone.dtype, alone.shape)
        scale = 255 if image.is_floating_point() else 1
        # Convolutions round differently, which shows as one step of a byte, twice where cut off.
        assert (result.double() - alone.double()).abs().max() * scale <= 2


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(2, 3, 4, 4), TypeError, "images: expected a sequence of tensors, got Tensor"),
        (
            [torch.zeros(3, 4, 4), None],
            TypeError,
            r"images\[1\]: expected a tensor .* got NoneType",
        ),
        ([torch.zeros(3, 4, 4), torch.zeros(2, 4, 4)], ValueError, r"images\[1\]: .*\(2, 4, 4\)"),
        ([torch.full((1, 2, 2), 9.0)], ValueError, r"images\[0\]: .*values from 9"),
        ("ab", TypeError, r"images\[0\]: .*got str"),
    ],
)
def test_bad_image_among_many(colorizer: Colorizer, images: object, error: type, message: str):
    with pytest.raises(error, match=message):
        colorizer.colorize_all(images, **QUICK)
    with pytest.raises(ValueError, match=r"variants: expected 1\.\.64, got 65"):
        colorizer.colorize_all([torch.zeros(3, 4, 4)], variants=65)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its memory as on Linux")
@pytest.mark.thorough
def test_a_thousand_calls_take_no_more_memory(colorizer: Colorizer):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    random = np.random.RandomState(0)
    calls = []
    for _ in range(20):
        shape = (random.randint(1, 3), random.choice([1, 3]), *random.randint(20, 80, 2))
        image = torch.from_numpy(random.randint(0, 256, shape, np.uint8))
        settings = {
            "working_size": int(random.choice([32, 48, 64])),
            "variants": int(random.choice([1, 2])),
            "n_anchors": int(random.choice([2, 8])),
        }
        calls.append((image, settings, colorizer.colorize(image, **settings)))
    for number in range(1000):
        if number == 200:
            before = resident()
        image, settings, first = calls[random.randint(len(calls))]
        assert torch.equal(colorizer.colorize(image, **settings), first)
    # Not 40 KB a call: less than any of its full-size maps of features.
    assert resident() - before < 32 * 2**20


def test_seed_decides(colorizer: Colorizer, photograph: Tensor):
    results = [colorizer.colorize(photograph, seed=seed, **QUICK) for seed in (5, 5, 6, 7, 8)]
    assert torch.equal(results[0], results[1])
    assert any(not torch.equal(results[0], other) for other in results[2:])


@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 2), (2, 1), (15, 17), (16, 16), (1, 500), (500, 1), (33, 200), (3, 8000)],
)
def test_every_size(colorizer: Colorizer, size: tuple[int, int]):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, *size, generator=generator)
    result = colorizer.colorize(image, **QUICK)
    assert result.shape == image.shape
    assert result.isfinite().all()
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("size", [(256, 256), (480, 640), (3000, 4000), (1, 8000), (8000, 8000)])
def test_working_shape(size: tuple[int, int]):
    height, width = working_shape(*size, 256, 16)
    assert height % 16 == 0 == width % 16
    assert height * width <= 1.2 * 256**2
    if max(size) < 10 * min(size):
        assert height * width >= 0.85 * 256**2
        assert height / width == pytest.approx(size[0] / size[1], rel=0.08)


def test_black_and_white_stay_so(colorizer: Colorizer):
    for value in (0, 255):
        flat = torch.full((1, 40, 40), value, dtype=torch.uint8)
        result = colorizer.colorize(flat, **QUICK)
        difference = ops.rgb_to_l(result[None]) - ops.rgb_to_l(flat[None])
        assert difference.abs().max() < 3  # chroma does not exist there; clamping it costs a little


def test_non_contiguous_input_and_no_side_effects(colorizer: Colorizer, photograph: Tensor):
    image = photograph[:, ::4, ::4]
    before = image.clone()
    result = colorizer.colorize(image, **QUICK)
    assert torch.equal(image, before)
    assert torch.equal(result, colorizer.colorize(image.contiguous(), **QUICK))
    gradient = (image / 255).requires_grad_()
    assert not colorizer.colorize(gradient, **QUICK).requires_grad


def test_function_is_the_object(colorizer: Colorizer, photograph: Tensor):
    small = photograph[:, ::4, ::4]
    result = disco_fast.colorize(small, precision="fp32", device="cpu", **QUICK)
    assert torch.equal(result, colorizer.colorize(small, **QUICK))


def official_steps(photograph: Tensor, seed: int, variants: int) -> np.ndarray:
    """[variants,256,256,3] uint8: the official script's arithmetic, written once more."""
    rgb = cv2.resize(
        photograph.permute(1, 2, 0).numpy(), (256, 256), interpolation=cv2.INTER_LINEAR
    )
    lab = cv2.cvtColor(np.array(rgb / 255.0, np.float32), cv2.COLOR_RGB2LAB)
    np.random.seed(seed)
    init = torch.from_numpy(np.random.choice(256, 8, replace=False))[None]
    network = disco_fast.load_checkpoint(disco_fast.checkpoints.COMPACT)
    gray = torch.from_numpy((lab[..., 0] - 50.0) / 50.0)[None, None]
    with torch.inference_mode():
        ab = network(gray, 8, init, variants).ab
    pictures = []
    for chroma in ab:
        out = np.concatenate([gray[0] * 50 + 50, chroma.numpy() * 110]).transpose(1, 2, 0)
        out = cv2.cvtColor(np.ascontiguousarray(out, np.float32), cv2.COLOR_LAB2RGB)
        pictures.append((out * 255.0).astype(np.uint8))
    return np.stack(pictures)


@pytest.mark.parametrize("variants", [1, 3])
def test_reference_mode_is_the_official_script(
    colorizer: Colorizer, photograph: Tensor, variants: int
):
    image = photograph[:, 10:210]  # 200 x 256: is stretched
    result = colorizer.colorize(image, variants=variants, seed=130, mode="reference")
    expected = official_steps(image, 130, variants)
    actual = result.reshape(variants, 3, 256, 256).permute(0, 2, 3, 1).numpy()
    # Bytes are cut off, so a difference of rounding can show as one step.
    assert np.abs(actual.astype(int) - expected.astype(int)).max() <= 1


def test_a_network_in_place_of_a_checkpoint(photograph: Tensor):
    result = Colorizer(untrained(0.125), "cpu", "fp32").colorize(photograph, **QUICK)
    assert result.shape == photograph.shape


@pytest.mark.parametrize(
    ("image", "error", "got"),
    [
        ("photo.jpg", TypeError, "got str"),
        (np.zeros((3, 4, 4)), TypeError, "got ndarray"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), TypeError, "got torch.int32"),
        (torch.zeros(3, 4, 4, dtype=torch.bool), TypeError, "got torch.bool"),
        (torch.zeros(4, 4), ValueError, r"got shape \(4, 4\)"),
        (torch.zeros(4, 4, 3), ValueError, r"got shape \(4, 4, 3\)"),
        (torch.zeros(2, 4, 4), ValueError, r"got shape \(2, 4, 4\)"),
        (torch.zeros(0, 3, 4, 4), ValueError, "empty"),
        (torch.zeros(3, 0, 4), ValueError, "empty"),
        (torch.full((3, 4, 4), float("nan")), ValueError, "got values from nan"),
        (torch.full((3, 4, 4), float("inf")), ValueError, "to inf"),
        (torch.full((3, 4, 4), 200.0), ValueError, "to 200.0"),
        (torch.full((3, 4, 4), -0.5), ValueError, "from -0.5"),
    ],
)
def test_bad_images(image: object, error: type, got: str):
    with pytest.raises(error, match=f"image: expected .*{got}"):
        disco_fast.colorize(image)


def test_slight_overshoot_is_clamped(colorizer: Colorizer):
    image = torch.full((1, 20, 20), 1.0002)
    assert colorizer.colorize(image, **QUICK).max() <= 1


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"n_anchors": 0}, ValueError, r"n_anchors: expected 1\.\."),
        ({"n_anchors": 2.0}, TypeError, "n_anchors: expected an int, got float"),
        ({"variants": 65}, ValueError, r"variants: expected 1\.\.64, got 65"),
        ({"n_anchors": "some"}, TypeError, "n_anchors: expected an int, got str"),
        ({"temperature": 0}, ValueError, "temperature: expected more than 0"),
        ({"temperature": "hot"}, TypeError, "temperature: expected a number, got str"),
        ({"variants": 4, "mode": "reference"}, ValueError, 'mode: only "full"'),
        ({"n_anchors": "auto", "mode": "reference"}, ValueError, 'mode: only "full"'),
        ({"seed": "x"}, TypeError, "seed: expected an int"),
        ({"seed": 2**63}, ValueError, "seed: expected"),
        ({"working_size": 8}, ValueError, "working_size: expected 16"),
        ({"mode": "best"}, ValueError, "mode: expected one of full, reference"),
        ({"precision": "int4"}, ValueError, "precision: expected one of"),
        ({"precision": "fp16", "device": "cpu"}, ValueError, "fp16 runs on GPUs only"),
        ({"device": "moon"}, ValueError, "device: expected one usable here, got 'moon'"),
        ({"checkpoint": "no/such.pth"}, FileNotFoundError, "no/such.pth"),
    ],
)
def test_bad_settings(settings: dict, error: type, message: str):
    with pytest.raises(error, match=message):
        disco_fast.colorize(torch.zeros(1, 8, 8), **settings)


def test_auto_precision():
    expected = "bf16" if cpu_has_bf16() else "fp32"
    assert resolve("auto", torch.device("cpu")) == expected


def test_bf16_keeps_the_colors(colorizer: Colorizer, photograph: Tensor):
    half = Colorizer(device="cpu", precision="bf16")
    expected = colorizer.colorize(photograph / 255)
    actual = half.colorize(photograph / 255)
    # Anchors may move on rare photographs; on this one they stay, and colors by far less than can
    # be seen.
    assert (actual - expected).abs().mean() < 0.02


# ---- what surrounds a call ----------------------------------------------------------------------


def test_autocast_around_a_call_changes_nothing() -> None:
    image = (torch.arange(48 * 64) % 251).to(torch.uint8).reshape(1, 48, 64)
    for precision in ("fp32", "bf16"):
        colorizer = Colorizer(device="cpu", precision=precision)
        plain = colorizer.colorize(image, working_size=48)
        analysis = colorizer.analyze(image, working_size=48)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(colorizer.colorize(image, working_size=48), plain)
            assert torch.equal(colorizer.colorize_all([image], working_size=48)[0], plain)
            within = colorizer.analyze(image, working_size=48)
            assert torch.equal(analysis.colorize(), plain)
            assert torch.is_autocast_enabled("cpu")
        assert within.anchors == analysis.anchors
        assert torch.equal(within.colorize(), plain)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_colorizer_can_be_copied_and_sent(again, tmp_path, monkeypatch) -> None:
    image = (torch.arange(48 * 64) % 251).to(torch.uint8).reshape(1, 48, 64)
    shutil.copy(COMPACT, tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    for checkpoint in (None, "mine.safetensors", load_checkpoint(COMPACT)):
        made = Colorizer(checkpoint, "cpu", "fp32")
        monkeypatch.chdir("/")  # a worker may be somewhere else
        other = again(made)
        monkeypatch.chdir(tmp_path)
        assert (other.device, other.precision) == (made.device, made.precision)
        assert torch.equal(other.colorize(image), made.colorize(image))
    assert len(pickle.dumps(Colorizer(device="cpu"))) < 500


def test_numpys_numbers_are_numbers() -> None:
    image = (torch.arange(48 * 64) % 251).to(torch.uint8).reshape(1, 48, 64)
    colorizer = Colorizer(device="cpu", precision="fp32")
    plain = colorizer.colorize(image, n_anchors=5, variants=2, seed=3, working_size=48)
    numbers = {"n_anchors": 5, "variants": 2, "seed": 3, "working_size": 48}
    for kind in (np.int64, np.int32, np.uint8):
        same = {name: kind(number) for name, number in numbers.items()}
        result = colorizer.colorize(image, **same, temperature=np.float32(1))
        assert torch.equal(result, plain)
    analysis = colorizer.analyze(image, n_anchors=np.int64(5), seed=np.int64(3))
    assert analysis.anchors == colorizer.analyze(image, n_anchors=5, seed=3).anchors
    with pytest.raises(TypeError, match="seed: expected an int, got float64"):
        colorizer.colorize(image, seed=np.float64(3))


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (torch.zeros(1, 8, 8).to_sparse(), "a sparse_coo one"),
        (torch.zeros(1, 8, 8).to_sparse_csr(), "a sparse_csr one"),
        (torch.zeros(1, 8, 8, device="meta"), "one without values"),
        (torch.zeros(1, 8, 8).to(torch.float8_e4m3fn), "torch.float8_e4m3fn"),
        (torch.quantize_per_tensor(torch.zeros(1, 8, 8), 0.1, 0, torch.quint8), "torch.quint8"),
        (torch.nested.nested_tensor([torch.zeros(1, 8, 8)]), "a nested one"),
        (torch.zeros(1, 8, 8, dtype=torch.complex64), "torch.complex64"),
        (torch.zeros(1, 8, 8, dtype=torch.bool), "torch.bool"),
    ],
)
def test_odd_tensors_get_the_usual_sentence(image, got: str) -> None:
    with pytest.raises(TypeError, match=rf"image: expected a tensor \(.*\), .*, got {got}"):
        Colorizer(device="cpu").colorize(image)
